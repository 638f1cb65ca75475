"""Starting a Ray of our own, where it does not start as it should."""

from __future__ import annotations

import ctypes
import gc
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import services

from ablatrix import cluster, runner
from ablatrix.cluster import connected, in_use
from ablatrix.errors import Unreachable
from ablatrix.occupancy import Occupancy, read_occupancy
from ablatrix.packing import shortage
from ablatrix.runner import Runner
from ablatrix.schema import Resources
from ablatrix.store import Store

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

        assert len(started) == cluster.STARTS
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


def test_a_signal_handler_of_ours_outlives_the_one_that_ray_installs() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with cluster._signals_kept():
            ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1))  # past Python, as native code does: SIG_IGN
            signal.raise_signal(signal.SIGTERM)
            during = list(seen)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert (during, seen) == ([], [signal.SIGTERM])


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
    monkeypatch.setattr(cluster, "_registration", registration)
    monkeypatch.setattr(cluster, "_daemons", lambda: [Raylet])
    with cluster._patience():
        found = services.get_node("127.0.0.1:1", "node")
    asked, after = len(looks), services.get_node
    monkeypatch.setattr(cluster, "_daemons", list[psutil.Process])
    looks.clear()
    with cluster._patience(), pytest.raises(ChildProcessError, match=cluster.ENDED):
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
    took, left = time.monotonic() - began, cluster._daemons()
    gc.collect()  # so that no later test is warned of them

    assert took < cluster.START_S / 2
    assert not left


def test_our_own_ray_has_no_more_daemons_than_it_needs_and_they_are_gone_with_it() -> None:
    stranger = subprocess.Popen([*ASLEEP, str(Path(ray.__file__).parent / "core" / "raylet")])  # of another Ray below this process
    try:
        with connected(None, 1):
            ours = [process for process in cluster._daemons() if process.pid != stranger.pid]
            there = {Path(word).name for process in ours for word in process.cmdline()}
            value = ray.get(ray.remote(lambda: 7).remote())
        left = [process for process in ours if not cluster._is_gone(process)]
        spared = stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()

    assert {"gcs_server", "raylet"} <= there
    assert not {"dashboard.py", "monitor.py", "log_monitor.py"} & there
    assert value == 7
    assert (left, spared) == ([], True)


def test_a_run_whose_head_is_gone_ends_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = iter([True, False, False, False, False, False, False, False])
    monkeypatch.setattr(runner, "head", lambda: "10.0.0.1:6379")
    monkeypatch.setattr(runner, "answers", lambda address: next(answered, False))
    monkeypatch.setattr(runner, "in_use", lambda *_: Occupancy(time.time(), 1, {"CPU": 1.0}, {"CPU": 0.0}))
    monkeypatch.setattr(runner, "GONE_S", 0.2)
    monkeypatch.setattr(runner, "WRITE_S", 0.05)
    sweep = Store(tmp_path).sweep("x")
    lost = Runner(Store(tmp_path), sweep, Resources(), 1, "10.0.0.1:6379")
    lost._watch(None, threading.Event())

    assert read_occupancy(sweep) is not None
    assert not lost.running
    assert isinstance(lost.error, Unreachable)
    assert "the Ray head at 10.0.0.1:6379 is gone" in str(lost.error)


def test_a_cluster_that_shrinks_below_what_a_trial_needs_is_told_of_once_and_so_is_its_growth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sizes, done = iter([4.0, 1.0, 1.0, 1.0, 4.0, 4.0]), threading.Event()

    def look(_: object, resources: Resources) -> Occupancy:
        if (cpus := next(sizes, None)) is None:
            done.set()
            raise RuntimeError("seen enough")
        nodes = [{"Alive": True, "Resources": {"CPU": cpus}}]
        return Occupancy(time.time(), 1, {"CPU": cpus}, {"CPU": 0.0}, shortage=shortage(resources, nodes))

    monkeypatch.setattr(runner, "in_use", look)
    monkeypatch.setattr(runner, "WRITE_S", 0.01)
    sweep = Store(tmp_path).sweep("x")
    Runner(Store(tmp_path), sweep, Resources(cpus=2), 4)._watch(None, done)
    told = [record.getMessage() for record in caplog.records if record.name == runner.__name__]

    assert len(told) == 2
    assert "no node can hold a trial any more: a trial asks for CPU 2, and the nodes have: CPU 1" in told[0]
    assert "trials fit again" in told[1]


def test_what_a_trial_lacks_is_on_record_with_what_the_cluster_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(ray, "available_resources", dict[str, float])
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 9.0}}])

    assert in_use(None, Resources(cpus=2)).shortage == "a trial asks for CPU 2, and the nodes have: CPU 1"
    assert in_use(None, Resources()).shortage is None
