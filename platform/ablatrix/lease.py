"""One owner at a time, on one host or on many that share a file system.

A lease is a directory of numbered claims. To claim is to create the next number, which a file system lets one process do;
the owner renews its claim by touching it, and releases it by writing so. A claim is free for the next number when it is
released, when its process on this machine is gone, or when another machine has not renewed it for `STALE_S`, by the file
system's own clock. Numbers only grow, so they fence: whoever finds a higher one has lost the lease, however late he wakes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

RENEW_S = 5.0
STALE_S = 60.0  # without a renewal, another machine's claim is free
YIELD_S = 10.0  # what an earlier claim of the same run gets to end before it is overruled
KEPT = 2  # claims kept for the reader of a store


class Held(Exception):
    """Somebody else holds the lease."""


class Superseded(Exception):
    """A later claim was made: what this owner still writes does not count."""


@dataclass(frozen=True)
class Owner:
    """Who made a claim. `machine` tells one kernel and process table from another; `born` a process from a later one of its pid.

    `born` is in seconds since the machine's start, which a clock that is set anew does not change.
    """

    host: str
    machine: str
    pid: int
    born: float
    run: str = ""
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """A claim that was made: `number` is higher than that of every claim before it."""

    def __init__(self, path: Path, number: int, owner: Owner) -> None:
        self.path, self.number, self.owner = path, number, owner
        self._file = _claim_file(path, number)

    def held(self) -> bool:
        """Whether no later claim was made."""
        return self._file.exists() and not _claim_file(self.path, self.number + 1).exists()

    def check(self) -> None:
        """Raises Superseded where a later claim was made."""
        if not self.held():
            raise Superseded(f"claim {self.number} of {self.path} was overruled by a later one")

    def renew(self) -> None:
        """Show that the owner lives; others may claim after `STALE_S` without."""
        with contextlib.suppress(FileNotFoundError):  # a later claim has tidied this one away
            os.utime(self._file)

    def release(self) -> None:
        """Let the next one in at once."""
        if self.held():
            with contextlib.suppress(OSError):  # a full disk leaves the claim as it was: then the process's end releases it
                _replace(self._file, replace(self.owner, released=True))


@contextmanager
def lease(path: Path, wait_s: float = 0.0, run: str = "") -> Iterator[Lease]:
    """Hold the directory `path`, renewed in the background; raises Held when it is still taken after `wait_s` seconds.

    `run` names who asks. An earlier claim of the same run is overruled after `YIELD_S`: its run has given it up for lost.
    """
    path.mkdir(parents=True, exist_ok=True)
    claimed = _claim(path, run, time.monotonic(), wait_s)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(claimed, done), name="lease", daemon=True)
    renewing.start()
    try:
        yield claimed
    finally:
        done.set()
        renewing.join()
        claimed.release()


def is_held(path: Path) -> bool:
    """Whether somebody holds `path` now."""
    number = _newest(path)
    return number > 0 and not _is_free(path, number)


def owner(path: Path) -> Owner | None:
    """Who made the newest claim, held or not; None where there is none that can be read."""
    return _read(_claim_file(path, _newest(path)))


def _claim(path: Path, run: str, began: float, wait_s: float) -> Lease:
    us = _ourselves(run)
    while True:
        number = _newest(path)
        waited = time.monotonic() - began
        before = _read(_claim_file(path, number)) if number else None
        ours = bool(run) and before is not None and before.run == run
        if number == 0 or _is_free(path, number) or (ours and waited >= YIELD_S):
            if _create(_claim_file(path, number + 1), us):
                _tidy(path, number + 1)
                return Lease(path, number + 1, us)
        elif waited >= (max(wait_s, YIELD_S) if ours else wait_s):
            raise Held(f"{path} is held by {before or 'another process'}")
        else:
            time.sleep(0.1)


def _create(file: Path, us: Owner) -> bool:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "w") as opened:
            opened.write(json.dumps(asdict(us)))
    except OSError:  # a full disk; nobody shall wait for a claim that was not made
        file.unlink(missing_ok=True)
        raise
    return True


def _replace(file: Path, owner: Owner) -> None:
    """A claim that was cut off in the middle of a line would name nobody, and hold for `STALE_S`."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".claim.")
    try:
        with os.fdopen(handle, "w") as opened:
            opened.write(json.dumps(asdict(owner)))
        Path(name).chmod(0o644)
        Path(name).replace(file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _is_free(path: Path, number: int) -> bool:
    """Whether claim `number`, the newest, may be followed by another."""
    file = _claim_file(path, number)
    found = _read(file)
    if found is not None and found.released:
        return True
    if found is not None and found.machine == _machine():
        return not _alive(found)
    return _age_s(file) > STALE_S


def _age_s(file: Path) -> float:
    """Seconds since the last renewal, by the clock of the file system, so that hosts need not agree on the time."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=file.parent, prefix=".clock.") as clock:
        return Path(clock.name).stat().st_mtime - file.stat().st_mtime
    with contextlib.suppress(OSError):  # a directory that only its owner may write
        return time.time() - file.stat().st_mtime
    return 0.0


def _alive(found: Owner) -> bool:
    try:
        process = psutil.Process(found.pid)
        # A recycled pid is no owner, and neither is a zombie.
        return abs(_born(process) - found.born) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _renew(claimed: Lease, done: threading.Event) -> None:
    while not done.wait(RENEW_S):
        with contextlib.suppress(OSError):
            claimed.renew()


def _newest(path: Path) -> int:
    try:
        return max((int(name.removesuffix(".json")) for name in os.listdir(path) if name[0].isdigit()), default=0)  # noqa: PTH208 - quicker
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _tidy(path: Path, number: int) -> None:
    for file in path.iterdir():
        if file.name[0].isdigit() and int(file.stem) <= number - KEPT:
            file.unlink(missing_ok=True)


def _claim_file(path: Path, number: int) -> Path:
    return path / f"{number:06d}.json"


def _read(file: Path) -> Owner | None:
    try:
        return Owner(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):  # not there, or not yet written
        return None


def _ourselves(run: str) -> Owner:
    return Owner(socket.gethostname(), _machine(), os.getpid(), _born(psutil.Process()), run)


def _born(process: psutil.Process) -> float:
    # psutil adds the boot time to what the kernel says, and the boot time follows the clock.
    return process.create_time() - psutil.boot_time()


@functools.cache
def _machine() -> str:
    """One kernel since its boot, and one table of processes: containers have one each."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + f" {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
