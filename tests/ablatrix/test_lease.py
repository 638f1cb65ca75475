from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ablatrix.lease import Held, is_held, lease

HOLD = (
    "import sys, time, pathlib; from ablatrix.lease import lease\n"
    "with lease(pathlib.Path(sys.argv[1])):\n print('held', flush=True); time.sleep(60)"
)


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds `path`."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_only_one_owner_holds_it_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    with lease(path):
        with pytest.raises(Held, match="lock"), lease(path):
            pytest.fail("held twice")
        during = is_held(path)

    assert during
    assert not is_held(path)


def test_it_is_released_when_the_work_in_it_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lease(tmp_path / "lock"):
        raise RuntimeError

    assert not is_held(tmp_path / "lock")


def test_what_was_never_held_is_not_held_and_not_made(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()


def test_a_killed_owner_loses_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as child:
        before = is_held(path)
        child.send_signal(signal.SIGKILL)
        child.wait()

    assert before
    assert not is_held(path)


def test_waiting_gets_it_as_soon_as_the_owner_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    taken, leave = threading.Event(), threading.Event()

    def own() -> None:
        with lease(path):
            taken.set()
            leave.wait()

    owner = threading.Thread(target=own)
    owner.start()
    taken.wait()
    threading.Timer(0.2, leave.set).start()
    began = time.monotonic()
    with lease(path, wait_s=20):
        waited = time.monotonic() - began
    owner.join()

    assert 0.05 < waited < 10


def test_waiting_ends_with_held(tmp_path: Path) -> None:
    with lease(tmp_path / "lock"), pytest.raises(Held), lease(tmp_path / "lock", wait_s=0.15):
        pytest.fail("held twice")
