"""`ablatrix stop`: by the store where the sweep runs, by its cluster where its job still waits."""

from __future__ import annotations

from ablatrix import lease
from ablatrix.cli import output
from ablatrix.cli.stored import command_of
from ablatrix.errors import InvalidInput
from ablatrix.job import ENDED, job_state, read_job, stop_job
from ablatrix.store import SweepDirectory


def stop(sweep: SweepDirectory) -> None:
    """Ask for the end; InvalidInput where nothing runs."""
    if lease.is_held(sweep.claims):
        sweep.stop_file.touch()
        output.notes().print(f"{sweep.name}: running trials save and stop. `{command_of(sweep)}` goes on from there.")
        return
    job = read_job(sweep)
    state = job_state(job) if job else None
    if job is None or state is None or state in ENDED:
        raise InvalidInput(f"the sweep {sweep.name!r} is not running in this store.")
    stop_job(job)
    output.notes().print(f"{sweep.name}: the job {job.id} had not begun, and is taken back.")
