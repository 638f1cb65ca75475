"""The store's view of a sweep: its plan, and what every planned trial has to show so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ablatrix.errors import AblatrixError
from ablatrix.records import Report, Result, Status
from ablatrix.store import Store, TrialDirectory
from ablatrix_reports.plan import Metric, Plan, PlannedCell, PlannedTrial, clean, one_line, read_plan

TrialState = Literal["waiting", "running", "finished", "failed", "stopped"]
Curve = tuple[tuple[int, float], ...]
TRAINING_LOSS = "train.loss"
TRAINING = "train."  # metrics of training itself: reported every epoch, and in no result
MAX_CURVES = 200  # trials; beyond it no picture of curves is readable, and report.json would grow without use
MAX_POINTS = 100  # epochs kept of a curve
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, AblatrixError)


@dataclass(frozen=True)
class Trial:
    """One trial as found. `value` is the measurement that counts: finite, and only of a finished trial.

    `last` is the newest report of the metric, for trials that have no value. `seconds` is the work of all attempts.
    `curves` maps a metric's name to (epoch, value) points.
    """

    id: str
    seed: int
    cell: str
    state: TrialState = "waiting"
    value: float | None = None
    last: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    epoch: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    attempt: int | None = None
    threads: int | None = None
    host: str | None = None
    device: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    cause: str | None = None
    message: str | None = None
    log: str | None = None
    curves: dict[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True)
class Collected:
    """A plan, its trials by cell id in the order of their seeds, and the recipe of each cell where its paper's numbers are asked for."""

    plan: Plan
    trials: dict[str, tuple[Trial, ...]]
    recipes: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def collect(store: Store, sweep: str, *, curves: bool = True) -> Collected:
    """Read what the store has of `sweep` (its name with `@profile`).

    A trial whose files cannot be read counts as failed, with the reason; the others are read all the same. `curves=False`
    skips the training curves: all that the terminal needs, and quicker. Raises InvalidInput where there is no such sweep.
    """
    plan = read_plan(store.sweep(sweep))
    curves = curves and sum(len(c.trials) for c in plan.cells) <= MAX_CURVES
    trials = {cell.id: tuple(_trial(store, cell, t, curves) for t in cell.trials) for cell in plan.cells}
    recipes = {cell.id: recipe for cell in plan.cells if plan.layout.published and (recipe := _recipe(store, cell)) is not None}
    return Collected(plan, trials, recipes)


def _recipe(store: Store, cell: PlannedCell) -> Mapping[str, Any] | None:
    """That of the cell's first trial: seeds share it. None where it cannot be read, so that the table stands without the paper."""
    try:
        return store.trial(cell.trials[0].trial).recipe().recipe
    except (IndexError, *_UNREADABLE):
        return None


def _trial(store: Store, cell: PlannedCell, planned: PlannedTrial, curves: bool) -> Trial:
    blank = Trial(clean(planned.trial), planned.seed, cell.id)
    try:
        return _read(store.trial(planned.trial), blank, cell.metric, curves)
    except _UNREADABLE as error:
        return replace(blank, state="failed", cause="unreadable", message=one_line(f"its files cannot be read: {error}"))


def _read(directory: TrialDirectory, blank: Trial, metric: Metric, curves: bool) -> Trial:
    status, result = directory.status(), directory.result()
    if status is None and result is None:
        return blank
    trial = replace(blank, log=f"trials/{directory.id}/{directory.log.name}" if directory.log.exists() else None)
    trial = _with_status(trial, status) if status else trial
    reports, problem = _reports(directory) if curves or result is None or _needs_reports(metric) else ([], None)
    trial = replace(trial, last=_last(reports, metric.name), curves=_curves(reports, metric.name) if curves else {})
    if result is None:
        return replace(trial, message=trial.message or problem)
    return _with_result(trial, result, metric, reports, problem)


def _with_status(trial: Trial, status: Status) -> Trial:
    if status.state not in ("running", "finished", "failed", "stopped"):
        raise ValueError(f"status.json has the state {status.state!r}")
    if status.state == "finished":  # only result.json makes a trial finished
        state, cause, message = "failed", "result", "status.json says finished, but there is no result.json"
    else:
        state, cause, message = status.state, status.cause, status.message
    return replace(
        trial,
        state=state,
        cause=None if cause is None else one_line(cause),
        message=None if message is None else clean(message).strip(),
        epoch=int(status.epoch),
        epochs=int(status.epochs),
        seconds=round(float(status.seconds), 3),
        attempt=int(status.attempt),
        threads=int(status.threads),
        host=one_line(status.host),
    )


def _with_result(trial: Trial, result: Result, metric: Metric, reports: list[Report], problem: str | None) -> Trial:
    metrics = {one_line(k): float(v) for k, v in sorted(result.metrics.items()) if _finite(v)}
    trial = replace(
        trial,
        state="finished",
        metrics=metrics,
        seconds=float(result.seconds),
        attempt=int(result.attempt),
        threads=int(result.threads),
        host=one_line(result.host),
        device=one_line(result.device),
        versions={one_line(k): one_line(v) for k, v in sorted(result.versions.items())},
        cause=None,
        message=problem,
    )
    if problem and _needs_reports(metric):
        return replace(trial, state="failed", cause="unreadable", message=problem)
    value = _final(metric, metrics, reports)
    if value is None:
        message = f"the trial finished, but its result has no finite {metric.name}: the measurement failed"
        return replace(trial, state="failed", cause="measurement", message=message)
    return replace(trial, value=value)


def _needs_reports(metric: Metric) -> bool:
    return metric.take == "best" or metric.name.startswith(TRAINING)


def _final(metric: Metric, metrics: dict[str, float], reports: list[Report]) -> float | None:
    final = metrics.get(metric.name)
    if final is None and metric.name.startswith(TRAINING):
        reported = [r.values[metric.name] for r in reports if metric.name in r.values]
        final = reported[-1] if reported and math.isfinite(reported[-1]) else None
    if metric.take == "last":
        return final
    values = [v for v in (*_values(reports, metric.name), final) if v is not None]
    return max(values, key=lambda v: metric.sign * v, default=None)


def _reports(directory: TrialDirectory) -> tuple[list[Report], str | None]:
    try:
        return directory.reports(), None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return [], one_line(f"metrics.jsonl cannot be read: {error!r}")


def _values(reports: Iterable[Report], name: str) -> list[float]:
    return [v for r in reports if (v := r.values.get(name)) is not None and math.isfinite(v)]


def _last(reports: list[Report], name: str) -> float | None:
    values = _values(reports, name)
    return values[-1] if values else None


def _curves(reports: list[Report], metric: str) -> dict[str, Curve]:
    found = {name: _curve(reports, name) for name in (metric, TRAINING_LOSS)}
    return {name: curve for name, curve in found.items() if curve}


def _curve(reports: list[Report], name: str) -> Curve:
    """Points by epoch; where a resumed trial wrote an epoch twice, the later line counts."""
    points = sorted({r.epoch: r.values[name] for r in reports if _finite(r.values.get(name))}.items())
    step = math.ceil(len(points) / MAX_POINTS)
    return tuple(points[::-1][::step][::-1]) if points else ()


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
