"""The one writer that mirrors a sweep of the store into MLflow, again and again, in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from filelock import FileLock, Timeout

from ablatrix.errors import AblatrixError, Refused
from ablatrix.store import Store
from ablatrix.tracking.address import parse
from ablatrix.tracking.client import Rejected, connect
from ablatrix.tracking.experiment import Experiment
from ablatrix.tracking.ledger import FILE, Ledger
from ablatrix.tracking.points import Reading
from ablatrix.tracking.round import Progress, Round
from ablatrix.tracking.runs import Planned, planned_trials, stamp_of

ARTIFACTS = "mlflow-artifacts"
LOCK_S = 120.0
FINAL_PASS_S = 20.0
LONGEST_WAIT_S = 60.0


class Mirror:
    """Keeps the experiment of one sweep in step with the store. Reads the store only; training never waits for it."""

    def __init__(self, store: Store, sweep: str, uri: str) -> None:
        self.store, self.sweep, self._address = store, sweep, parse(uri)
        self.last_error: str | None = None
        self.last_progress: Progress | None = None
        self._directory = store.sweep(sweep)
        self._ledger = Ledger(self._directory.path / FILE, self._address.public)
        self._lock = FileLock(self._directory.path / "tracking.lock")
        self._cells: dict[str, float] = {}
        self._readings: dict[str, Reading] = {}
        self._experiment: Experiment | None = None
        self._plan: tuple[dict[str, Any], list[Planned]] | None = None
        self._plan_stamp: tuple[int, int] | None = None

    def cell_means(self, means: Mapping[str, float]) -> None:
        """Give the mean of each cell, by cell id; the next pass writes those that changed to the parent run."""
        self._cells = dict(means)

    def mirror_once(self) -> Progress:
        """One pass over the whole sweep; running it again changes nothing.

        Raises Unreachable where MLflow does not answer, InvalidInput where the address or the sweep cannot be used,
        and Refused where another process has been mirroring this sweep for two minutes.
        """
        return self._pass(lambda: True, LOCK_S)

    def run_until(self, stop: threading.Event, interval_s: float, final_s: float = FINAL_PASS_S) -> None:
        """Mirror every `interval_s` seconds until `stop`, then once more for about `final_s` seconds. Never raises.

        A failed pass is tried again, ever more slowly up to once a minute; `last_error` holds its message until a pass succeeds.
        In a very large sweep passes are spaced so that they take at most a tenth of this thread's time.
        """
        failures = 0
        wait_s = 0.0
        while not stop.wait(wait_s):
            began = time.monotonic()
            failures = 0 if self._attempt(lambda: not stop.is_set(), interval_s) else failures + 1
            wait_s = max(interval_s * 2 ** min(failures, 6), 9 * (time.monotonic() - began))
            wait_s = min(wait_s, max(LONGEST_WAIT_S, interval_s))
        deadline = time.monotonic() + final_s
        self._attempt(lambda: time.monotonic() < deadline, final_s)

    def _attempt(self, may_go_on: Callable[[], bool], lock_s: float) -> bool:
        try:
            self.last_progress = self._pass(may_go_on, lock_s)
            self.last_error = "; ".join(self.last_progress.problems[:3]) or None
            return True
        except AblatrixError as error:
            self.last_error = str(error)
        except Exception as error:  # the sweep goes on whatever happens to its mirror
            self.last_error = self._address.redact(f"the mirror failed with {type(error).__name__}: {error}")
        return False

    def _pass(self, may_go_on: Callable[[], bool], lock_s: float) -> Progress:
        try:
            return self._round(may_go_on, lock_s)
        except Rejected as error:
            self._experiment = None  # it may have been deleted; look for it anew
            if not error.run_is_gone:
                raise
        return self._round(may_go_on, lock_s)

    def _round(self, may_go_on: Callable[[], bool], lock_s: float) -> Progress:
        plan, trials = self._planned()
        if self._experiment is None:
            self._experiment = Experiment(connect(self._address), self._address, self.sweep, self.store.root / ARTIFACTS)
        with self._only_writer(lock_s):
            this = Round(self._experiment, self.store, self._directory, plan, trials, self._ledger, self._cells, self._readings)
            return this.run(may_go_on)

    def _planned(self) -> tuple[dict[str, Any], list[Planned]]:
        """The plan and its trials, read again when a later `run` replaced the file."""
        stamp = stamp_of(self._directory.path / "plan.json")
        if self._plan is None or stamp != self._plan_stamp:
            plan = self._directory.plan()
            self._plan, self._plan_stamp = (plan, planned_trials(plan, self.sweep)), stamp
        return self._plan

    @contextmanager
    def _only_writer(self, wait_s: float) -> Iterator[None]:
        try:
            with self._lock.acquire(timeout=wait_s):
                yield
        except Timeout as error:
            raise Refused(f"another process mirrors the sweep {self.sweep!r} since {wait_s:.0f} s. Wait for it, or stop it.") from error


def sync(store: Store, uri: str, cells: Callable[[str], Mapping[str, float]] | None = None) -> dict[str, Progress]:
    """Mirror every sweep of the store once: rebuilds an empty MLflow, catches up with any other.

    `cells` gives the cell means of a sweep by name. Returns each sweep's progress; raises as `Mirror.mirror_once`.
    """
    done: dict[str, Progress] = {}
    for sweep in store.sweeps():
        mirror = Mirror(store, sweep.name, uri)
        mirror.cell_means(cells(sweep.name) if cells else {})
        done[sweep.name] = mirror.mirror_once()
    return done
