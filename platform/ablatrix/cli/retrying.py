"""`ablatrix retry`: failed trials become trials that wait."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Sequence

from ablatrix import lease
from ablatrix.cli import output
from ablatrix.cli.stored import command_of, find
from ablatrix.dispatch import RETRIED
from ablatrix.errors import DamagedRecord, InvalidInput
from ablatrix.store import Store, SweepDirectory, TrialDirectory


def retry(store: Store, what: str, profile: str | None, pairs: Sequence[str]) -> None:
    """Free every failed trial of a sweep, or one trial; InvalidInput where there is nothing to free."""
    found = find(store, what, profile, pairs)
    trials = [found] if isinstance(found, TrialDirectory) else _trials_of(store, found)
    freed = [trial.id for trial in trials if _free(trial)]
    if not freed:
        verb = "show" if isinstance(found, TrialDirectory) else "status"
        shown = output.call(verb, found.path.name, store=store)
        raise InvalidInput(f"no trial of {what} has failed. `{shown}` shows how it stands.")
    output.data().print("\n".join(freed))
    notes = output.notes()
    notes.print(f"{len(freed)} failed trials wait again.")
    for name, running in _sweeps_with(store, set(freed)):
        told = "runs, and takes them up" if running else f"does not run; `{command_of(store.sweep(name))}` takes them up"
        notes.print(f"{name} {told}.")


def _trials_of(store: Store, sweep: SweepDirectory) -> list[TrialDirectory]:
    ids = dict.fromkeys(trial["trial"] for cell in sweep.plan()["cells"] for trial in cell["trials"])
    return [store.trial(trial) for trial in ids]


def _free(trial: TrialDirectory) -> bool:
    """Whether the trial had failed, and waits now."""
    try:
        status = trial.status()
    except DamagedRecord:
        (trial.path / "status.json").unlink()
        return True
    if status is None or status.state != "failed" or trial.result() is not None or lease.is_held(trial.claims):
        return False
    if status.cause == "diverged":  # its checkpoint may be of a network that is lost already
        shutil.rmtree(trial.checkpoint, ignore_errors=True)
    message = f"failed before ({status.cause}: {status.message}), and is to be tried again"
    trial.write_status(dataclasses.replace(status, state="stopped", cause=RETRIED, message=message, updated=time.time()))
    return True


def _sweeps_with(store: Store, trials: set[str]) -> list[tuple[str, bool]]:
    found = []
    for sweep in store.sweeps():
        with contextlib.suppress(DamagedRecord):
            if any(trial.id in trials for trial in _trials_of(store, sweep)):
                found.append((sweep.name, lease.is_held(sweep.claims)))
    return found
