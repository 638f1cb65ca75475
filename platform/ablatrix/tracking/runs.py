"""What a sweep and its trials should look like in MLflow: pure descriptions, read from the store."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ablatrix.records import Report, Result, Status
from ablatrix.store import TrialDirectory

FINAL = "final."
CELL = "cell."
AXIS = "axis."
KIND = "ablatrix.kind"
# Tags that may hold at one time and not at another; users' own tags are never touched.
PASSING_TAGS = {"cause", "message", "device", "versions", "commit", "mlflow.source.git.commit"}
RUN_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "running": "RUNNING"}
MAX_KEY, MAX_PARAM, MAX_TAG = 250, 6000, 8000


class Point(NamedTuple):
    """One value of one metric. `epoch` becomes MLflow's step: it is what users compare runs by."""

    key: str
    epoch: int
    step: int
    time_ms: int
    value: float


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


def key_of(name: str) -> str:
    """`name` with every character that MLflow forbids in a metric, parameter or tag replaced by `_`."""
    safe = re.sub(r"[^/\w.\- ]", "_", name)[:MAX_KEY]
    return safe if posixpath.normpath(safe) == safe and not safe.startswith(("/", "..")) else safe.replace("/", "_").strip(".") or "_"


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
    return [_planned(plan, sweep, trial, places) for trial, places in wanted.items()]


def _planned(plan: Mapping[str, Any], sweep: str, trial: str, places: list[tuple[Mapping[str, Any], int]]) -> Planned:
    ids = [cell["id"] for cell, _ in places]
    seed = places[0][1]
    tags = {"ablatrix.trial": trial, "ablatrix.sweep": sweep, "ablatrix.cell": "; ".join(ids), "seed": str(seed), **source_tags(plan)}
    for axis in plan["axes"]:
        levels = dict.fromkeys(str(cell["levels"].get(axis["name"], "")) for cell, _ in places)
        tags[key_of(AXIS + axis["name"])] = "; ".join(levels)
    return Planned(trial, ", ".join(filter(None, [*ids, f"seed {seed}"]))[:MAX_KEY], _clipped(tags, MAX_TAG))


def source_tags(plan: Mapping[str, Any]) -> dict[str, str]:
    """Command and commit, in our tags and in those that MLflow's own columns Source and Version show."""
    tags = {"mlflow.source.name": str(plan.get("command") or "ablatrix run"), "mlflow.source.type": "LOCAL"}
    if plan.get("commit"):
        tags["mlflow.source.git.commit"] = str(plan["commit"])
        tags["commit"] = f"{plan['commit']}{' (with changes)' if plan.get('dirty') else ''}"
    return tags


def read_trial(directory: TrialDirectory, planned: Planned) -> TrialRun | None:
    """The run of a trial as the store has it now, or None while it waits. Raises ValueError on a damaged record."""
    # The result is read first: reports are complete once it is there.
    result = directory.result()
    status = directory.status()
    if result is None and status is None:
        return None
    reports = directory.reports()
    points = tuple(series(reports, result, int(1000 * status.started) if status else 0))
    started = min([s.started for s in [status] if s] + [r.time for r in reports[:1]], default=0.0)
    state = "finished" if result else "running" if status is None or status.state == "finished" else status.state
    recipe = directory.recipe()
    return TrialRun(
        planned,
        tags={**planned.tags, **_clipped(_state_tags(state, status, result), MAX_TAG)},
        params=_clipped({key_of(k): v for k, v in flat(recipe.recipe)} | {"seed": str(recipe.seed)}, MAX_PARAM),
        status=RUN_STATUS[state],
        started_ms=int(1000 * started),
        ended_ms=None if state == "running" else _ended_ms(status, reports),
        points=points,
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
        versions = ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))
        tags |= {"attempt": str(result.attempt), "host": result.host, "device": result.device, "versions": versions}
    return tags


def series(reports: list[Report], result: Result | None, started_ms: int) -> Iterator[Point]:
    """Every value once. A resumed trial reports its last epochs again, with equal values at later times: the first stands."""
    last: dict[str, tuple[int, int]] = {}
    epoch, step, time_ms = 0, 0, started_ms
    for report in reports:
        epoch, step, time_ms = report.epoch, report.step, int(1000 * report.time)
        for name, value in report.values.items():
            key = key_of(name)
            if (epoch, step) > last.get(key, (-1, -1)):
                last[key] = (epoch, step)
                yield Point(key, epoch, step, time_ms, value)
    for name, value in sorted(result.metrics.items()) if result else ():
        yield Point(key_of(FINAL + name), epoch, step, time_ms, value)


def _ended_ms(status: Status | None, reports: list[Report]) -> int:
    if status:
        return int(1000 * (status.ended or status.updated))
    return int(1000 * reports[-1].time) if reports else 0


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
