"""A Ray of our own on this machine: started with the daemons that a run needs, seen up at once, and ended at once.

Ray has no settings for any of it, so parts of it are replaced for the time of a start or an end. With `cluster` and `runner`, the
only importer of ray.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil

OBJECT_STORE_BYTES = 100 * 2**20  # trials pass nothing through it
STARTS = 2
START_S = 120.0  # what a start may take; Ray itself gives up after 30 s, which a busy machine needs
LOOK_S = 0.05  # between looks at a daemon that starts
END_S = 3.0  # until what was killed is gone
ENDED = "its daemon ended as it started"
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def start(cpus: int) -> Any:
    """A Ray of `cpus` cores on this machine, which `end` ends. Raises what Ray raises."""
    import ray

    for attempt in range(STARTS):
        before = set(_daemons())
        try:
            with _lean(), _patience(), _deaf():
                context = ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **QUIET)
            _close_token_file()
            return context
        except (Exception, SystemExit) as error:
            ray.shutdown()
            _end(set(_daemons()) - before)  # Ray knows nothing of those that it had started by then
            if attempt == STARTS - 1 or not any(cause in str(error) for cause in ("timed out", ENDED)):
                raise
    raise AssertionError


@contextmanager
def _replaced(owner: object, **parts: object) -> Iterator[None]:
    """Have attributes of Ray's be others for the time of the block."""
    kept = {name: getattr(owner, name) for name in parts}
    for name, part in parts.items():
        setattr(owner, name, part)
    try:
        yield
    finally:
        for name, part in kept.items():
            setattr(owner, name, part)


def _lean() -> AbstractContextManager[None]:
    """Have Ray start without what a run on one machine never asks: its autoscaler, its log monitor, and the server behind its
    dashboard, which starts, and is waited for, with no dashboard too."""
    from ray._private.node import Node

    def none(*_: object, **__: object) -> None:
        """Start nothing."""

    return _replaced(Node, start_monitor=none, start_log_monitor=none, start_api_server=none)


def _patience() -> AbstractContextManager[None]:
    """Have Ray wait `START_S` for its own daemon as long as that lives: its limit stands in its code, and in no setting.

    It learns within `LOOK_S` that the daemon is up, where it would look every second.
    """
    from ray._common.utils import get_default_ray_temp_dir
    from ray._private import services

    ask = services.get_node

    def wait(address: str, node: str) -> Any:
        is_up, began, looks = _registration(address, node), time.monotonic(), itertools.count()
        while not is_up() and time.monotonic() < began + START_S:
            if next(looks) % 20 == 0 and not any(_runs(daemon, "raylet") for daemon in _daemons()):
                logs = Path(get_default_ray_temp_dir()) / "session_latest" / "logs"
                raise ChildProcessError(f"{ENDED}, see {logs}/raylet.out and raylet.err")  # Ray would go on asking after a RuntimeError
            time.sleep(LOOK_S)
        return ask(address, node)

    return _replaced(services, get_node=wait)


@contextmanager
def _deaf() -> Iterator[None]:
    """Have Ray's daemons not hear SIGTERM, which schedulers and shells send to whole process groups: the run hears it, and ends them
    when all is saved."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # what is started here inherits it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _registration(address: str, node: str) -> Callable[[], bool]:
    """Tells whether the head at `address` knows `node`."""
    from ray._private import services, state

    table = state.GlobalState()
    table._initialize_global_state(services._get_gcs_client_options(address))
    return lambda: any(known["NodeID"] == node for known in table.node_table())


def end() -> None:
    """Disconnect; a Ray of our own ends with all that it has started. It may be broken, or gone."""
    import ray

    with _ending_at_once():
        ray.shutdown()


def _ending_at_once() -> AbstractContextManager[None]:
    """Have what Ray has started end without the second that it is given to end by itself: nothing of it is needed any more."""
    from ray._private import worker

    node: Any = worker._global_node
    if node is None:
        return contextlib.nullcontext()
    forget = node.kill_all_processes

    def kill(**_: object) -> None:
        _end(_daemons(info.process.pid for started in node.all_processes.values() for info in started))
        forget(check_alive=False)

    return _replaced(node, kill_all_processes=kill)


def _daemons(roots: Iterable[int] | None = None) -> list[psutil.Process]:
    """Ray's processes among `roots` and below, or below this one; not what a worker has started, which ends by itself."""
    import ray

    found, place = [], str(Path(ray.__file__).parent)
    for pid in [os.getpid()] if roots is None else roots:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            found += [process for process in (root, *root.children(recursive=True)) if _is_of(place, process)]
    return found


def _is_of(place: str, process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.pid != os.getpid() and any(word.startswith((place, "ray::")) for word in process.cmdline())
    return False


def _runs(process: psutil.Process, name: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.name() == name
    return False


def _end(processes: Iterable[psutil.Process]) -> None:
    """Kill them and see them gone, though whoever inherits them may take seconds to notice."""
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + END_S
    while left and time.monotonic() < deadline:
        left = [process for process in psutil.wait_procs(left, timeout=0)[1] if not _is_gone(process)]
        time.sleep(0.01)


def _is_gone(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def _close_token_file() -> None:
    """Ray makes its token readable for all; who reads it can run code as this user."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    with contextlib.suppress(OSError):
        if token.stat().st_mode & 0o077 and token.stat().st_uid == os.getuid():
            token.chmod(0o600)
