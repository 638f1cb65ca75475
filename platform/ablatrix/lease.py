"""One owner at a time: an advisory lock that the operating system drops when its owner dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Held(Exception):
    """Somebody else holds the lock."""


@contextmanager
def lease(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold `path` exclusively; raises Held when it is still taken after `wait_s` seconds.

    The lock belongs to the open file, so a killed owner loses it at once, on this host or over NFS 4.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(handle, path, time.monotonic() + wait_s)
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether somebody holds `path` now."""
    if not path.exists():
        return False
    try:
        with lease(path):
            return False
    except Held:
        return True


def _acquire(handle: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Held(str(path)) from None
            time.sleep(0.1)
