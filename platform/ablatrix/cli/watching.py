"""`ablatrix status`: the board, once or until nothing runs any more."""

from __future__ import annotations

import time

from rich.live import Live

from ablatrix import board, lease
from ablatrix.cli import output
from ablatrix.cli.stored import command_of
from ablatrix.job import Job, job_state
from ablatrix.store import Store, SweepDirectory

LOOK_S = 1.0
JOB_LOOK_S = 10.0  # between questions to the cluster of a job that has not begun
AWAITED = ("PENDING", "RUNNING")
SHARE = 9  # times as long as reading the board took, at least, between two looks


def show(store: Store, sweep: SweepDirectory, as_json: bool) -> None:
    """Print the board as it stands."""
    seen = board.read_board(store, sweep)
    if as_json:
        output.print_json(seen.as_mapping())
    else:
        output.data().print(board.render(seen))


def watch(store: Store, sweep: SweepDirectory) -> None:
    """Follow the board while the sweep or any of its trials runs, or its job waits for the cluster; then say what is left to do."""
    awaited = _Awaited()
    with Live(console=output.data(), refresh_per_second=4) as live:
        while True:
            began = time.monotonic()
            going = lease.is_held(sweep.claims)  # before the board: what ends in between is on it
            seen = board.read_board(store, sweep)
            live.update(board.render(seen))
            took = time.monotonic() - began
            if not (going or seen.counts()["running"] or awaited(seen.job)):
                break
            time.sleep(max(LOOK_S, SHARE * took))
    if left := len(seen.unfinished()):
        output.notes().print(f"Nothing runs {sweep.name} now, and {left} trials are not finished. `{command_of(sweep)}` goes on.")


class _Awaited:
    """Whether a job is still to begin, asked of its cluster now and then only."""

    def __init__(self) -> None:
        self._next, self._last = 0.0, False

    def __call__(self, job: Job | None) -> bool:
        if job is None:
            return False
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + JOB_LOOK_S
            self._last = job_state(job) in AWAITED
        return self._last
