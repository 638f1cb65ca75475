"""The store's files, in plain dataclasses and strict JSON that is readable without this code."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

SCHEMA = 1
State = Literal["running", "finished", "failed", "stopped"]
Record = TypeVar("Record")


@dataclass(frozen=True)
class TrialRecipe:
    """`recipe.json`: all that a trial's result depends on. `recipe` is nested plain values."""

    trial: str
    seed: int
    data: str
    recipe: dict[str, Any]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Status:
    """`status.json`: replaced atomically. Times are seconds since 1970, UTC; `seconds` is work, of all attempts.

    `failures` counts the attempts that ended badly, by cause; `inherited` the epochs that another trial has trained, from which
    this one goes on.
    """

    trial: str
    state: State
    attempt: int
    host: str
    pid: int
    threads: int
    started: float
    updated: float
    seconds: float = 0.0
    epoch: int = 0
    epochs: int = 0
    ended: float | None = None
    cause: str | None = None
    message: str | None = None
    failures: dict[str, int] = field(default_factory=dict)
    inherited: int = 0
    schema: int = SCHEMA


@dataclass(frozen=True)
class Report:
    """One line of `metrics.jsonl`. `attempt` is 0 in stores of before attempts were numbered there."""

    epoch: int
    step: int
    time: float
    values: dict[str, float]
    attempt: int = 0


@dataclass(frozen=True)
class Usage:
    """One line of `system.jsonl`: what an attempt used of its machine. `seconds` is work, of all attempts; memory in 1e6 bytes."""

    seconds: float
    time: float
    values: dict[str, float]


@dataclass(frozen=True)
class Environment:
    """`environment.json`: what the newest attempt runs on. `dirty` says whether the code's tree was changed since `commit`."""

    attempt: int
    host: str
    cpu: str
    cores: int
    gpus: list[str]
    commit: str | None
    dirty: bool | None
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


@dataclass(frozen=True)
class Result:
    """`result.json`: written once, by the attempt that finished. `seconds` is training and evaluation of all attempts."""

    trial: str
    metrics: dict[str, float]
    attempt: int
    seconds: float
    threads: int
    host: str
    device: str
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


def encode(record: Any) -> str:
    """Strict JSON (no NaN, keys sorted), ending in a newline."""
    plain = dataclasses.asdict(record) if dataclasses.is_dataclass(record) and not isinstance(record, type) else record
    return json.dumps(plain, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def decode(cls: type[Record], text: str) -> Record:
    """Build `cls` from JSON; unknown keys are ignored, so that newer records stay readable."""
    raw = json.loads(text)
    if not isinstance(raw, dict):
        raise ValueError("the record is no JSON object")
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{k: v for k, v in raw.items() if k in names})


def encode_report(report: Report) -> str:
    """One line of JSON. A value that is no finite number is written as null, since JSON has no NaN."""
    values = {k: (v if math.isfinite(v) else None) for k, v in report.values.items()}
    line: dict[str, Any] = {"epoch": report.epoch, "step": report.step, "time": round(report.time, 3), "values": values}
    if report.attempt:
        line["attempt"] = report.attempt
    return json.dumps(line, sort_keys=True, allow_nan=False) + "\n"


def decode_report(line: str) -> Report:
    """The inverse of `encode_report`; null becomes NaN."""
    raw = json.loads(line)
    values = {k: math.nan if v is None else float(v) for k, v in raw["values"].items()}
    return Report(int(raw["epoch"]), int(raw["step"]), float(raw["time"]), values, int(raw.get("attempt", 0)))


def fenced(reports: Iterable[Report]) -> list[Report]:
    """The reports that count, of all in the order of the file.

    A later attempt overrules an earlier one from where it began. So a line of an earlier attempt is late when it stands
    behind a later one's, or says what the later one says itself; a process that a network partition left running writes such lines.
    """
    kept: list[Report] = []
    for report in reports:
        if kept and report.attempt < kept[-1].attempt:
            continue
        while kept and kept[-1].attempt < report.attempt and _overrules(report, kept[-1]):
            kept.pop()
        kept.append(report)
    return kept


def _overrules(later: Report, earlier: Report) -> bool:
    return earlier.step > later.step or (earlier.step == later.step and earlier.values.keys() == later.values.keys())


def encode_usage(usage: Usage) -> str:
    """One line of JSON."""
    line = {"seconds": round(usage.seconds, 3), "time": round(usage.time, 3), "values": usage.values}
    return json.dumps(line, sort_keys=True, allow_nan=False) + "\n"


def decode_usage(line: str) -> Usage:
    """The inverse of `encode_usage`."""
    raw = json.loads(line)
    return Usage(float(raw["seconds"]), float(raw["time"]), {k: float(v) for k, v in raw["values"].items()})


def write_atomically(path: Path, text: str | bytes, *, durable: bool = True) -> None:
    """Replace `path` in one step; a reader sees the old content or the new, never a part.

    `durable` waits for the disk, so that a loss of power leaves no empty file; without it a write costs a tenth.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def drop_torn_line(path: Path) -> None:
    """Cut off what a writer killed in the middle of a line has left, which would spoil the next one."""
    if path.exists() and not (data := path.read_bytes()).endswith(b"\n"):
        write_atomically(path, data[: data.rfind(b"\n") + 1])


def read_json(path: Path) -> Mapping[str, Any] | None:
    """The JSON object in `path`, or None where there is none yet."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} holds no JSON object")
    return raw
