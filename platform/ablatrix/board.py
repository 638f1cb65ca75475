"""The live table of cells: what is done, what runs, how far it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ablatrix import lease
from ablatrix.errors import DamagedRecord
from ablatrix.job import Job, read_job
from ablatrix.occupancy import Occupancy, read_occupancy
from ablatrix.store import Store, SweepDirectory, TrialDirectory

STALE_S = 60.0
Read = TypeVar("Read")


@dataclass(frozen=True)
class TrialState:
    """One trial as the board shows it. `state` is waiting, running, finished, failed, stopped or lost.

    `rate` is epochs per second over all attempts, `eta_s` the seconds that are left at it, evaluation not counted.
    """

    trial: str
    seed: int
    state: str
    epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    attempt: int = 0
    host: str | None = None
    cause: str | None = None
    message: str | None = None
    rate: float | None = None
    eta_s: float | None = None
    failures: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CellState:
    """One cell of the table and its trials."""

    cell: str
    label: str
    excluded: str | None
    trials: tuple[TrialState, ...]

    @property
    def done(self) -> int:
        """How many of its seeds are finished."""
        return sum(trial.state == "finished" for trial in self.trials)

    @property
    def state(self) -> str:
        """Where the cell stands as a whole: what is at work goes before what went wrong, and that before what waits."""
        if self.excluded is not None:
            return "excluded"
        states = [trial.state for trial in self.trials]
        return next((state for state in ("running", "failed", "lost", "stopped", "waiting") if state in states), "finished")


@dataclass(frozen=True)
class Board:
    """Everything that `ablatrix status` tells."""

    sweep: str
    title: str
    cells: tuple[CellState, ...]
    cluster: Occupancy | None = None
    job: Job | None = None

    def counts(self) -> Counter[str]:
        """Trials by state; one that several cells share counts once."""
        return Counter(trial.state for trial in self._trials())

    def unfinished(self) -> list[TrialState]:
        """Trials that are to run, go on or be tried again; with what a search's scheduler stopped early it is done."""
        return [trial for trial in self._trials() if trial.state != "finished" and trial.cause != "pruned"]

    def _trials(self) -> list[TrialState]:
        return list({trial.trial: trial for cell in self.cells for trial in cell.trials}.values())

    def as_mapping(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "schema": 1,
            "sweep": self.sweep,
            "title": self.title,
            "counts": dict(self.counts()),
            "cells": [asdict(c) | {"state": c.state, "done": c.done, "planned": len(c.trials)} for c in self.cells],
            "cluster": asdict(self.cluster) if self.cluster else None,
            "job": asdict(self.job) if self.job else None,
        }


def state_of(directory: TrialDirectory, seed: int, now: float) -> TrialState:
    """Where a trial stands, from its files alone."""
    try:
        status = directory.status()
        finished = directory.result() is not None
    except (ValueError, TypeError, OSError) as error:
        return TrialState(directory.id, seed, "failed", cause="unreadable", message=f"its records cannot be read: {error}")
    if status is None:
        return TrialState(directory.id, seed, "finished" if finished else "waiting")
    state = "finished" if finished else status.state
    if state == "running" and (now - status.updated > STALE_S or _owner_gone(directory)):
        state = "lost"
    own = status.epoch - status.inherited
    rate = own / status.seconds if state == "running" and own > 0 and status.seconds > 0 else None
    return TrialState(
        directory.id, seed, state, status.epoch, status.epochs, status.seconds, status.attempt, status.host, status.cause, status.message,
        rate, (status.epochs - status.epoch) / rate if rate else None, dict(status.failures),
    )  # fmt: skip


def _owner_gone(directory: TrialDirectory) -> bool:
    """Whether the trial's process is known to be dead; stores of before leases tell by their heartbeat alone."""
    return lease.owner(directory.claims) is not None and not lease.is_held(directory.claims)


def read_board(store: Store, sweep: SweepDirectory) -> Board:
    """The board of a submitted sweep."""
    plan, now = sweep.plan(), time.time()
    cells = []
    for cell in plan["cells"]:
        trials = tuple(state_of(store.trial(t["trial"]), t["seed"], now) for t in cell["trials"])
        cells.append(CellState(cell["id"], cell_label(cell), cell["excluded"], trials))
    cluster = _unless_damaged(read_occupancy, sweep) if lease.is_held(sweep.claims) else None
    return Board(sweep.name, plan["title"], tuple(cells), cluster, _unless_damaged(read_job, sweep))


def _unless_damaged(read: Callable[[SweepDirectory], Read], sweep: SweepDirectory) -> Read | None:
    try:
        return read(sweep)
    except DamagedRecord:
        return None


def cell_label(cell: Mapping[str, Any]) -> str:
    """A cell's name in the board: its label, or its levels."""
    return cell["label"] or ", ".join(f"{name} {level}" for name, level in cell["levels"].items())


def render(board: Board, footer: Iterable[str] = ()) -> RenderableType:
    """The board as a table: one row a cell, each trial's progress in it."""
    table = Table(title=board.title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, justify in (("cell", "left"), ("done", "right"), ("trials", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for cell in board.cells:
        progress = Text("n/a: " + cell.excluded, style="dim") if cell.excluded else Text("  ").join(_trial_text(t) for t in cell.trials)
        table.add_row(cell.label, "" if cell.excluded else f"{cell.done}/{len(cell.trials)}", progress)
    counts = board.counts()
    line = ", ".join(
        f"{counts[state]} {state}" for state in ("finished", "running", "waiting", "failed", "stopped", "lost") if counts[state]
    )
    short = board.cluster.shortage if board.cluster else None
    waiting = [Text(f"no trial can start now: {short}", style="yellow")] if short else []
    running = [_running_text(cell, trial) for cell in board.cells for trial in cell.trials if trial.state == "running"]
    return Group(
        table, *running, *waiting, Text(line or "no trials", style="dim"), *(Text(text, style="dim") for text in [*_places(board), *footer])
    )


def _running_text(cell: CellState, trial: TrialState) -> Text:
    """Such as `grid 2, seed 0: epoch 4/12, 0.5 epochs/s, 16 s left, on node-1, attempt 2`."""
    speed = "" if trial.rate is None else f", {_rate(trial.rate)}, {_duration(trial.eta_s or 0.0)} left"
    again = f", attempt {trial.attempt}" if trial.attempt > 1 else ""
    return Text(f"{cell.label}, seed {trial.seed}: epoch {trial.epoch}/{trial.epochs}{speed}, on {trial.host}{again}", style="cyan")


def _rate(per_s: float) -> str:
    return f"{per_s:.2g} epochs/s" if per_s >= 0.1 else f"{3600 * per_s:.3g} epochs/h"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _places(board: Board) -> list[str]:
    """What Ray has and where it can be looked at."""
    lines = [str(board.cluster)] if board.cluster else []
    if board.job:
        lines.append(f"job {board.job.id}, submitted to {board.job.server}")
    if board.cluster and board.cluster.dashboard:
        lines.append(f"Ray's dashboard: {board.cluster.dashboard}")
    return lines


def _trial_text(trial: TrialState) -> Text:
    """Such as `seed 0 ✓`, or `seed 1 4/12`."""
    marks = {
        "finished": ("✓", "green"),
        "failed": ("✕", "red"),
        "stopped": ("stopped", "yellow"),
        "waiting": ("–", "dim"),
        "lost": ("lost", "red"),
    }
    if trial.state == "running":
        return Text(f"seed {trial.seed} {trial.epoch}/{trial.epochs}", style="cyan")
    mark, style = marks[trial.state]
    return Text(f"seed {trial.seed} {mark}", style=style)


def digest(store: Store, board: Board) -> list[str]:
    """Failures grouped by cause, one line each with its log."""
    failed = [trial for trial in board.unfinished() if trial.state in ("failed", "lost")]
    lines = []
    for cause in sorted({trial.cause or "unknown" for trial in failed}):
        group = [trial for trial in failed if (trial.cause or "unknown") == cause]
        lines.append(f"{len(group)} failed ({cause}):")
        lines += [f"  {t.trial} seed {t.seed}: {t.message or 'no message'}  see {store.trial(t.trial).log}" for t in group]
    return lines
