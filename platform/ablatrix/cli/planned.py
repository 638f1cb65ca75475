"""`ablatrix plan`: what would run, what is there, what is left out."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from rich.table import Table

from ablatrix import board
from ablatrix.cli import output
from ablatrix.plan import Plan
from ablatrix.store import Store


def show(plan: Plan, store: Store, as_json: bool) -> None:
    """Print the plan against the store."""
    rows = listed(plan, store)
    counts = Counter(row["plan"] for row in rows)
    if as_json:
        output.print_json({"schema": 1, "sweep": plan.name, "store": str(store.root), "counts": dict(counts), "trials": rows})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("plan", "trial", "cell", "seed", "why"):
        table.add_column(name)
    for row in rows:
        table.add_row(row["plan"], row["trial"] or "", row["cell"], "" if row["seed"] is None else str(row["seed"]), row["why"] or "")
    output.data().print(table)
    output.notes().print(f"{plan.name}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))


def listed(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """One row for each trial, and for each excluded cell."""
    now, rows = time.time(), []
    for trial in plan.trials:
        state = board.state_of(store.trial(trial.id), trial.seed, now)
        kind = {"finished": "in store", "running": "running"}.get(state.state, "to run")
        why = {"failed": f"failed before ({state.cause})", "stopped": f"from epoch {state.epoch}", "lost": f"from epoch {state.epoch}"}.get(
            state.state
        )
        rows.append({"plan": kind, "trial": trial.id, "cell": trial.cell, "seed": trial.seed, "why": why})
    rows += [
        {"plan": "excluded", "trial": None, "cell": cell.id, "seed": None, "why": cell.excluded} for cell in plan.cells if cell.excluded
    ]
    return rows
