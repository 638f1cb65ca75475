"""The live table of cells: what is done, what runs, how far it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ablatrix.store import Store, SweepDirectory, TrialDirectory

STALE_S = 60.0


@dataclass(frozen=True)
class TrialState:
    """One trial as the board shows it. `state` is waiting, running, finished, failed, stopped or lost."""

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


@dataclass(frozen=True)
class CellState:
    """One cell of the table and its trials."""

    cell: str
    label: str
    excluded: str | None
    trials: tuple[TrialState, ...]


@dataclass(frozen=True)
class Board:
    """Everything that `ablatrix status` tells."""

    sweep: str
    title: str
    cells: tuple[CellState, ...]

    def counts(self) -> Counter[str]:
        """Trials by state."""
        return Counter(trial.state for cell in self.cells for trial in cell.trials)

    def as_mapping(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "schema": 1,
            "sweep": self.sweep,
            "title": self.title,
            "counts": dict(self.counts()),
            "cells": [asdict(c) for c in self.cells],
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
    if state == "running" and now - status.updated > STALE_S:
        state = "lost"
    return TrialState(
        directory.id, seed, state, status.epoch, status.epochs, status.seconds, status.attempt, status.host, status.cause, status.message
    )


def read_board(store: Store, sweep: SweepDirectory) -> Board:
    """The board of a submitted sweep."""
    plan, now = sweep.plan(), time.time()
    cells = []
    for cell in plan["cells"]:
        trials = tuple(state_of(store.trial(t["trial"]), t["seed"], now) for t in cell["trials"])
        cells.append(CellState(cell["id"], cell_label(cell), cell["excluded"], trials))
    return Board(sweep.name, plan["title"], tuple(cells))


def cell_label(cell: Mapping[str, Any]) -> str:
    """A cell's name in the board: its label, or its levels."""
    return cell["label"] or ", ".join(f"{name} {level}" for name, level in cell["levels"].items())


def render(board: Board, footer: Iterable[str] = ()) -> RenderableType:
    """The board as a table: one row a cell, each trial's progress in it."""
    table = Table(title=board.title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, justify in (("cell", "left"), ("done", "right"), ("trials", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for cell in board.cells:
        done = sum(trial.state == "finished" for trial in cell.trials)
        progress = Text("n/a: " + cell.excluded, style="dim") if cell.excluded else Text("  ").join(_trial_text(t) for t in cell.trials)
        table.add_row(cell.label, "" if cell.excluded else f"{done}/{len(cell.trials)}", progress)
    counts = board.counts()
    line = ", ".join(
        f"{counts[state]} {state}" for state in ("finished", "running", "waiting", "failed", "stopped", "lost") if counts[state]
    )
    return Group(table, Text(line or "no trials", style="dim"), *(Text(text, style="dim") for text in footer))


def _trial_text(trial: TrialState) -> Text:
    """Such as `seed 0 ✓`, or `seed 1 4/12 (31 s)`."""
    marks = {
        "finished": ("✓", "green"),
        "failed": ("✕", "red"),
        "stopped": ("stopped", "yellow"),
        "waiting": ("–", "dim"),
        "lost": ("lost", "red"),
    }
    if trial.state == "running":
        return Text(f"seed {trial.seed} {trial.epoch}/{trial.epochs} ({trial.seconds:.0f} s)", style="cyan")
    mark, style = marks[trial.state]
    return Text(f"seed {trial.seed} {mark}", style=style)


def digest(store: Store, board: Board) -> list[str]:
    """Failures grouped by cause, one line each with its log."""
    failed = [trial for cell in board.cells for trial in cell.trials if trial.state in ("failed", "lost")]
    lines = []
    for cause in sorted({trial.cause or "unknown" for trial in failed}):
        group = [trial for trial in failed if (trial.cause or "unknown") == cause]
        lines.append(f"{len(group)} failed ({cause}):")
        lines += [f"  {t.trial} seed {t.seed}: {t.message or 'no message'}  see {store.trial(t.trial).log}" for t in group]
    return lines
