from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ablatrix import trial as module
from ablatrix.lease import lease
from ablatrix.rank import peer_gone
from ablatrix.records import TrialRecipe
from ablatrix.store import Store, TrialDirectory
from ablatrix.trial import BUSY, FAILED, FINISHED, STOPPED, Order, attempt_on, cause_of, run
from tiny_sweep import tiny_recipe

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "ablatrix_models.pretrain", "ablatrix_models.data.load", "ablatrix.trial"])
# Long enough that a stop or a kill meets it at work.
LONG = {"schedule__epochs": 40, "schedule__batch_size": 16, "evaluate__every": 10}


def create(root: Path, **changes: Any) -> TrialDirectory:
    trial = Store(root).trial("0123456789abcdef")
    trial.create(TrialRecipe(trial.id, 3, "digits", tiny_recipe(**changes).as_mapping()))
    return trial


def start(trial: TrialDirectory, owner: int | None = None) -> Any:
    """The trial in a process of its own, as a worker starts it."""
    order = Order(str(trial.path.parents[1]), trial.id, str(trial.path.parents[1] / "stop"), 1, 0.0, owner or os.getpid())
    child = CONTEXT.Process(target=run, args=(order,))
    child.start()
    return child


def finish(trial: TrialDirectory, owner: int | None = None) -> int | None:
    child = start(trial, owner)
    child.join(250)
    return child.exitcode


def wait_for_epoch(trial: TrialDirectory, epoch: int) -> None:
    deadline = time.monotonic() + 250
    while time.monotonic() < deadline:
        if len(trial.reports()) >= epoch:
            return
        time.sleep(0.005)
    pytest.fail(f"epoch {epoch} was never reported: {trial.log.read_text()}")


def outcome(trial: TrialDirectory) -> tuple[dict[str, float], list[Any]]:
    """Final metrics, and the reports without what the clock says."""
    result = trial.result()
    assert result is not None, trial.log.read_text()
    reports = [(r.epoch, r.step, {k: v for k, v in r.values.items() if k != "train.images_per_s"}) for r in trial.reports()]
    return result.metrics, reports


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], list[Any]]:
    trial = create(tmp_path_factory.mktemp("store"), **LONG)
    assert finish(trial) == FINISHED, trial.log.read_text()
    return outcome(trial)


def test_a_trial_leaves_its_result_its_reports_and_its_log(tmp_path: Path) -> None:
    trial = create(tmp_path)
    code = finish(trial)
    status, result = trial.status(), trial.result()
    assert status is not None
    assert result is not None

    assert code == FINISHED
    assert (status.state, status.attempt, status.epoch, status.epochs, status.threads) == ("finished", 1, 2, 2, 1)
    assert status.ended is not None
    assert set(result.metrics) == {"knn.top1"}
    assert result.device == "cpu"
    assert {"python", "torch", "training code"} <= set(result.versions)
    environment = trial.environment()
    assert environment is not None
    assert (environment.attempt, environment.gpus, environment.versions["torch"]) == (1, [], torch.__version__)
    assert trial.usage()[-1].values["memory_mb"] > 100
    assert [report.epoch for report in trial.reports()] == [1, 2, 2]  # the last with the final metrics
    assert trial.reports()[-1].values == result.metrics
    assert "--- attempt 1 on" in trial.log.read_text()


def test_a_finished_trial_is_not_run_again(tmp_path: Path) -> None:
    trial = create(tmp_path)
    finish(trial)
    before = (trial.path / "result.json").read_bytes(), trial.status()
    code = finish(trial)

    assert code == FINISHED
    assert ((trial.path / "result.json").read_bytes(), trial.status()) == before


@pytest.mark.parametrize(
    ("changes", "cause", "said"),
    [
        ({"data__name": "cifar10", "data__path": "/nowhere/at/all", "data__train_images": None}, "data", "DataError"),
        ({"optimizer__lr": 1e30, "schedule__epochs": 20}, "diverged", "Diverged: the loss became"),
    ],
)  # fmt: skip
def test_a_trial_that_fails_says_why_in_status_and_log(tmp_path: Path, changes: dict[str, Any], cause: str, said: str) -> None:
    trial = create(tmp_path, **changes)
    code = finish(trial)
    status = trial.status()
    assert status is not None

    assert code == FAILED
    assert (status.state, status.cause, trial.result()) == ("failed", cause, None)
    assert said in (status.message or "")
    assert "Traceback" in trial.log.read_text()
    assert said in trial.log.read_text()


@pytest.mark.parametrize("text", ["{", '{"trial": "x"}', json.dumps({"trial": "x", "seed": 0, "data": "d", "recipe": {"new": 1}})])
def test_a_recipe_that_cannot_be_read_fails_the_trial_and_not_the_sweep(tmp_path: Path, text: str) -> None:
    trial = create(tmp_path)
    (trial.path / "recipe.json").write_text(text)
    code = finish(trial)
    status = trial.status()
    assert status is not None

    assert code == FAILED
    assert (status.state, status.cause) == ("failed", "recipe")


def test_a_stopped_trial_is_resumed_to_the_result_of_an_undisturbed_one(tmp_path: Path, undisturbed: Any) -> None:
    trial = create(tmp_path, **LONG)
    child = start(trial)
    wait_for_epoch(trial, 2)
    (tmp_path / "stop").touch()
    child.join(250)
    stopped = trial.status()
    (tmp_path / "stop").unlink()
    code = finish(trial)
    status = trial.status()
    assert stopped is not None
    assert status is not None

    assert child.exitcode == STOPPED
    assert (stopped.state, stopped.cause, stopped.attempt) == ("stopped", "stopped", 1)
    assert 2 <= stopped.epoch < 40
    assert (code, status.state, status.attempt) == (FINISHED, "finished", 2)
    assert outcome(trial) == undisturbed


def test_a_killed_trial_is_resumed_without_a_line_lost_or_doubled(tmp_path: Path, undisturbed: Any) -> None:
    trial = create(tmp_path, **LONG, schedule__checkpoint_epochs=3)
    for epoch in (2, 7):
        child = start(trial)
        wait_for_epoch(trial, epoch)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        with trial.metrics_file.open("a") as file:
            file.write('{"epoch": 99, "st')
    killed = trial.status()
    code = finish(trial)
    status = trial.status()
    assert killed is not None
    assert status is not None

    assert (killed.state, killed.attempt) == ("running", 2)
    assert (code, status.attempt) == (FINISHED, 3)
    assert outcome(trial) == undisturbed


def test_a_trial_that_another_process_runs_is_left_alone(tmp_path: Path) -> None:
    trial = create(tmp_path)
    code = (
        "import sys; from ablatrix import trial\ntrial.LOCK_WAIT_S = 0.0\n"
        "trial.run(trial.Order(sys.argv[1], sys.argv[2], 'none', 1, 0.0, int(sys.argv[3])))"
    )
    with lease(trial.claims):
        ended = subprocess.run([sys.executable, "-c", code, str(tmp_path), trial.id, str(os.getpid())], check=False)

    assert ended.returncode == BUSY
    assert trial.status() is None
    assert "running in another process" in trial.log.read_text()


def test_two_processes_that_want_one_trial_run_it_once(tmp_path: Path) -> None:
    trial = create(tmp_path, **LONG)
    both = [start(trial), start(trial)]
    for child in both:
        child.join(250)
    status = trial.status()
    assert status is not None

    assert FINISHED in {child.exitcode for child in both} <= {FINISHED, BUSY}
    assert (status.state, status.attempt) == ("finished", 1)
    assert trial.log.read_text().count("--- attempt") == 1


def test_a_trial_ends_when_its_owner_dies_and_frees_its_lock(tmp_path: Path) -> None:
    trial = create(tmp_path, **{**LONG, "schedule__epochs": 4000})
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    child = start(trial, owner.pid)
    wait_for_epoch(trial, 1)
    owner.kill()
    owner.wait()
    child.join(20)
    status = trial.status()
    assert status is not None

    assert child.exitcode == 1
    assert status.state == "running"  # nobody was left to say otherwise; the board calls it lost
    with lease(trial.claims):
        pass


class Diverged(Exception):
    pass


class OutOfMemoryError(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (Diverged(), "diverged"), (OutOfMemoryError(), "out of memory"), (MemoryError(), "out of memory"),
        (OSError(28, "full"), "disk full"),        (OSError(13, "denied"), "error"), (KeyError("x"), "error"),
    ],
    ids=repr,
)  # fmt: skip
def test_the_cause_of_a_failure_is_one_of_few_words(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause


@pytest.mark.parametrize(
    "words",
    [
        "[pair.cc:561] Connection closed by peer [10.0.0.2]:8892. This is typically caused by a remote worker crashing.",
        "[pair.cc:545] Read error [10.0.0.2]:31629: Connection reset by peer.",
        "NCCL error: ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
    ],
)
def test_a_rank_whose_peer_has_ended_leaves_the_judgement_to_who_sees_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    trial = create(tmp_path)
    order = Order(str(tmp_path), trial.id, str(tmp_path / "stop"), 1, 0.0, os.getpid())

    def fail(*_: Any) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(module, "train", fail)
    with lease(trial.claims) as claim, pytest.raises(RuntimeError, match=r"peer|remote"):
        attempt_on(trial, order, claim, peer_gone)
    as_rank = trial.status()
    with lease(trial.claims) as claim:
        code = attempt_on(trial, order, claim)
    alone = trial.status()
    assert as_rank is not None
    assert alone is not None

    assert (as_rank.state, as_rank.cause) == ("running", None)
    assert (code, alone.state, alone.cause) == (FAILED, "failed", "error")


def test_an_order_is_plain_values() -> None:
    order = Order("/s", "0" * 16, "/s/stop", 1, 0.5, 7)

    assert Order(**json.loads(json.dumps(dataclasses.asdict(order)))) == order
