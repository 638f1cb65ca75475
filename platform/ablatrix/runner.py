"""Ray Tune runs what the plan wants and the store lacks. With `cluster` and `local_ray`, the only importer of ray.

Tune is contained (design.md, decision 4): it schedules and packs, and forgets. It asks `Dispatch` for one trial after
another and tells it how each ended; workers stay warm, each trial is a child process of its worker, and when `fit` dies a
fresh one is started on what is then missing. No state of Tune's is ever read back, and no retry is left to it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablatrix.cluster import (
    ROOM_S,
    answers,
    connected,
    fitting_share,
    free_lost_places,
    free_slots,
    head,
    in_use,
    on_workers,
    preload,
    request,
)
from ablatrix.dispatch import GRACE_S, Dispatch, Listed, Source
from ablatrix.errors import Unreachable
from ablatrix.local_ray import end
from ablatrix.nursery import nursery
from ablatrix.occupancy import WRITE_S, write_occupancy
from ablatrix.rank import owner as rank_owner
from ablatrix.rank import run_rank
from ablatrix.records import Report
from ablatrix.schema import Resources, Scheduler, Yardstick
from ablatrix.slot import carry_out, carry_out_together
from ablatrix.store import Store, SweepDirectory
from ablatrix.trial import Order

if TYPE_CHECKING:
    from ray.tune import Stopper
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

MAX_FITS = 5  # in a row without a trial that is done with
GONE_S = 20.0  # without an answer a head is given up; Ray itself ends our process after a minute, without a word to the user


class Runner:
    """Runs trials of one sweep; `start` returns at once, `running` tells when it is over.

    With `address` on that Ray cluster, else on this machine's `cpus` cores.
    """

    def __init__(
        self,
        store: Store,
        sweep: SweepDirectory,
        resources: Resources,
        cpus: int,
        address: str | None = None,
        breaker: int | None = None,
    ) -> None:
        self.store, self.sweep, self.resources, self.cpus, self.address = store, sweep, resources, cpus, address
        self.error: BaseException | None = None
        self.dispatch: Dispatch | None = None
        self._breaker = breaker
        self._broke = ""
        self._born_at = ""
        self._shortage: str | None = None
        self._thread: threading.Thread | None = None
        self._lost = threading.Event()

    @property
    def running(self) -> bool:
        """Whether trials may still be running, and be heard of."""
        return self._thread is not None and self._thread.is_alive() and not self._lost.is_set()

    @property
    def tripped(self) -> str | None:
        """Why the circuit breaker stopped the sweep, if it did."""
        return self.dispatch.tripped if self.dispatch else None

    @property
    def concurrency(self) -> int:
        """How many trials run side by side on this machine's CPUs."""
        return max(1, self.cpus // (self.resources.cpus * self.resources.workers))

    def start(self, trials: Sequence[str] | Source, scheduler: TrialScheduler | None = None) -> None:
        """Run `trials` in their order, or those of a search, in the background.

        Failures of trials are in the store; `error` is for Ray's own. A `scheduler` of Tune's sees every report, by the names of
        its values, and may stop trials early; they are then told as pruned.
        """
        source = Listed(trials) if isinstance(trials, Sequence) else trials
        self.dispatch = Dispatch(self.store, self.sweep, source, self._breaker)
        self._thread = threading.Thread(target=self._run, args=(self.dispatch, scheduler), name="ray-tune", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask every running trial to save and stop; those that wait are not started."""
        if self.dispatch:
            self.dispatch.stopping = True
        with contextlib.suppress(OSError):  # a full disk, on which the trials end by themselves
            self.sweep.stop_file.touch()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the end."""
        if self._thread and not self._lost.is_set():
            self._thread.join(timeout_s)

    def _run(self, dispatch: Dispatch, scheduler: TrialScheduler | None) -> None:
        try:
            with contextlib.ExitStack() as stack:
                with contextlib.suppress(OSError):  # no room, or TMPDIR too long for a socket: each worker has a server of its own then
                    self._born_at = stack.enter_context(self._nursery())
                preload()  # while the nursery imports too
                self._fits(dispatch, scheduler)
            if dispatch.broken:
                raise dispatch.broken
            if not dispatch.over:
                raise Unreachable(
                    f"Ray Tune ended {MAX_FITS} times in a row without a trial that was done with. The last time: {self._broke}"
                )
        except BaseException as error:  # Ray raises SystemExit too; the caller decides
            self.error = self.error or error

    def _nursery(self) -> AbstractContextManager[str]:
        """On this machine, trials are forked from a process that imports torch while Ray starts."""
        if self.address is not None or self.resources.workers > 1:
            return contextlib.nullcontext("")
        return nursery(self.resources.cpus, self.sweep.log)

    def _fits(self, dispatch: Dispatch, scheduler: TrialScheduler | None) -> None:
        """One `fit` after another, until nothing is missing or none gets anywhere."""
        fits, settled = 0, 0
        while not (dispatch.over or self.error) and fits < MAX_FITS:
            # A head that died takes its connection along, so each fit has its own.
            with connected(self.address, self.cpus, self.resources) as dashboard, self._watched(dashboard):
                self._fit(dispatch, scheduler)
            fits = fits + 1 if dispatch.settled == settled else 1
            settled = dispatch.settled

    @contextmanager
    def _watched(self, dashboard: str | None) -> Iterator[None]:
        """Keep `cluster.json` fresh, for boards in other shells, and see whether the head still answers."""
        done = threading.Event()
        watching = threading.Thread(target=self._watch, args=(dashboard, done), name="occupancy", daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join(WRITE_S if self.address else None)  # where a cluster's head is gone, its answer may take a minute more

    def _watch(self, dashboard: str | None, done: threading.Event) -> None:
        address, heard = head(), time.monotonic()
        while not done.is_set():
            if answers(address):
                heard = time.monotonic()
                with contextlib.suppress(Exception):  # Ray may be gone, or the disk full; the board then shows none
                    seen = in_use(dashboard, self.resources)
                    self._tell_shortage(seen.shortage)
                    write_occupancy(self.sweep, seen)
                    if self.resources.workers > 1:
                        free_lost_places()
            elif time.monotonic() - heard > GONE_S:
                which = f"the Ray head at {address}" if self.address else "the head of this run's own Ray"
                self.error = Unreachable(
                    f"{which} is gone. What ran there ends by itself, and its checkpoints stay; "
                    "the same command goes on from them, with another head."
                )
                if self.address is None:
                    end()
                self._lost.set()
                return
            done.wait(WRITE_S)

    def _tell_shortage(self, shortage: str | None) -> None:
        """Say once when a cluster has shrunk below what a trial needs, and once when it has grown again: Ray waits without a word."""
        if shortage != self._shortage:
            now = f"no node can hold a trial any more: {shortage}. What is missing waits for one." if shortage else "trials fit again."
            logging.getLogger(__name__).warning("The Ray cluster has changed: %s", now)
        self._shortage = shortage

    def _fit(self, dispatch: Dispatch, scheduler: TrialScheduler | None) -> None:
        """One `Tuner.fit`. What it loses is still missing from the store, and the next one gets it."""
        from ray import tune

        scratch = Path(tempfile.mkdtemp(prefix="ablatrix-tune-"))
        # As many workers start side by side as there is room for; a search is asked for one trial at a time, to know more by then.
        slots = free_slots(self.resources)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots) if isinstance(dispatch.source, Listed) else "1"
        resources = self.resources  # Ray pickles the request, and could not pickle us
        feed = _feed(
            dispatch,
            lambda trial: self._order(dispatch, trial, follow=scheduler is not None),
            most=slots if resources.workers > 1 else math.inf,
        )
        tuner = tune.Tuner(
            tune.with_resources(run_order, lambda config: request(resources, config["share"])),
            tune_config=tune.TuneConfig(reuse_actors=True, search_alg=feed, num_samples=-1, scheduler=scheduler),
            run_config=tune.RunConfig(name="fit", storage_path=str(scratch), verbose=0, stop=_brake(dispatch, resources)),
        )
        try:
            tuner.fit()
        except Exception as error:  # the store knows what is missing, whatever broke
            self._broke = f"{type(error).__name__}: {error}"
            logging.getLogger(__name__).warning("Ray Tune ended early (%s: %s); what is missing is run again.", type(error).__name__, error)
        finally:
            dispatch.lost_all()
            shutil.rmtree(scratch, ignore_errors=True)

    def _order(self, dispatch: Dispatch, trial: str, follow: bool) -> dict[str, Any]:
        order = {
            "store": str(self.store.root),
            "trial": trial,
            "stop_file": str(self.sweep.stop_file),
            "threads": self.resources.cpus,
            "gpus": self.resources.gpus,
            "run": dispatch.run,
            "nursery": self._born_at,
        }
        # One text value, so that Tune neither searches inside it nor names anything after it.
        return {
            "order": json.dumps(order),
            "share": fitting_share(self.resources, dispatch.share(trial)),
            "follow": follow,
            "resources": self.resources.model_dump(),
        }


def run_order(config: dict[str, Any]) -> None:
    """The Tune trainable: run one trial in a child process, and wait for it.

    It never raises for a failed trial, because Tune would then throw the warm worker away; the store has the cause.
    """
    from ray import tune

    order = Order(**json.loads(config["order"]), owner=os.getpid())

    def follow(report: Report) -> None:
        tune.report({**report.values, "epoch": report.epoch, "step": report.step})

    if config["resources"]["workers"] > 1:
        resources = Resources(**config["resources"])
        code = carry_out_together(order, lambda: on_workers(work_as_rank, {"order": config["order"]}, resources, config["share"]))
    else:
        code = carry_out(order, follow if config["follow"] else None)
    tune.report({"exit_code": code})


def work_as_rank(config: dict[str, Any]) -> None:
    """What each of Ray Train's workers runs."""
    run_rank(Order(**json.loads(config["order"]), owner=rank_owner()))


def early_stopping(settings: Scheduler, goal: Yardstick, epochs: int) -> TrialScheduler:
    """Tune's scheduler for a search, by the reports of `goal`. It stops no trial at `epochs`, where only the evaluation is left."""
    from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

    class Median(MedianStoppingRule):
        """Spares trials that have trained to their end."""

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            spared = result.get("epoch", 0) >= epochs
            return TrialScheduler.CONTINUE if spared else super().on_trial_result(tune_controller, trial, result)

    grace = settings.grace_epochs
    if settings.name == "median":
        return Median(time_attr="epoch", metric=goal.name, mode=goal.goal, grace_period=grace)
    return ASHAScheduler(
        time_attr="epoch", metric=goal.name, mode=goal.goal, grace_period=grace, reduction_factor=settings.reduction,
        max_t=max(grace, epochs - 1), stop_last_trials=False,
    )  # fmt: skip


def _brake(dispatch: Dispatch, resources: Resources) -> Stopper:
    """Ends a fit whose trials wait for a place when they are to stop. Groups of workers give up by themselves, if let."""
    from ray.tune import Stopper

    grace_s = GRACE_S if resources.workers == 1 else GRACE_S + 3 * ROOM_S

    class Brake(Stopper):
        """Asks the dispatch."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return dispatch.withdraw(grace_s)

        def __reduce__(self) -> Any:
            return dict, ()  # as of the feed

    return Brake()


def _feed(dispatch: Dispatch, order_of: Any, most: float) -> Searcher:
    """Tune's view of the dispatch: at most `most` trials are given out at a time."""
    from ray.tune.search import Searcher

    class Feed(Searcher):
        """Asks the dispatch, and tells it."""

        def __init__(self) -> None:
            super().__init__()
            self._trials: dict[str, str] = {}

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            trial = None if len(dispatch.running) >= most else dispatch.next()
            if trial is None:
                return Searcher.FINISHED if dispatch.over else None  # type: ignore[return-value]
            self._trials[trial_id] = trial
            return order_of(trial)

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            """Nothing: the reports are in the store."""

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            code = None if error else (result or {}).get("exit_code")
            trial = self._trials.pop(trial_id)
            if trial in dispatch.running:  # it was not taken back
                dispatch.ended(trial, code, pruned=not error and code is None)

        def save_to_dir(self, *_: Any, **__: Any) -> None:
            """Nothing: the store knows all."""

        def __reduce__(self) -> Any:
            return dict, ()  # Tune pickles its settings, and we never read them back

    return Feed()
