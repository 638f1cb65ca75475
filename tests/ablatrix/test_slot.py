"""A warm worker's part, without Ray: real trials in real child processes, ended in every way."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2.api.exceptions import ControllerError

from ablatrix import slot
from ablatrix.attempt import SUPERSEDED
from ablatrix.lease import Superseded, lease
from ablatrix.records import Report, Status, TrialRecipe
from ablatrix.slot import carry_out, carry_out_together
from ablatrix.store import Store, TrialDirectory
from ablatrix.trial import BUSY, FAILED, FINISHED, STOPPED, Order
from stored_sweep import begin, end, submit, trial_id
from tiny_sweep import tiny_recipe

CUT = "Connection closed by peer"  # what a rank of gloo says when another one has ended


def create(root: Path, epochs: int = 2) -> tuple[TrialDirectory, Order]:
    trial = Store(root).trial("0123456789abcdef")
    trial.create(TrialRecipe(trial.id, 3, "digits", tiny_recipe(schedule__epochs=epochs).as_mapping()))
    return trial, Order(str(root), trial.id, str(root / "stop"), 1, 0.0, os.getpid())


def carry_out_until(trial: TrialDirectory, order: Order, strike: Callable[[int], None]) -> tuple[int, Status]:
    """Run a trial that `strike` is told the process id of once it has reported; its exit code, and what was written down."""

    def wait_and_strike() -> None:
        while not trial.reports():
            time.sleep(0.05)
        status = trial.status()
        assert status is not None
        strike(status.pid)

    striker = threading.Thread(target=wait_and_strike)
    striker.start()
    code = carry_out(order)
    striker.join()
    status = trial.status()
    assert status is not None
    return code, status


def test_every_report_is_followed_and_the_exit_code_is_the_childs(tmp_path: Path) -> None:
    trial, order = create(tmp_path)
    seen: list[Report] = []
    code = carry_out(order, seen.append)

    assert code == FINISHED
    assert seen == trial.reports()


def test_after_a_stop_no_child_is_started(tmp_path: Path) -> None:
    trial, order = create(tmp_path)
    (tmp_path / "stop").touch()

    assert carry_out(order) == STOPPED
    assert trial.status() is None


@pytest.mark.parametrize(("number", "cause"), [(signal.SIGKILL, "killed"), (signal.SIGSEGV, "crashed")])
def test_a_child_that_a_signal_ended_is_written_down_with_its_cause(tmp_path: Path, number: signal.Signals, cause: str) -> None:
    trial, order = create(tmp_path, epochs=4000)
    code, status = carry_out_until(trial, order, lambda pid: os.kill(pid, number))

    assert code == -number
    assert (status.state, status.cause, status.failures) == ("failed", cause, {cause: 1})
    assert number.name in (status.message or "")


def test_a_scheduler_that_stops_a_trial_early_ends_its_child_and_marks_it_pruned(tmp_path: Path) -> None:
    trial, order = create(tmp_path, epochs=4000)

    def prune(report: Report) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        carry_out(order, prune)
    status = trial.status()
    assert status is not None

    assert (status.state, status.cause, status.failures) == ("stopped", "pruned", {})
    assert len(trial.reports()) >= 1


def test_want_of_memory_is_told_from_other_kills_by_the_kernels_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slot._cause(signal.SIGKILL, starved=True) == "out of memory"
    assert slot._cause(signal.SIGSEGV, starved=True) == "crashed"
    assert slot._oom_kills() >= 0


class Group(Exception):
    """As Ray Train raises it."""

    def __init__(self, text: str, failures: dict[int, Exception]) -> None:
        super().__init__(text)
        self.worker_failures = failures


def fail(error: Exception) -> None:
    raise error


def test_of_workers_that_train_together_the_first_rank_says_how_it_went(tmp_path: Path) -> None:
    store = submit(tmp_path)
    orders = [Order(str(tmp_path), trial_id(i), str(tmp_path / "stop"), 1, 0.0, 1) for i in range(4)]

    def diverge() -> None:
        end(begin(store, 2), "failed", cause="diverged", message="too fast")
        raise Group("rank 0 failed", {0: RuntimeError()})

    assert carry_out_together(orders[0], lambda: end(begin(store, 0))) == FINISHED
    assert carry_out_together(orders[1], lambda: end(begin(store, 1), "stopped")) == STOPPED
    assert carry_out_together(orders[2], diverge) == FAILED
    assert (store.trial(trial_id(2)).status() or fail).cause == "diverged"  # type: ignore[union-attr]
    begin(store, 3)
    assert carry_out_together(orders[3], lambda: None) == BUSY


def test_a_group_that_found_no_room_is_given_out_anew_and_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    submit(tmp_path)
    order = Order(str(tmp_path), trial_id(0), str(tmp_path / "stop"), 1, 0.0, 1)
    error = ControllerError(WorkerGroupStartupTimeoutError(2))

    def wait() -> None:
        (tmp_path / "stop").touch()
        raise error

    assert carry_out_together(order, lambda: fail(error)) == BUSY
    assert carry_out_together(order, wait) == STOPPED


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (Group("Training failed: ActorDiedError", {1: RuntimeError("x")}), "lost"),
        (Group("Training failed", {1: MemoryError()}), "out of memory"),
        (Group("Training failed", {1: KeyError("x")}), "error"),
        (Group("Training failed", {1: WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())}), "lost"),
        (Group("Training failed", {0: RuntimeError(f"[pair.cc:561] {CUT} [127.0.0.1]:1")}), "lost"),
        (Group("Training failed", {0: RuntimeError(CUT), 1: MemoryError()}), "out of memory"),
        (Group("Training failed", {0: RuntimeError(CUT), 1: KeyError("x")}), "error"),
        (ControllerError(WorkerGroupStartupFailedError("a worker died as it started")), "lost"),
        (ControllerError(RayTaskError("setup", "Traceback", MemoryError("no more")).as_instanceof_cause()), "out of memory"),
        (RuntimeError("Ray is gone"), "error"),
    ],
)
def test_a_rank_that_was_lost_or_failed_is_written_down_where_the_first_could_not(tmp_path: Path, error: Exception, cause: str) -> None:
    store = submit(tmp_path)

    def begin_and_fail() -> None:
        begin(store, 0)
        raise error

    code = carry_out_together(Order(str(tmp_path), trial_id(0), "none", 1, 0.0, 1), begin_and_fail)
    status = store.trial(trial_id(0)).status()
    assert status is not None

    assert code == (-signal.SIGKILL if cause == "lost" else FAILED)
    assert (status.state, status.cause, status.failures) == ("failed", cause, {cause: 1})
    assert str(error) in store.trial(trial_id(0)).log.read_text()


@pytest.mark.parametrize("before", [None, "stopped", "running"])
def test_a_group_that_fails_before_its_first_rank_has_begun_says_why(tmp_path: Path, before: str | None) -> None:
    store = submit(tmp_path)
    if before == "running":  # and lost
        begin(store, 0)
    elif before:
        end(begin(store, 0), before)
    error = Group("Training failed", {0: RuntimeError("no route to host"), 1: RuntimeError(CUT)})
    code = carry_out_together(Order(str(tmp_path), trial_id(0), "none", 1, 0.0, 1), lambda: fail(error))
    status = store.trial(trial_id(0)).status()
    assert status is not None

    assert code == FAILED
    assert (status.state, status.cause, status.attempt) == ("failed", "error", 1 if before else 0)
    assert status.message == "its workers failed before they began: RuntimeError: no route to host"
    assert status.failures == ({"lost": 1, "error": 1} if before == "running" else {"error": 1})


def test_a_group_that_fails_while_another_run_has_its_trial_leaves_that_alone(tmp_path: Path) -> None:
    store = submit(tmp_path)
    order = Order(str(tmp_path), trial_id(0), "none", 1, 0.0, 1, run="ours")
    with lease(store.trial(trial_id(0)).claims, run="theirs"):
        assert carry_out_together(order, lambda: fail(Group("failed", {0: KeyError("x")}))) == FAILED
        assert store.trial(trial_id(0)).status() is None


def test_a_child_whose_fork_server_is_killed_is_ended_and_counts_as_killed_and_the_next_one_gets_another(tmp_path: Path) -> None:
    trial, order = create(tmp_path, epochs=4000)
    seen: list[int] = []

    def strike(pid: int) -> None:
        seen.append(pid)
        os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)

    code, status = carry_out_until(trial, order, strike)
    trial.path.joinpath("recipe.json").unlink()
    trial.create(TrialRecipe(trial.id, 3, "digits", tiny_recipe().as_mapping()))
    shutil.rmtree(trial.checkpoint)

    assert code == -signal.SIGKILL
    assert (status.state, status.cause) == ("failed", "killed")
    assert carry_out(order) == FINISHED
    assert psutil.wait_procs([psutil.Process(pid) for pid in seen if psutil.pid_exists(pid)], timeout=10)[1] == []


def test_a_main_module_is_after_a_childs_start_what_it_was_before_with_or_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, interactive = ModuleType("__main__"), ModuleType("__main__")
    worker.__file__ = "default_worker.py"
    for module in (worker, interactive):
        before = dict(vars(module))
        monkeypatch.setitem(sys.modules, "__main__", module)
        with slot._no_main_module():
            assert (module.__file__, module.__spec__) == (None, None)
        assert vars(module) == before


def test_a_worker_that_was_cut_off_says_nothing_of_a_later_attempt(tmp_path: Path) -> None:
    store = submit(tmp_path)
    later = begin(store, 0, attempt=2).status()
    assert later is not None
    order = Order(str(tmp_path), trial_id(0), "none", 1, 0.0, 1, run="earlier")
    slot._mark_killed(order, later.pid + 1, signal.SIGKILL, "killed")
    with lease(store.trial(trial_id(0)).claims, run="later"):
        group = carry_out_together(order, lambda: fail(Group("ActorDiedError", {})))
    overruled = carry_out_together(order, lambda: fail(Group("failed", {0: Wrapped(Superseded("claim 1"))})))

    assert (group, overruled) == (-signal.SIGKILL, SUPERSEDED)
    assert store.trial(trial_id(0)).status() == later


class Wrapped(Exception):
    """As Ray Train wraps what a worker raised."""

    def __init__(self, base: Exception) -> None:
        super().__init__()
        self._base_exc = base
