"""The directory that is the truth: trials by id, sweeps by name (design.md, decisions 1 to 3)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablatrix.errors import DamagedRecord, InvalidInput
from ablatrix.records import (
    Environment,
    Record,
    Report,
    Result,
    Status,
    TrialRecipe,
    Usage,
    decode,
    decode_report,
    decode_usage,
    encode,
    encode_report,
    fenced,
    read_json,
    write_atomically,
)

DEFAULT = "runs"
TAIL_BYTES = 2**16  # more than any line of reports
PLAN_REMEDY = "The next `ablatrix run` writes it anew; finished trials are kept."


@dataclass(frozen=True)
class TrialDirectory:
    """`trials/<id>/`: one trial of any number of sweeps."""

    path: Path

    @property
    def id(self) -> str:
        """The trial id."""
        return self.path.name

    @property
    def log(self) -> Path:
        """Everything that the trial printed, all attempts."""
        return self.path / "log.txt"

    @property
    def metrics_file(self) -> Path:
        """One report per line."""
        return self.path / "metrics.jsonl"

    @property
    def usage_file(self) -> Path:
        """One sample of CPU, memory and GPU per line."""
        return self.path / "system.jsonl"

    @property
    def pictures(self) -> Path:
        """Where pictures of the trial lie, as PNG."""
        return self.path / "pictures"

    def picture_files(self) -> list[Path]:
        """The pictures that are there, by name; one that is being written is not."""
        return sorted(path for path in self.pictures.glob("*.png") if not path.name.startswith("."))

    @property
    def checkpoint(self) -> Path:
        """The directory of the newest checkpoint."""
        return self.path / "checkpoint"

    @property
    def claims(self) -> Path:
        """The lease of whoever runs the trial; the number of a claim is that of the attempt."""
        return self.path / "claims"

    def create(self, recipe: TrialRecipe) -> None:
        """Make the directory and its `recipe.json`, unless they are there."""
        if not (self.path / "recipe.json").exists():
            write_atomically(self.path / "recipe.json", encode(recipe))

    def recipe(self) -> TrialRecipe:
        """What was asked for."""
        record = _read(TrialRecipe, self.path / "recipe.json")
        if record is None:
            raise InvalidInput(f"no trial {self.id} in this store ({self.path} has no recipe.json). See `ablatrix list`.")
        return record

    def status(self) -> Status | None:
        """Where the trial stands, or None before its first attempt."""
        return _read(Status, self.path / "status.json")

    def write_status(self, status: Status) -> None:
        """Replace `status.json`."""
        write_atomically(self.path / "status.json", encode(status))

    def environment(self) -> Environment | None:
        """What the newest attempt runs on, or None where that was not written down."""
        return _read(Environment, self.path / "environment.json")

    def write_environment(self, environment: Environment) -> None:
        """Replace `environment.json`."""
        write_atomically(self.path / "environment.json", encode(environment))

    def usage(self) -> list[Usage]:
        """Every readable line of `system.jsonl`: a lost sample costs nothing."""
        found = []
        for line in self.usage_file.read_text(errors="replace").splitlines() if self.usage_file.exists() else ():
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                found.append(decode_usage(line))
        return found

    def result(self) -> Result | None:
        """The final metrics, or None while there are none."""
        return _read(Result, self.path / "result.json")

    def write_result(self, result: Result) -> None:
        """Write `result.json`; its presence is what makes a trial finished."""
        write_atomically(self.path / "result.json", encode(result))

    def reports(self) -> list[Report]:
        """Every complete line of `metrics.jsonl` that counts; a torn last line and those of fenced attempts are left out."""
        try:
            return fenced(decode_report(line) for line in self._complete_lines())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedRecord(self.metrics_file, error) from error

    def mend(self) -> None:
        """Give a finished trial's `metrics.jsonl` its last line back where that was spoilt or lost: its values are those of the result."""
        result = self.result()
        if result is None or not self.metrics_file.exists() or self._ends_with(result):
            return
        lines = self.metrics_file.read_bytes().splitlines(keepends=True)
        kept = lines[:] if lines and _is_report(lines[-1]) else lines[:-1]
        counting = fenced(decode_report(line.decode()) for line in kept if _is_report(line))
        before = counting[-1] if counting else Report(0, 0, 0.0, {})
        if before.values != result.metrics:
            status = self.status()
            last = Report(
                epoch=status.epochs if status else before.epoch,
                step=before.step,
                time=(status.ended if status else None) or before.time,
                values=result.metrics,
                attempt=result.attempt,
            )
            kept.append(encode_report(last).encode())
        if kept != lines:  # what was spoilt may stand behind the last line
            write_atomically(self.metrics_file, b"".join(kept))

    def _ends_with(self, result: Result) -> bool:
        """Whether the file's last line is whole and the result's."""
        line = _last_line(self.metrics_file)
        return _is_report(line) and decode_report(line.decode()).values == result.metrics

    def _complete_lines(self) -> Iterator[str]:
        if not self.metrics_file.exists():
            return
        with self.metrics_file.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.endswith("\n") and line.startswith("{"):
                    yield line


def _last_line(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return (file.read().splitlines(keepends=True) or [b""])[-1]


def _is_report(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and bool(decode_report(line.decode()))
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def _read(cls: type[Record], path: Path) -> Record | None:
    """The record in `path`, None where there is none, DamagedRecord where it is none."""
    try:
        return decode(cls, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DamagedRecord(path, error) from error


@dataclass(frozen=True)
class SweepDirectory:
    """`sweeps/<sweep>/` or, for a profile, `sweeps/<sweep>@<profile>/`."""

    path: Path

    @property
    def name(self) -> str:
        """The sweep's name, with its profile."""
        return self.path.name

    @property
    def report(self) -> Path:
        """Where the report's files lie."""
        return self.path / "report"

    @property
    def log(self) -> Path:
        """What the sweep's Ray jobs printed."""
        return self.path / "log.txt"

    @property
    def stop_file(self) -> Path:
        """Its presence asks every running trial of the sweep to save and stop."""
        return self.path / "stop"

    @property
    def claims(self) -> Path:
        """The lease of whoever runs the sweep."""
        return self.path / "claims"

    def submit(self, text: str, plan: dict[str, Any]) -> None:
        """Keep the sweep file as it was submitted, and the plan made from it."""
        write_atomically(self.path / "sweep.yaml", text)
        write_atomically(self.path / "plan.json", encode(plan))

    def plan(self) -> dict[str, Any]:
        """The plan of the last `run`; raises InvalidInput where there is none."""
        try:
            plan = read_json(self.path / "plan.json")
        except ValueError as error:
            raise DamagedRecord(self.path / "plan.json", error, PLAN_REMEDY) from error
        if plan is None:
            raise InvalidInput(f"no sweep {self.name!r} in this store. See `ablatrix list`, or start it with `ablatrix run`.")
        if not isinstance(plan.get("cells"), list):
            raise DamagedRecord(self.path / "plan.json", ValueError("it lists no cells"), PLAN_REMEDY)
        return dict(plan)


@dataclass(frozen=True)
class Store:
    """The root directory."""

    root: Path

    @staticmethod
    def at(option: Path | str | None) -> Store:
        """The store named by `--store`, else by `ABLATRIX_STORE`, else `./runs`."""
        given = option or os.environ.get("ABLATRIX_STORE") or DEFAULT
        try:
            return Store(Path(given).expanduser().absolute())
        except RuntimeError as error:  # ~name, where there is no such user
            raise InvalidInput(f"the store {str(given)!r} cannot be a place: {error}") from None

    def trial(self, trial: str) -> TrialDirectory:
        """The directory of a trial id, whether or not it is there yet."""
        if len(trial) != 16 or not set(trial) <= set("0123456789abcdef"):
            raise InvalidInput(f"{trial!r} is no trial id: 16 hex digits are needed. See `ablatrix status`.")
        return TrialDirectory(self.root / "trials" / trial)

    def trials(self) -> list[TrialDirectory]:
        """All trials, by id."""
        return [TrialDirectory(p) for p in self._directories("trials")]

    def sweep(self, name: str) -> SweepDirectory:
        """The directory of a sweep, whether or not it is there yet."""
        if not name or Path(name).name != name or name in (".", ".."):
            raise InvalidInput(f"{name!r} is no sweep name: it would leave the store.")
        return SweepDirectory(self.root / "sweeps" / name)

    def sweeps(self) -> list[SweepDirectory]:
        """All sweeps that were ever submitted, by name."""
        return [SweepDirectory(p) for p in self._directories("sweeps") if (p / "plan.json").exists()]

    def free_gb(self) -> float:
        """Free space where the store lies, in gigabytes."""
        place = next(p for p in (self.root, *self.root.parents) if p.exists())
        return shutil.disk_usage(place).free / 1e9

    def _directories(self, kind: str) -> list[Path]:
        place = self.root / kind
        return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith(".")) if place.is_dir() else []
