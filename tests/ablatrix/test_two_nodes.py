"""Sweeps on two real nodes, as a user drives them: submitted, followed, retried from other processes, and read when the head is gone."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ablatrix.job import Job, job_state, read_job
from ablatrix.lease import is_held
from ablatrix.records import decode
from ablatrix.store import Store, TrialDirectory
from ablatrix_models.data.load import load
from ablatrix_models.pretrain import train_and_evaluate
from ablatrix_models.recipe import Recipe
from ablatrix_models.session import MemorySession
from tiny_sweep import RECIPE, SWEEP, write_sweep
from two_nodes import NAMES, Cluster, missing, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LONG = RECIPE.replace("epochs: 2", "epochs: 60")  # longer than a node's first trial takes to begin


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if why := missing():
        pytest.skip(why)
    with two_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all, which the head's death at the end leaves behind."""
    return Store(tmp_path_factory.mktemp("shared") / "runs")


def file_of(place: Path, name: str, text: str = SWEEP, recipe: str = RECIPE) -> str:
    place.mkdir(exist_ok=True)
    return str(write_sweep(place, text.replace("sweep: tiny", f"sweep: {name}"), recipe))


def submit(cluster: Cluster, store: Store, file: str) -> str:
    sent = cluster.run("submit", file, "--store", str(store.root), "--address", cluster.server)
    assert sent.returncode == 0, sent.stderr
    return sent.stdout.strip()


def watch(cluster: Cluster, store: Store, sweep: str) -> str:
    """Follow a sweep to its end; what was shown."""
    seen = cluster.run("status", sweep, "--store", str(store.root), "--watch", timeout_s=400)
    assert seen.returncode == 0, seen.stderr
    return seen.stdout


def board(cluster: Cluster, store: Store, sweep: str) -> dict[str, Any]:
    told = cluster.run("status", sweep, "--store", str(store.root), "--json")
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def trials_of(seen: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial for cell in seen["cells"] for trial in cell["trials"]]


def attempts(trial: TrialDirectory) -> list[int]:
    return [int(line.split()[2]) for line in trial.log.read_text().splitlines() if line.startswith("--- attempt ")]


def test_a_submitted_sweep_is_followed_from_another_process_and_runs_on_both_nodes(cluster: Cluster, store: Store, tmp_path: Path) -> None:
    file = file_of(tmp_path, "followed", SWEEP, LONG)
    job = submit(cluster, store, file)
    again = cluster.run("submit", file, "--store", str(store.root), "--address", cluster.server)
    last = watch(cluster, store, "followed")
    seen = board(cluster, store, "followed")
    log = cluster.run("logs", "followed", "--store", str(store.root))

    assert again.returncode == 5
    assert "already" in again.stderr
    assert job.startswith("followed-")
    assert "4 finished" in last
    assert job in last
    assert seen["job"]["id"] == job
    assert {trial["host"] for trial in trials_of(seen)} == set(NAMES)
    assert {trial["state"] for trial in trials_of(seen)} == {"finished"}
    assert log.returncode == 0
    assert "4 of 4 trials finished." in log.stdout
    assert "Traceback" not in log.stdout


def test_two_sweeps_share_trials_and_leave_each_other_alone(cluster: Cluster, store: Store, tmp_path: Path) -> None:
    names = ("one", "other")
    levels = ("levels: [2, 4, 8]", "levels: [4, 8, 3]")
    recipe = RECIPE.replace("epochs: 2", "epochs: 8")
    for name, of in zip(names, levels, strict=True):
        submit(cluster, store, file_of(tmp_path / name, name, SWEEP.replace("levels: [2, 4]", of), recipe))
    ends = [watch(cluster, store, name) for name in names]
    boards = [board(cluster, store, name) for name in names]
    ids = [{trial["trial"] for trial in trials_of(seen)} for seen in boards]

    assert all("6 finished" in end for end in ends)
    assert len(ids[0] & ids[1]) == 4
    for trial in ids[0] | ids[1]:
        result = store.trial(trial).result()
        assert result is not None
        assert attempts(store.trial(trial)) == [1]
        assert len(store.trial(trial).reports()) == 9
    for name in names:
        assert "6 of 6 trials finished." in store.sweep(name).log.read_text()


def test_a_trial_of_two_workers_spans_the_nodes_and_computes_what_one_process_does(cluster: Cluster, store: Store, tmp_path: Path) -> None:
    text = SWEEP.replace("levels: [2, 4]", "levels: [2]").replace("seeds: 2", "seeds: 1")
    # Slow steps, as in test_workers.
    text += "set: {optimizer.lr: 1.0e-4}\nresources: {cpus: 1, workers: 2}\n"
    submit(cluster, store, file_of(tmp_path, "together", text))
    watch(cluster, store, "together")
    (told,) = trials_of(board(cluster, store, "together"))
    trial = store.trial(told["trial"])
    recipe, alone = Recipe.read(trial.recipe().recipe), MemorySession()
    train_and_evaluate(recipe, 0, load(recipe.data, "train"), load(recipe.data, "test"), alone, torch.device("cpu"))
    losses = [report.values["train.loss"] for report in trial.reports() if "train.loss" in report.values]

    assert told["state"] == "finished", trial.log.read_text()
    assert losses == pytest.approx([values["train.loss"] for _, _, values in alone.reports if "train.loss" in values], rel=1e-5)
    log = trial.log.read_text()
    assert {name for name in NAMES if f"--- attempt 1 on {name}," in log or f"--- rank 1 on {name}," in log} == set(NAMES)


def test_what_failed_is_freed_from_another_process_and_taken_up_by_the_next_job(cluster: Cluster, store: Store, tmp_path: Path) -> None:
    text = SWEEP.replace("grid: {key: mask.grid, levels: [2, 4]}", "lr: {key: optimizer.lr, levels: [0.05, 1.0e+30]}")
    file = file_of(tmp_path, "diverging", text.replace("seeds: 2", "seeds: 1"))
    submit(cluster, store, file)
    watch(cluster, store, "diverging")
    first = board(cluster, store, "diverging")
    freed = cluster.run("retry", "diverging", "--store", str(store.root))
    between = board(cluster, store, "diverging")
    submit(cluster, store, file)
    watch(cluster, store, "diverging")
    second = board(cluster, store, "diverging")

    assert [trial["state"] for trial in trials_of(first)] == ["finished", "failed"]
    assert trials_of(first)[1]["cause"] == "diverged"
    assert (freed.returncode, freed.stdout.split()) == (0, [trials_of(first)[1]["trial"]])
    assert [trial["state"] for trial in trials_of(between)] == ["finished", "stopped"]
    assert [trial["attempt"] for trial in trials_of(second)] == [1, 2]


@pytest.mark.skipif(not os.environ.get("ABLATRIX_CHAOS"), reason="takes three minutes: `make chaos` runs it")
def test_a_trial_whose_node_is_gone_waits_with_a_word_can_be_stopped_and_goes_on_when_there_is_one_again(
    cluster: Cluster, store: Store, tmp_path: Path
) -> None:
    text = SWEEP.replace("levels: [2, 4]", "levels: [2]").replace("seeds: 2", "seeds: 1") + "resources: {cpus: 1, workers: 2}\n"
    file, sweep = file_of(tmp_path, "waiting", text, RECIPE.replace("epochs: 2", "epochs: 20")), store.sweep("waiting")
    submit(cluster, store, file)
    _until(lambda: any(trial["epoch"] for trial in trials_of(board(cluster, store, "waiting"))))
    cluster.kill(1)
    _until(lambda: "no trial can start now" in cluster.run("status", "waiting", "--store", str(store.root)).stdout)
    (between,) = trials_of(board(cluster, store, "waiting"))
    stopped = cluster.run("stop", "waiting", "--store", str(store.root))
    _until(lambda: not is_held(sweep.claims))
    said = sweep.log.read_text()
    cluster.start()
    submit(cluster, store, file)
    watch(cluster, store, "waiting")
    (after,) = trials_of(board(cluster, store, "waiting"))

    # Who waited for the ranks may have been on the lost node too, and then nobody was left to write it down.
    assert (between["state"], between["cause"]) in (("failed", "lost"), ("lost", None))
    assert said.count("no node can hold a trial any more: a trial asks for 2 times CPU 1, and the nodes have: CPU 1.") == 1
    assert stopped.returncode == 0
    assert "stopped with 1 trials unfinished" in said
    assert (after["state"], after["attempt"]) == ("finished", 2)
    assert set(after["failures"]) <= {"lost"}


def test_when_the_head_is_gone_the_store_still_tells(cluster: Cluster, store: Store, tmp_path: Path) -> None:
    submit(cluster, store, file_of(tmp_path, "orphaned", SWEEP, RECIPE.replace("epochs: 2", "epochs: 2000")))
    with subprocess.Popen(
        cluster.cli("status", "orphaned", "--store", str(store.root), "--watch"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=cluster.environment,
    ) as watching:  # fmt: skip
        _until_two_run(cluster, store)
        job = decode(Job, (store.sweep("orphaned").path / "job.json").read_text())
        for node in (0, 1):
            cluster.kill(node)
        shown, _ = watching.communicate(timeout=200)
    after = cluster.run("status", "orphaned", "--store", str(store.root))
    log = cluster.run("logs", "orphaned", "--store", str(store.root))
    stopped = cluster.run("stop", "orphaned", "--store", str(store.root))

    assert job == read_job(store.sweep("orphaned"))
    assert job_state(job) is None
    assert watching.returncode == 0, shown
    assert "Traceback" not in shown
    assert after.returncode == 0, after.stderr
    assert "lost" in after.stdout
    assert job.id in after.stdout
    assert log.returncode == 0
    assert "running epoch" in log.stdout
    assert stopped.returncode == 2
    assert "not running" in stopped.stderr


def _until(seen: Callable[[], bool], patience_s: float = 120.0) -> None:
    deadline = time.monotonic() + patience_s
    while not seen():
        assert time.monotonic() < deadline, f"not seen within {patience_s:.0f} s"
        time.sleep(0.5)


def _until_two_run(cluster: Cluster, store: Store) -> None:
    for _ in range(60):
        running = [trial for trial in trials_of(board(cluster, store, "orphaned")) if trial["state"] == "running" and trial["epoch"]]
        if len({trial["host"] for trial in running}) == 2:
            return
    pytest.fail("no trial ran on each node within a minute")
