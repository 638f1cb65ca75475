"""`ablatrix list` and `ablatrix show`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from ablatrix import board, shipped
from ablatrix.cli import output
from ablatrix.cli.stored import find, find_sweep_directory, find_trial
from ablatrix.errors import AblatrixError, DamagedRecord, InvalidInput
from ablatrix.job import read_job
from ablatrix.store import Store, SweepDirectory, TrialDirectory


def show(store: Store, as_json: bool) -> None:
    """Shipped sweeps with their titles, then the sweeps of the store with their trials' states."""
    shipped_rows = [{"name": name, "title": _title(path)} for name, path in shipped.sweeps().items()]
    stored_rows = [_stored(store, sweep) for sweep in store.sweeps()]
    if as_json:
        output.print_json({"schema": 1, "shipped": shipped_rows, "store": str(store.root), "stored": stored_rows})
        return
    _print("shipped sweeps", shipped_rows)
    if stored_rows:
        _print(f"in the store {store.root}", stored_rows)
    else:
        output.notes().print(f"The store {store.root} holds no sweep yet.")


def _stored(store: Store, sweep: SweepDirectory) -> dict[str, Any]:
    try:
        seen = board.read_board(store, sweep)
    except (AblatrixError, OSError, ValueError, KeyError, TypeError) as error:
        return {"name": sweep.name, "trials": f"unreadable: {error}", "title": ""}
    return {"name": sweep.name, "trials": ", ".join(f"{count} {state}" for state, count in seen.counts().items()), "title": seen.title}


def _title(path: Any) -> str:
    from ablatrix import spec

    try:
        return spec.load(path).file.title
    except AblatrixError:
        return "(this file has problems; see `ablatrix check`)"


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in rows[0] if rows else []:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(str, row.values()))
    output.data().print(table)


def find_log(store: Store, given: str, profile: str | None, pairs: Sequence[str]) -> Path:
    """The log of a trial, or of a sweep that was submitted as a Ray job; InvalidInput where nothing was printed yet."""
    found = find_sweep_directory(store, given) or find(store, given, profile, pairs)
    if found.log.exists() and found.log.stat().st_size:  # the nursery of a plain run opens one, and says something in trouble only
        return found.log
    if isinstance(found, TrialDirectory) or read_job(found):
        raise InvalidInput(f"{given} has printed nothing yet ({found.log}).")
    raise InvalidInput(
        f"the sweep {found.name!r} was never submitted as a job, so it has no log of its own; those of its trials are shown by "
        f"`{output.call('logs', 'TRIAL', store=store)}`, with an id from `{output.call('status', found.name, '--json', store=store)}`."
    )


def show_trial(store: Store, given: str, as_json: bool) -> None:
    """Everything that the store knows of one trial."""
    trial = find_trial(store, given)
    asked, status, result, reports = trial.recipe(), trial.status(), trial.result(), trial.reports()
    sweeps = [sweep.name for sweep in store.sweeps() if trial.id in _trials_of(sweep)]
    if as_json:
        last = asdict(reports[-1]) if reports else None
        parts = {"recipe": asdict(asked), "status": asdict(status) if status else None, "result": asdict(result) if result else None}
        output.print_json({"schema": 1, "trial": trial.id, "path": str(trial.path), "sweeps": sweeps, **parts, "last_report": last})
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("trial", trial.id)
    table.add_row("sweeps", ", ".join(sweeps) or "none")
    table.add_row("seed", str(asked.seed))
    table.add_row("data", asked.data)
    if status:
        state = "finished" if result else status.state
        progress = f"epoch {status.epoch}/{status.epochs}, {status.seconds:.1f} s"
        table.add_row("state", f"{state}, attempt {status.attempt}, {progress}")
        table.add_row("where", f"{status.host}, {status.threads} threads")
    if status and status.state == "failed":
        table.add_row("cause", f"{status.cause}: {status.message}")
    for name, value in (result.metrics if result else {}).items():
        table.add_row(name, f"{value:.4f}")
    table.add_row("log", str(trial.log))
    for key, value in _flat(asked.recipe):
        table.add_row(key, str(value), style="dim")
    output.data().print(table)


def _trials_of(sweep: SweepDirectory) -> set[str]:
    with contextlib.suppress(DamagedRecord, KeyError, TypeError):  # a sweep's damaged plan says nothing of this trial
        return {trial["trial"] for cell in sweep.plan()["cells"] for trial in cell["trials"]}
    return set()


def _flat(recipe: dict[str, Any]) -> list[tuple[str, Any]]:
    from ablatrix_models.recipe.overlay import flatten

    return list(flatten(recipe))
