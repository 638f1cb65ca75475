"""Which trial runs next, and what becomes of one that ended: the retry rules, without Ray.

What went wrong decides (`verdict`): a lost or killed worker costs nothing but the time since its checkpoint, so its trial
goes on, any number of times as long as it gets further; out of memory is tried once more with a larger share; a loss that
diverged would diverge again; anything else gets one more try. After `breaker` failures of one cause the sweep stops.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from ablatrix import lease
from ablatrix.attempt import PRUNED, SUPERSEDED
from ablatrix.errors import AblatrixError
from ablatrix.records import Status
from ablatrix.store import Store, SweepDirectory
from ablatrix.trial import BUSY, STOPPED

BREAKER = 5
LARGER = 2.0  # times the share, after a trial ran out of memory
STUCK = 10  # losses in a row without a step forward, after which a trial is given up
LOOK_S = 1.0  # between looks at trials that another run has
GRACE_S = 5.0  # what a trial that was given out gets to begin, after the end was asked for
LOSSES = ("lost", "killed")
RETRIED = "retry"  # the cause in the status of a trial that `ablatrix retry` has freed

UNRECORDED = "unrecorded"  # the trial failed and could not write so, as on a full disk

Outcome = Literal["finished", "failed", "pruned", "stopped"]


class Source(Protocol):
    """Where trials come from: a plan's list, or a search. Ids are of trials that the store has a recipe of."""

    def next(self) -> str | None:
        """The next trial; None where there is none now, and none ever where `exhausted`."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether `next` will give no trial any more."""
        ...

    def told(self, trial: str, outcome: Outcome) -> None:
        """What became of a trial, once the dispatch is done with it. Its numbers are in the store."""
        ...


class Listed:
    """The trials of a plan, in its order."""

    def __init__(self, trials: Iterable[str]) -> None:
        self._waiting = deque(trials)

    def next(self) -> str | None:
        """The first that was not given yet."""
        return self._waiting.popleft() if self._waiting else None

    @property
    def exhausted(self) -> bool:
        """Whether all were given."""
        return not self._waiting

    def told(self, trial: str, outcome: Outcome) -> None:
        """Nothing depends on it."""


class Verdict(Enum):
    """What follows from a failure."""

    AGAIN = "again"
    LARGER = "again, with a larger share"
    GIVE_UP = "not again"


def verdict(cause: str, earlier: Mapping[str, int], stuck: int = 0) -> Verdict:
    """What follows from a failure of `cause`, after `earlier` failures of this trial in this run, by cause."""
    if cause in LOSSES:
        return Verdict.GIVE_UP if stuck >= STUCK else Verdict.AGAIN
    if cause == "diverged" or earlier.get(cause, 0):
        return Verdict.GIVE_UP
    return Verdict.LARGER if cause == "out of memory" else Verdict.AGAIN


@dataclass
class Standing:
    """How a trial has fared in this run."""

    failures: Counter[str] = field(default_factory=Counter)
    share: float = 1.0
    epoch: int = 0
    stuck: int = 0


def _cause(status: Status | None, code: int | None) -> str:
    """What ended an attempt: as its process wrote it, else as its end looks."""
    if code is None:
        return "lost"
    if status is not None and status.state == "failed" and status.cause:
        return status.cause
    return "killed" if code < 0 else UNRECORDED


class Dispatch:
    """Gives trials out and takes their ends in. Not thread-safe: one thread, that of Tune's loop, drives it."""

    def __init__(
        self,
        store: Store,
        sweep: SweepDirectory,
        source: Source,
        breaker: int | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.sweep, self.source = store, sweep, source
        self.run = uuid.uuid4().hex
        self.running: dict[str, Status | None] = {}  # in the order given out, with what was known of each by then
        self.stopping = False  # beside the stop file, which a full disk does not take
        self.tripped: str | None = None
        self.broken: Exception | None = None
        self.settled = 0
        self._breaker, self._strict, self._now = breaker or BREAKER, breaker is not None, now
        self._again: deque[str] = deque()
        self._elsewhere: deque[str] = deque()  # another run has them, and may lose them
        self._given_up: set[str] = set()
        self._standing: dict[str, Standing] = {}
        self._causes: Counter[str] = Counter()
        self._finished = 0
        self._next_look = self._next_retry = self._next_check = 0.0
        self._quiet_since: float | None = None

    @property
    def over(self) -> bool:
        """Whether nothing runs, and nothing will."""
        return not self.running and (self._ending or not (self._again or self._elsewhere or not self.source.exhausted))

    @property
    def _ending(self) -> bool:
        return self.broken is not None or self.stopping or self.sweep.stop_file.exists()

    def next(self) -> str | None:
        """The next trial to run; None while there is none. A trial that another run has is looked at again later."""
        if self._ending:
            return None
        self._take_up_retried()
        while (trial := self._again.popleft() if self._again else self._from_source()) is not None:
            if self._is_free(trial):
                self.running[trial] = self._status(trial)
                return trial
        return self._come_back()

    def _from_source(self) -> str | None:
        try:
            return self.source.next()
        except (AblatrixError, OSError) as error:  # a search that cannot go on; what runs is let finish
            self.broken = error
            return None

    def share(self, trial: str) -> float:
        """How many times its usual share a trial is to get."""
        return self._standing_of(trial).share

    def ended(self, trial: str, code: int | None, pruned: bool = False) -> None:
        """A trial's worker has ended: `code` is that of the trial's process, negative for a signal, None where the worker was lost."""
        before = self.running.pop(trial, None)
        if self._is_finished(trial):
            self._settle(trial, "finished")
        elif pruned:
            self._mark_pruned(trial)
            self._settle(trial, "pruned")
        elif code == STOPPED:
            self._settle(trial, "stopped")
        elif code in (BUSY, SUPERSEDED):
            self._elsewhere.append(trial)
        else:
            self._judge(trial, code, before)

    def lost_all(self) -> None:
        """Every running trial's worker is gone, as when Ray itself ended."""
        for trial in list(self.running):
            self.ended(trial, None)

    def withdraw(self, grace_s: float = GRACE_S) -> bool:
        """Take back what was given out, where the end was asked for and nothing of it has begun; whether that was so.

        A trial that no node has room for waits in Ray for ever, and would never see that it is to stop.
        """
        now = self._now()
        if not self._ending or now < self._next_check:
            return False
        self._next_check = now + LOOK_S
        if not self.running or any(self._ours(trial) and lease.is_held(self.store.trial(trial).claims) for trial in self.running):
            self._quiet_since = None
            return False
        self._quiet_since = now if self._quiet_since is None else self._quiet_since
        if now - self._quiet_since < grace_s:
            return False
        for trial in list(self.running):
            self.ended(trial, STOPPED)
        return True

    def _is_free(self, trial: str) -> bool:
        """Whether a trial is to be run, by us and now; else it is settled, or put aside."""
        status = self._status(trial)
        if self._is_finished(trial):
            self._settle(trial, "finished")
        elif lease.is_held(self.store.trial(trial).claims) and not self._ours(trial):
            self._elsewhere.append(trial)
        elif status is not None and status.state == "failed" and status.cause == "diverged":
            self._give_up(trial, "diverged")
        else:
            return True
        return False

    def _come_back(self) -> str | None:
        """A trial that another run had and has let go of."""
        if self._now() < self._next_look:
            return None
        self._next_look = self._now() + LOOK_S
        waiting, self._elsewhere = self._elsewhere, deque()
        while waiting:
            trial = waiting.popleft()
            if self._is_free(trial):
                self._elsewhere.extend(waiting)
                self._next_look = 0.0
                self.running[trial] = self._status(trial)
                return trial
        return None

    def _judge(self, trial: str, code: int | None, before: Status | None) -> None:
        standing, status = self._standing_of(trial), self._status(trial)
        # A process that was killed before its first word has left the status of the attempt before it.
        cause = _cause(status if status != before else None, code)
        epoch = status.epoch if status else 0
        standing.stuck = 1 if epoch > standing.epoch else standing.stuck + 1
        standing.epoch = max(standing.epoch, epoch)
        what = verdict(cause, standing.failures, standing.stuck)
        standing.failures[cause] += 1
        if what is Verdict.GIVE_UP:
            self._record(trial, status, cause, standing.failures[cause])
            self._give_up(trial, cause)
            return
        if what is Verdict.LARGER:
            standing.share *= LARGER
        self._again.append(trial)

    def _give_up(self, trial: str, cause: str) -> None:
        self._causes[cause] += 1
        self._given_up.add(trial)
        self._settle(trial, "failed")
        self._trip(cause)

    def _record(self, trial: str, status: Status | None, cause: str, times: int) -> None:
        """Where the trial could not say itself that it failed, its status is written here."""
        if status is None or status.state == "failed":
            return
        message = f"{times} attempts ended without a word ({cause}), and got no further than epoch {status.epoch}"
        failed = dataclasses.replace(status, state="failed", ended=time.time(), cause=cause, message=message)
        with contextlib.suppress(OSError):
            self.store.trial(trial).write_status(failed)

    def _mark_pruned(self, trial: str) -> None:
        """Tune may end a worker, with the last trial of all, before it has written down that the scheduler stopped its trial."""
        status = self._status(trial)
        if status is not None and status.state == "running":
            changed = dataclasses.replace(status, state="stopped", ended=time.time(), cause="pruned", message=PRUNED)
            with contextlib.suppress(OSError):
                self.store.trial(trial).write_status(changed)

    def _trip(self, cause: str) -> None:
        """Stop the sweep where one cause has come too often. Divergence says something of a recipe, and counts where all diverge."""
        if self.tripped or self._causes[cause] < self._breaker or (cause == "diverged" and self._finished and not self._strict):
            return
        self.tripped = (
            f"{self._causes[cause]} trials failed of one cause ({cause}), so the sweep was stopped; the others keep their checkpoints"
        )
        self.stopping = True
        with contextlib.suppress(OSError):
            self.sweep.stop_file.write_text(self.tripped + "\n")

    def _settle(self, trial: str, outcome: Outcome) -> None:
        self.settled += 1
        self._finished += outcome == "finished"
        try:
            self.source.told(trial, outcome)
        except (AblatrixError, OSError) as error:  # its record cannot be written, so it would learn nothing more
            self.broken = self.broken or error

    def _take_up_retried(self) -> None:
        """Trials that `ablatrix retry` has freed since they were given up."""
        if not self._given_up or self._now() < self._next_retry:
            return
        self._next_retry = self._now() + LOOK_S
        for trial in sorted(self._given_up):
            status = self._status(trial)
            if status is not None and status.state == "stopped" and status.cause == RETRIED:
                self._given_up.discard(trial)
                self._standing.pop(trial, None)
                self._again.append(trial)

    def _ours(self, trial: str) -> bool:
        found = lease.owner(self.store.trial(trial).claims)
        return found is not None and found.run == self.run

    def _is_finished(self, trial: str) -> bool:
        try:
            return self.store.trial(trial).result() is not None
        except AblatrixError:  # a damaged result fails the trial, which says so in its log
            return False

    def _status(self, trial: str) -> Status | None:
        try:
            return self.store.trial(trial).status()
        except AblatrixError:
            return None

    def _standing_of(self, trial: str) -> Standing:
        return self._standing.setdefault(trial, Standing())
