"""Ray Tune runs what the plan wants and the store lacks. With `cluster`, the only importer of ray.

Tune is contained (design.md, decision 4): it schedules and packs, and forgets. Each `fit` gets only the trials that
the store lacks, workers stay warm, each trial is a child process of its worker, and when `fit` dies a fresh one is
started on what is then missing. No state of Tune's is ever read back.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablatrix.errors import Unreachable
from ablatrix.schema import Resources
from ablatrix.store import Store, SweepDirectory
from ablatrix.trial import Order, run

MAX_FITS = 5
OBJECT_STORE_BYTES = 100 * 2**20  # trials pass nothing through it
PRELOADED = ("torch", "ablatrix_models.pretrain", "ablatrix_models.data.load", "ablatrix.trial")


class Runner:
    """Runs trials of one sweep; `start` returns at once, `running` tells when it is over."""

    def __init__(self, store: Store, sweep: SweepDirectory, resources: Resources, cpus: int) -> None:
        self.store, self.sweep, self.resources, self.cpus = store, sweep, resources, cpus
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._started = math.inf

    @property
    def running(self) -> bool:
        """Whether trials may still be running."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def concurrency(self) -> int:
        """How many trials run side by side on this machine's CPUs."""
        return max(1, self.cpus // self.resources.cpus)

    def start(self, trials: Sequence[str]) -> None:
        """Run `trials` in their order in the background. Failures are in the store; `error` is for Ray's own."""
        self.sweep.stop_file.unlink(missing_ok=True)
        self._started = time.time()
        self._thread = threading.Thread(target=self._run, args=(list(trials),), name="ray-tune", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask every running trial to save and stop; those that wait are not started."""
        self.sweep.stop_file.touch()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the end."""
        if self._thread:
            self._thread.join(timeout_s)

    def _run(self, trials: list[str]) -> None:
        try:
            with _ray(self.cpus):
                for _ in range(MAX_FITS):
                    trials = [t for t in trials if not self._settled(t)]
                    if not trials or self.sweep.stop_file.exists():
                        break
                    self._fit(trials)
        except BaseException as error:  # Ray raises SystemExit too; the caller decides
            self.error = error

    def _fit(self, trials: list[str]) -> None:
        """One `Tuner.fit`. What it loses is still missing from the store, and the next one gets it."""
        from ray import tune

        scratch = Path(tempfile.mkdtemp(prefix="ablatrix-tune-"))
        orders = [self._order(trial) for trial in trials]
        resources: dict[str, float] = {"cpu": self.resources.cpus, "gpu": self.resources.gpus}
        if self.resources.memory_gb:
            resources["memory"] = self.resources.memory_gb * 1e9
        tuner = tune.Tuner(
            tune.with_resources(run_order, resources),
            param_space={"order": tune.grid_search(orders)},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(name="fit", storage_path=str(scratch), verbose=0),
        )
        try:
            tuner.fit()
        except Exception as error:  # the store knows what is missing, whatever broke
            logging.getLogger(__name__).warning("Ray Tune ended early (%s: %s); what is missing is run again.", type(error).__name__, error)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _order(self, trial: str) -> str:
        # One text value, so that Tune neither searches inside it nor names anything after it.
        return json.dumps(
            {
                "store": str(self.store.root),
                "trial": trial,
                "stop_file": str(self.sweep.stop_file),
                "threads": self.resources.cpus,
                "gpus": self.resources.gpus,
            }
        )

    def _settled(self, trial: str) -> bool:
        """Whether this run is done with a trial: finished, or failed by its own doing since `start`."""
        directory = self.store.trial(trial)
        if directory.result():
            return True
        status = directory.status()
        return bool(status and status.state == "failed" and status.ended and status.ended >= self._started)


def run_order(config: dict[str, Any]) -> None:
    """The Tune trainable: run one trial in a child process, and wait for it.

    It never raises for a failed trial, because Tune would then throw the warm worker away; the store has the cause.
    """
    from ray import tune

    raw = json.loads(config["order"])
    order = Order(**raw, owner=os.getpid())
    sweep_stopped = Path(order.stop_file).exists()
    code = 0 if sweep_stopped else _in_child(order)
    if code < 0:
        _record_killed(order, -code)
    tune.report({"exit_code": code})


def _in_child(order: Order) -> int:
    """Exit code of the trial's process; negative: the signal that killed it.

    Children come from a server process that has torch imported: full isolation for half a second instead of three.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    child = context.Process(target=run, args=(order,), name=f"trial-{order.trial}")
    with _no_main_module():
        child.start()
    child.join()
    return child.exitcode if child.exitcode is not None else -signal.SIGKILL


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing Ray's worker script into the child as its main module."""
    import sys

    main = sys.modules["__main__"]
    path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    main.__file__, main.__spec__ = None, None  # type: ignore[assignment]
    try:
        yield
    finally:
        main.__file__, main.__spec__ = path, spec


def _record_killed(order: Order, number: int) -> None:
    """Write down that a trial's process was killed from outside, which it could not do itself."""
    import dataclasses

    directory = Store(Path(order.store)).trial(order.trial)
    status = directory.status()
    if status and status.state == "running":
        name = signal.Signals(number).name
        changes: dict[str, Any] = {
            "state": "failed",
            "ended": time.time(),
            "cause": "killed",
            "message": f"the trial's process was killed by {name}",
        }
        directory.write_status(dataclasses.replace(status, **changes))


def probe() -> str:
    """Start a local Ray and end it again; its version. Raises Unreachable when it does not start."""
    with _ray(1):
        import ray

        return str(ray.__version__)


@contextmanager
def _ray(cpus: int) -> Iterator[None]:
    """A Ray of our own on this machine, quiet, gone at the end. Raises Unreachable when it does not start."""
    defaults = {
        "RAY_memory_monitor_refresh_ms": "0",  # its out-of-memory kill takes the whole fit with it
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=100 * 2**20,
        )
    except (Exception, SystemExit) as error:
        raise Unreachable(f"Ray did not start: {error}. See `ablatrix doctor`.") from error
    try:
        yield
    finally:
        ray.shutdown()
