"""`ablatrix list` and `ablatrix show`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from ablatrix import board, shipped
from ablatrix.cli import output
from ablatrix.errors import AblatrixError, InvalidInput
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
    except (AblatrixError, ValueError, KeyError) as error:
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


def find_trial(store: Store, given: str) -> TrialDirectory:
    """A trial by id, or by the first digits of it when they are those of one trial only."""
    found = [trial for trial in store.trials() if trial.id.startswith(given)] if given else []
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInput(
            f"{given!r} are the first digits of {len(found)} trials: {', '.join(trial.id for trial in found[:5])}. Give more digits."
        )
    raise InvalidInput(f"the store {store.root} holds no trial {given!r}. See `ablatrix status`.")


def find_log(store: Store, given: str) -> Path:
    """The log of a trial, or of a sweep that was submitted as a Ray job."""
    if given and Path(given).name == given and (sweep := store.sweep(given)).path.is_dir():
        return sweep.log
    return find_trial(store, given).log


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
    return {trial["trial"] for cell in sweep.plan()["cells"] for trial in cell["trials"]}


def _flat(recipe: dict[str, Any]) -> list[tuple[str, Any]]:
    from ablatrix_models.recipe.overlay import flatten

    return list(flatten(recipe))
