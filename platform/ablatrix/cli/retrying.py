"""`ablatrix retry`: failed trials become trials that wait."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time

from ablatrix import lease
from ablatrix.cli import output
from ablatrix.cli.listing import find_trial
from ablatrix.cli.options import stored_sweep
from ablatrix.dispatch import RETRIED
from ablatrix.errors import DamagedRecord, InvalidInput
from ablatrix.store import Store, SweepDirectory, TrialDirectory


def retry(store: Store, what: str, profile: str | None) -> None:
    """Free every failed trial of a sweep, or one trial; InvalidInput where there is nothing to free."""
    sweep = None
    with contextlib.suppress(InvalidInput):
        sweep = stored_sweep(store, what, profile)
    trials = _trials_of(store, sweep) if sweep else [find_trial(store, what)]
    freed = [trial.id for trial in trials if _free(trial)]
    if not freed:
        raise InvalidInput(f"no trial of {what} has failed. `ablatrix status` shows their states.")
    output.data().print("\n".join(freed))
    notes = output.notes()
    notes.print(f"{len(freed)} failed trials wait again.")
    for name, running in _sweeps_with(store, set(freed)):
        told = "runs, and takes them up" if running else f"does not run; `{_command(store, name)}` takes them up"
        notes.print(f"{name} {told}.")


def _trials_of(store: Store, sweep: SweepDirectory) -> list[TrialDirectory]:
    return [store.trial(trial["trial"]) for cell in sweep.plan()["cells"] for trial in cell["trials"]]


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


def _command(store: Store, sweep: str) -> str:
    return str(store.sweep(sweep).plan().get("command") or f"ablatrix run {sweep}")
