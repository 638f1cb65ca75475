"""Starting a Ray of our own, where it does not start as it should, and ending it."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import services

from ablatrix import local_ray
from ablatrix.cluster import connected
from ablatrix.errors import Unreachable

ASLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_start_that_fails_is_tried_again_and_leaves_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def fail(*_: object, **__: object) -> None:
        started.append(subprocess.Popen([*ASLEEP, str(Path(ray.__file__).parent / "core" / "raylet")]))
        raise Exception("The current node timed out during startup.")

    stranger = subprocess.Popen(ASLEEP)
    monkeypatch.setattr(ray, "init", fail)
    try:
        with pytest.raises(Unreachable, match=r"Ray did not start: .* timed out .* See `ablatrix doctor`"), connected(None, 1):
            pytest.fail("connected")

        assert len(started) == local_ray.STARTS
        assert not any(psutil.pid_exists(daemon.pid) for daemon in started)
        assert stranger.poll() is None
    finally:
        for process in (stranger, *started):
            process.kill()
            process.wait()


def test_what_fails_at_once_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(*_: object, **__: object) -> None:
        tried.append(1)
        raise ValueError("no such option")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(Unreachable, match="no such option"), connected(None, 1):
        pytest.fail("connected")

    assert tried == [1]


def test_a_slow_daemon_is_waited_for_and_a_dead_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def registration(*_: str) -> Callable[[], bool]:
        return lambda: looks.append("") or len(looks) > 3

    class Raylet:
        @staticmethod
        def name() -> str:
            return "raylet"

    def up(*_: str) -> dict[str, str]:
        return {"node": "up"}

    monkeypatch.setattr(services, "get_node", up)
    monkeypatch.setattr(local_ray, "_registration", registration)
    monkeypatch.setattr(local_ray, "_daemons", lambda: [Raylet])
    with local_ray._patience():
        found = services.get_node("127.0.0.1:1", "node")
    asked, after = len(looks), services.get_node
    monkeypatch.setattr(local_ray, "_daemons", list[psutil.Process])
    looks.clear()
    with local_ray._patience(), pytest.raises(ChildProcessError, match=local_ray.ENDED):
        services.get_node("127.0.0.1:1", "node")

    assert (found, asked) == ({"node": "up"}, 4)
    assert after is up
    assert len(looks) == 1


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # Ray never asks again for what it had started
def test_a_daemon_that_ends_as_it_starts_is_told_of_at_once_with_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "RAYLET_EXECUTABLE", shutil.which("false"))
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"Ray did not start: its daemon ended as it started, see .*/logs/raylet.out"), connected(None, 1):
        pytest.fail("connected")
    took, left = time.monotonic() - began, local_ray._daemons()
    gc.collect()  # so that no later test is warned of them

    assert took < local_ray.START_S / 2
    assert not left


def test_our_own_ray_has_no_more_daemons_than_it_needs_and_they_are_gone_with_it() -> None:
    stranger = subprocess.Popen([*ASLEEP, str(Path(ray.__file__).parent / "core" / "raylet")])  # of another Ray below this process
    try:
        with connected(None, 1):
            ours = [process for process in local_ray._daemons() if process.pid != stranger.pid]
            there = {Path(word).name for process in ours for word in process.cmdline()}
            value = ray.get(ray.remote(lambda: 7).remote())
        left = [process for process in ours if not local_ray._is_gone(process)]
        spared = stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()

    assert {"gcs_server", "raylet"} <= there
    assert not {"dashboard.py", "monitor.py", "log_monitor.py"} & there
    assert value == 7
    assert (left, spared) == ([], True)
