"""Trials are forked from one process that has torch imported, and told apart from it in every way."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ablatrix.nursery import Born, Nursery, _live, nursery
from ablatrix.records import TrialRecipe
from ablatrix.slot import carry_out
from ablatrix.store import Store, TrialDirectory
from ablatrix.trial import FINISHED, Order
from tiny_sweep import tiny_recipe


def waiting_trial(place: Path, epochs: int = 2) -> TrialDirectory:
    trial = Store(place).trial("0123456789abcdef")
    trial.create(TrialRecipe(trial.id, 0, "digits", tiny_recipe(schedule__epochs=epochs).as_mapping()))
    return trial


def order_for(trial: TrialDirectory, address: str) -> Order:
    return Order(str(trial.path.parents[1]), trial.id, str(trial.path / "stop"), 1, 0.0, os.getpid(), nursery=address)


def wait_until_running(trial: TrialDirectory) -> int:
    """The process id that the trial itself wrote down."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (status := trial.status()) and trial.metrics_file.exists():
            return status.pid
        time.sleep(0.05)
    raise AssertionError("the trial did not begin")


@contextmanager
def nursery_process(place: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A nursery and its process, found as a child of ours that has not been there before."""
    before = {child.pid for child in psutil.Process().children()}
    with nursery(1, place / "nursery.log") as address:
        (process,) = [child for child in psutil.Process().children() if "ablatrix.nursery" in " ".join(child.cmdline())]
        assert process.pid not in before
        yield address, process


@pytest.mark.slow
def test_a_trial_is_a_child_of_the_nursery_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    trial = waiting_trial(tmp_path)
    with nursery_process(tmp_path) as (address, process):
        child = Born(address, order_for(trial, address))
        assert psutil.Process(child.pid).ppid() == process.pid
        child.join()
        assert child.exitcode == FINISHED
        assert trial.result() is not None

        longer = waiting_trial(tmp_path / "other", epochs=5000)
        child = Born(address, order_for(longer, address))
        assert wait_until_running(longer) == child.pid
        child.join(0.1)
        assert child.exitcode is None
        child.kill()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
    assert not process.is_running()


@pytest.mark.slow
def test_a_trial_that_its_worker_runs_in_the_nursery_has_the_same_result_as_elsewhere(tmp_path: Path) -> None:
    inside, outside = waiting_trial(tmp_path / "inside"), waiting_trial(tmp_path / "outside")
    with nursery_process(tmp_path) as (address, _):
        assert carry_out(order_for(inside, address)) == FINISHED
    assert carry_out(order_for(outside, "")) == FINISHED
    result, other = inside.result(), outside.result()
    assert result
    assert other
    assert result.metrics == other.metrics


@pytest.mark.slow
def test_a_nursery_that_dies_takes_its_trial_along_which_counts_as_killed(tmp_path: Path) -> None:
    trial = waiting_trial(tmp_path, epochs=5000)
    with nursery_process(tmp_path) as (address, process):
        child = Born(address, order_for(trial, address))
        wait_until_running(trial)
        process.kill()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        deadline = time.monotonic() + 60
        while psutil.pid_exists(child.pid) and psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the trial lives on"
            time.sleep(0.05)


@pytest.mark.slow
def test_a_trial_whose_nursery_died_is_not_written_down_as_failed(tmp_path: Path) -> None:
    trial = waiting_trial(tmp_path, epochs=5000)
    with nursery_process(tmp_path) as (address, process):
        killer = threading.Thread(target=lambda: (wait_until_running(trial), process.kill()))
        killer.start()
        assert carry_out(order_for(trial, address)) == -signal.SIGKILL
        killer.join()
    status = trial.status()
    assert status
    assert (status.state, status.failures) == ("running", {})


@pytest.mark.slow
def test_without_a_nursery_the_worker_forks_by_itself(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Born(str(tmp_path / "none"), order_for(waiting_trial(tmp_path / "a"), ""))
    assert carry_out(order_for(waiting_trial(tmp_path / "b"), str(tmp_path / "none"))) == FINISHED


@pytest.mark.parametrize("devices", ["3", None])
def test_a_trial_sees_its_workers_devices_and_not_those_of_the_nursery(devices: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    seen = []
    monkeypatch.setattr("ablatrix.nursery.run", lambda order: seen.append((order, os.environ.get("CUDA_VISIBLE_DEVICES"))))
    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    order = Order("store", "0123456789abcdef", "stop", 1, 0.5, 7)
    with pytest.raises(SystemExit):
        _live(json.dumps({"order": vars(order), "devices": devices}).encode())
    assert seen == [(order, devices)]


def test_a_worker_that_did_not_wait_gets_no_trial_that_nobody_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[int] = []
    monkeypatch.setattr(os, "fork", lambda: forked.append(1) or 1)
    lines = {}
    for waits in (False, True):
        door, worker = socket.socketpair()
        with door, worker:
            worker.sendall(json.dumps({"order": vars(order_for(waiting_trial(tmp_path), "")), "devices": None}).encode() + b"\n")
            if not waits:
                worker.close()
            serving = Nursery.__new__(Nursery)
            serving._waiting = {}
            serving._bear(door)
            lines[waits] = (len(forked), len(serving._waiting))

    assert lines == {False: (0, 0), True: (1, 1)}
