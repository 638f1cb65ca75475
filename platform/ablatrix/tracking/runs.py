"""What a sweep and its trials should look like in MLflow: pure descriptions, read from the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ablatrix.records import Result, Status, TrialRecipe
from ablatrix.store import TrialDirectory
from ablatrix.tracking.points import MAX_KEY, Point, Reading, final_points, key_of

CELL = "cell."
AXIS = "axis."
KIND = "ablatrix.kind"
# Tags that may hold at one time and not at another; users' own tags are never touched.
PASSING_TAGS = {"command", "cause", "message", "device", "cpu", "gpu", "commit", "dirty", "mlflow.source.git.commit"}
VERSION = "version."
PASSING = (AXIS, VERSION)
RUN_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "running": "RUNNING"}
MAX_PARAM, MAX_TAG, MAX_DIGEST = 6000, 8000, 36


@dataclass(frozen=True)
class Planned:
    """A trial as the plan names it: the cells that want it, its seed, and the tags that follow from both."""

    trial: str
    name: str
    tags: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        """Changes when the plan says something else about the trial."""
        return digest([self.name, dict(self.tags)])


class DataInput(NamedTuple):
    """The dataset of a trial. `digest` is the fingerprint of its content, `source` where it lies, `profile` what is used of it."""

    name: str
    digest: str
    source: str
    profile: str


@dataclass(frozen=True)
class TrialRun:
    """A child run, complete. Times are milliseconds since 1970."""

    planned: Planned
    tags: Mapping[str, str]
    params: Mapping[str, str]
    status: str
    started_ms: int
    ended_ms: int | None
    points: tuple[Point, ...]
    data: DataInput


def stamp_of(path: Path) -> tuple[int, int] | None:
    """When a file was last written and how long it is; None where it is not there."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_mtime_ns, facts.st_size


def digest(value: Any) -> str:
    """A short fingerprint of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def planned_trials(plan: Mapping[str, Any], sweep: str) -> list[Planned]:
    """Every trial of the plan once, in the order of the cells; a trial of two cells bears the names of both."""
    wanted: dict[str, list[tuple[Mapping[str, Any], int]]] = {}
    for cell in plan["cells"]:
        if not cell.get("excluded"):
            for trial in cell["trials"]:
                wanted.setdefault(trial["trial"], []).append((cell, int(trial["seed"])))
    varying = _varying([cell for places in wanted.values() for cell, _ in places])
    several_seeds = len({seed for places in wanted.values() for _, seed in places}) > 1
    return [_planned(plan, sweep, trial, places, varying, several_seeds) for trial, places in wanted.items()]


def _varying(cells: list[Mapping[str, Any]]) -> set[str]:
    """The axes in which cells differ."""
    names = dict.fromkeys(name for cell in cells for name in cell["levels"])
    return {name for name in names if len({str(cell["levels"].get(name)) for cell in cells}) > 1}


def _planned(
    plan: Mapping[str, Any], sweep: str, trial: str, places: list[tuple[Mapping[str, Any], int]], varying: set[str], several_seeds: bool
) -> Planned:
    seed = places[0][1]
    cells = "; ".join(cell["id"] for cell, _ in places)
    tags = {"ablatrix.trial": trial, "ablatrix.sweep": sweep, "ablatrix.cell": cells, "seed": str(seed), **source_tags(plan)}
    for axis in plan["axes"]:
        levels = dict.fromkeys(str(cell["levels"].get(axis["name"], "")) for cell, _ in places)
        tags[key_of(AXIS + axis["name"])] = "; ".join(levels)
    # The name shows what tells the runs of this sweep apart, and nothing else.
    parts = dict.fromkeys(f"{name}={level}" for cell, _ in places for name, level in cell["levels"].items() if name in varying)
    shown = [*parts, *([f"seed {seed}"] if several_seeds or not parts else [])]
    return Planned(trial, ", ".join(shown)[:MAX_KEY], _clipped(tags, MAX_TAG))


def source_tags(plan: Mapping[str, Any]) -> dict[str, str]:
    """Command and commit, in our tags and in those that MLflow's own columns Source and Version show."""
    # MLflow shows of a source what follows its last slash.
    tags = {
        "mlflow.source.name": f"ablatrix run {Path(str(plan.get('file') or plan.get('sweep') or '')).name}",
        "mlflow.source.type": "LOCAL",
    }
    if plan.get("command"):
        tags["command"] = str(plan["command"])
    if plan.get("commit"):
        tags["mlflow.source.git.commit"] = str(plan["commit"])
        tags |= {"commit": str(plan["commit"]), "dirty": str(bool(plan.get("dirty"))).lower()}
    return tags


def read_trial(directory: TrialDirectory, planned: Planned, reading: Reading) -> TrialRun | None:
    """The run of a trial as the store has it now, or None while it waits; its points are those that `reading` finds new.

    Raises ValueError on a damaged record.
    """
    # The result is read first: reports are complete once it is there.
    result = directory.result()
    status = directory.status()
    if result is None and status is None:
        return None
    reading.read(directory)
    started_s = min([s.started for s in [status] if s] + [r.time for r in [reading.first] if r], default=0.0)
    state = "finished" if result else "running" if status is None or status.state == "finished" else status.state
    recipe = directory.recipe()
    return TrialRun(
        planned,
        tags={**planned.tags, **_clipped(_state_tags(state, status, result) | _environment_tags(directory), MAX_TAG)},
        params=_clipped({key_of(k): v for k, v in flat(recipe.recipe)} | {"seed": str(recipe.seed)}, MAX_PARAM),
        status=RUN_STATUS[state],
        started_ms=int(1000 * started_s),
        ended_ms=None if state == "running" else _ended_ms(status, reading),
        points=(*reading.points, *(final_points(result, reading.newest, int(1000 * started_s)) if result else ())),
        data=_data_input(recipe),
    )


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and texts of the leaves of nested values; lists and empty mappings as JSON."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _state_tags(state: str, status: Status | None, result: Result | None) -> dict[str, str]:
    tags = {"state": state}
    if status:
        tags |= {"attempt": str(status.attempt), "host": status.host}
        if state in ("failed", "stopped"):
            tags |= {name: text for name, text in (("cause", status.cause), ("message", status.message)) if text}
    if result:
        tags |= {"attempt": str(result.attempt), "host": result.host, "device": result.device} | _version_tags(result.versions)
    return tags


def _environment_tags(directory: TrialDirectory) -> dict[str, str]:
    """What the trial itself ran on. The plan's commit is that of the last `run`, which may have found the trial finished."""
    found = directory.environment()
    if found is None:
        return {}
    tags = {"host": found.host, "cpu": f"{found.cores} x {found.cpu}"} | _version_tags(found.versions)
    if found.gpus:
        tags["gpu"] = ", ".join(found.gpus)
    if found.commit:
        tags |= {"commit": found.commit, "dirty": str(bool(found.dirty)).lower(), "mlflow.source.git.commit": found.commit}
    return tags


def _version_tags(versions: Mapping[str, str]) -> dict[str, str]:
    return {key_of(VERSION + name): version for name, version in versions.items() if name != "cpu"}  # which is no version


def _data_input(recipe: TrialRecipe) -> DataInput:
    data = recipe.recipe.get("data") or {}
    used = {name: value for name, value in data.items() if name.endswith(("_images", "_size")) and value is not None}
    return DataInput(
        str(data.get("name", "data")), recipe.data[:MAX_DIGEST], str(data.get("path") or data.get("name", "")), json.dumps(used)
    )


def _ended_ms(status: Status | None, reading: Reading) -> int:
    if status:
        return int(1000 * (status.ended or status.updated))
    return int(1000 * reading.newest.time) if reading.newest else 0


def _clipped(texts: Mapping[str, str], most: int) -> dict[str, str]:
    return {name: text[:most] for name, text in texts.items()}


def sweep_status(states: list[str | None]) -> str:
    """The parent's run status from those of its children (None = waiting)."""
    if "RUNNING" in states:
        return "RUNNING"
    if all(state == "FINISHED" for state in states):
        return "FINISHED"
    if "KILLED" in states:
        return "KILLED"
    return "RUNNING" if None in states else "FAILED"
