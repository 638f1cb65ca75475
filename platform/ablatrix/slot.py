"""A warm worker's part: one trial after another, each in a child process of its own, so that nothing leaks between them."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from ablatrix import lease
from ablatrix.attempt import PRUNED, SUPERSEDED, counted, failures_by
from ablatrix.errors import AblatrixError
from ablatrix.lease import Superseded
from ablatrix.nursery import PRELOADED, Born
from ablatrix.rank import peer_gone
from ablatrix.records import Report, Status
from ablatrix.store import Store, TrialDirectory
from ablatrix.trial import BUSY, FAILED, FINISHED, STOPPED, Order, cause_of, run

LOOK_S = 0.2  # between looks at a trial's reports
SERVER_GONE = 255  # multiprocessing's exit code of a child whose fork server was killed; the child runs on
# Of Ray and Ray Train, by name: a worker or its node has ended.
LOST = (
    "ActorDiedError", "ActorUnavailableError", "RayActorError", "NodeDiedError", "WorkerCrashedError",
    "WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError", "WorkerGroupStartupFailedError",
)  # fmt: skip
NO_ROOM = "WorkerGroupStartupTimeoutError"
OOM_COUNTERS = (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill"))


def carry_out(order: Order, follow: Callable[[Report], None] | None = None) -> int:
    """Run one trial in a child process and wait for it; its exit code, negative for the signal that killed it.

    `follow` is told every report as it comes. When it raises, as a scheduler does that stops a trial early, the child is
    ended, the trial is marked as pruned, and what was raised goes on.
    """
    if Path(order.stop_file).exists():
        return STOPPED
    kills = _oom_kills()
    child = _start(order)
    try:
        _wait(child, Store(Path(order.store)).trial(order.trial), follow)
    except BaseException:
        child.kill()
        child.join()
        _mark(order, child.pid, state="stopped", cause="pruned", message=PRUNED)
        raise
    code = child.exitcode if child.exitcode is not None else -signal.SIGKILL
    if code == SERVER_GONE and child.pid is not None:  # nobody would learn how it ends, so it ends with its server
        code = -signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    # An orphan is left as it wrote itself down, and so is shown as lost: nothing of its own has failed.
    if code < 0 and not (isinstance(child, Born) and child.orphaned):
        _mark_killed(order, child.pid, -code, _cause(-code, _oom_kills() > kills))
    return code


def carry_out_together(order: Order, train: Callable[[], None]) -> int:
    """Run one trial by `train`, which has several workers train it and raises when one of them fails; the trial's exit code."""
    if Path(order.stop_file).exists():
        return STOPPED
    directory, failure = Store(Path(order.store)).trial(order.trial), None
    before = _status(directory)
    try:
        train()
    except Exception as error:
        failure = error
    if any(type(error).__name__ == NO_ROOM for error in _failures_in(failure)):
        return STOPPED if Path(order.stop_file).exists() else BUSY
    with contextlib.suppress(AblatrixError):
        if directory.result() is not None:
            return FINISHED
        status = directory.status()
        if failure is None:
            return STOPPED if status is not None and status.state == "stopped" else BUSY
    if any(isinstance(error, Superseded) for error in _failures_in(failure)):
        return SUPERSEDED
    cause, message = _judged(failure)
    with contextlib.suppress(OSError), directory.log.open("a", encoding="utf-8") as log:
        log.write(f"--- its workers ended: {type(failure).__name__}: {failure}\n")
    if _status(directory) == before:
        _mark_unbegun(order, before, cause, f"its workers failed before they began: {message}")
    else:
        _mark(order, state="failed", cause=cause, message=message)
    return -signal.SIGKILL if cause == "lost" else FAILED


def _judged(failure: Exception | None) -> tuple[str, str]:
    """Why a group of workers ended, where its first rank wrote nothing down: another one failed, or one was lost."""
    inner = _failures_in(failure)
    own = [error for error in inner if not peer_gone(error)]
    lost = any(name in str(failure) for name in LOST) or any(kind.__name__ in LOST for error in inner for kind in type(error).__mro__)
    if lost or (inner and not own):
        return "lost", "one of the workers that trained it was lost"
    causes = [(cause_of(error), error) for error in own]
    cause, error = next((found for found in causes if found[0] != "error"), causes[0] if causes else ("error", failure))
    return cause, f"{type(error).__name__}: {error}".splitlines()[0]


def _failures_in(failure: Exception | None) -> list[Exception]:
    """What each worker raised, or what its group died of, without what Ray Train wraps around it."""
    found = [*getattr(failure, "worker_failures", {}).values(), getattr(failure, "controller_failure", None)]
    return [inner for inner in map(_unwrapped, found) if isinstance(inner, Exception)]


def _unwrapped(error: Any) -> Any:
    """What a worker raised: Ray Train wraps what its training raises, Ray what its start does."""
    base = getattr(error, "_base_exc", error)
    return base.cause if type(base).__name__.startswith("RayTaskError") else base


def _start(order: Order) -> ForkServerProcess | Born:
    """Children come from a process that has torch imported: full isolation for a moment instead of three seconds.

    That is the run's nursery on its own machine, and elsewhere a server of this worker's own.
    """
    if order.nursery:
        with contextlib.suppress(OSError):
            return Born(order.nursery, order)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    child = context.Process(target=run, args=(order,), name=f"trial-{order.trial}")
    with _no_main_module():
        child.start()
    return child


def _wait(child: ForkServerProcess | Born, directory: TrialDirectory, follow: Callable[[Report], None] | None) -> None:
    if follow is None:
        child.join()
        return
    told = 0
    while child.exitcode is None:
        child.join(LOOK_S)
        with contextlib.suppress(AblatrixError):  # a line that is being replaced is read at the next look
            reports = directory.reports()
            for report in reports[told:]:
                follow(report)
            told = max(told, len(reports))


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing Ray's worker script into the child as its main module."""
    main = vars(sys.modules["__main__"])
    kept = {name: main[name] for name in ("__file__", "__spec__") if name in main}  # an interactive one has no file
    main |= {"__file__": None, "__spec__": None}
    try:
        yield
    finally:
        del main["__file__"], main["__spec__"]
        main |= kept


def _cause(number: int, starved: bool) -> str:
    """Who sends SIGKILL or SIGTERM is outside; what else ends a process, it has done itself."""
    if number == signal.SIGKILL and starved:
        return "out of memory"
    return "killed" if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP) else "crashed"


def _mark_killed(order: Order, pid: int | None, number: int, cause: str) -> None:
    """Write down that a trial's process was killed from outside, which it could not do itself."""
    name = signal.Signals(number).name
    why = " for lack of memory on this machine" if cause == "out of memory" else ""
    _mark(order, pid, state="failed", cause=cause, message=f"the trial's process was ended by {name}{why}")


def _mark(order: Order, pid: int | None = None, *, cause: str, **changes: Any) -> None:
    """Write down what an attempt could not: that of process `pid` on this host, where one is given; else that of this run."""
    directory = Store(Path(order.store)).trial(order.trial)
    with contextlib.suppress(AblatrixError, OSError):  # the run judges by the exit code then
        status, owner = directory.status(), lease.owner(directory.claims)
        if status is None or (pid is not None and (status.pid, status.host) != (pid, socket.gethostname())):
            return  # a later attempt, of after a network partition
        if owner is not None and owner.run != order.run:
            return
        if status.state == "running":
            failures = counted(status.failures, cause) if changes["state"] == "failed" else status.failures
            directory.write_status(dataclasses.replace(status, ended=time.time(), cause=cause, failures=failures, **changes))


def _mark_unbegun(order: Order, before: Status | None, cause: str, message: str) -> None:
    """Write down why no attempt began, as when workers cannot reach each other; `before` is what the last attempt has left, if any."""
    directory, now = Store(Path(order.store)).trial(order.trial), time.time()
    owner = lease.owner(directory.claims)
    if owner is not None and owner.run != order.run and lease.is_held(directory.claims):
        return
    status = before or Status(order.trial, "failed", 0, socket.gethostname(), os.getpid(), order.threads, started=now, updated=now)
    failures = counted(failures_by(before), cause)
    with contextlib.suppress(OSError):
        directory.write_status(dataclasses.replace(status, state="failed", ended=now, cause=cause, message=message, failures=failures))


def _status(directory: TrialDirectory) -> Status | None:
    with contextlib.suppress(AblatrixError):  # a damaged one is written anew
        return directory.status()
    return None


def _oom_kills() -> int:
    """How many processes the kernel has killed for memory: in this container, else on this machine."""
    for file, name in OOM_COUNTERS:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(file).read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == name:
                    return int(value)
    return 0
