"""What a run knows of the Ray that it is on, and what it keeps from it."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train.torch as torch_train

from ablatrix import cluster, runner
from ablatrix.cluster import in_use
from ablatrix.errors import Unreachable
from ablatrix.occupancy import Occupancy, read_occupancy
from ablatrix.packing import shortage
from ablatrix.runner import Runner
from ablatrix.schema import Resources
from ablatrix.store import Store


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


@pytest.mark.parametrize(
    ("address", "which", "ended"), [("10.0.0.1:6379", "the Ray head at 10.0.0.1:6379", 0), (None, "the head of this run's own Ray", 1)]
)
def test_a_run_whose_head_is_gone_ends_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, which: str, ended: int
) -> None:
    ends: list[str] = []
    answered = iter([True, False, False, False, False, False, False, False])
    monkeypatch.setattr(runner, "head", lambda: "10.0.0.1:6379")
    monkeypatch.setattr(runner, "answers", lambda address: next(answered, False))
    monkeypatch.setattr(runner, "in_use", lambda *_: Occupancy(time.time(), 1, {"CPU": 1.0}, {"CPU": 0.0}))
    monkeypatch.setattr(runner, "end", lambda: ends.append("ended"))
    monkeypatch.setattr(runner, "GONE_S", 0.2)
    monkeypatch.setattr(runner, "WRITE_S", 0.05)
    sweep = Store(tmp_path).sweep("x")
    lost = Runner(Store(tmp_path), sweep, Resources(), 1, address)
    lost._watch(None, threading.Event())

    assert read_occupancy(sweep) is not None
    assert not lost.running
    assert isinstance(lost.error, Unreachable)
    assert f"{which} is gone" in str(lost.error)
    assert len(ends) == ended


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

    monkeypatch.setattr(runner, "head", lambda: "127.0.0.1:1")
    monkeypatch.setattr(runner, "answers", lambda address: True)
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


@pytest.mark.parametrize(("gpus", "backend"), [(0.0, "gloo"), (1.0, "nccl"), (2.0, "nccl")])
def test_workers_on_gpus_talk_by_nccl_and_others_by_gloo(monkeypatch: pytest.MonkeyPatch, gpus: float, backend: str) -> None:
    asked: dict[str, Any] = {}

    class Trainer:
        def __init__(self, _: object, **settings: Any) -> None:
            asked.update(settings)

        def fit(self) -> None:
            asked["ran"] = True

    monkeypatch.setattr(torch_train, "TorchTrainer", Trainer)
    cluster.on_workers(lambda config: None, {}, Resources(cpus=2, gpus=gpus, workers=3))
    scaling = asked["scaling_config"]

    assert asked["ran"]
    assert asked["torch_config"].backend == backend
    assert (scaling.num_workers, scaling.use_gpu) == (3, gpus > 0)
    assert scaling.resources_per_worker == {"CPU": 2, **({"GPU": gpus} if gpus else {})}
