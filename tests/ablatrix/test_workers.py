"""A trial on several workers of Ray Train against the same trial in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ablatrix.store import Store
from ablatrix_models.data.load import load
from ablatrix_models.pretrain import train_and_evaluate
from ablatrix_models.recipe import Recipe
from ablatrix_models.session import MemorySession
from tiny_sweep import SWEEP, write_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOGETHER = SWEEP.replace("levels: [2, 4]", "levels: [2]").replace("seeds: 2", "seeds: 1") + (
    # Slow steps: at the recipe's rate batch norm on 8 pixels blows rounding up to a percent of the loss within eight of them.
    "set: {compute.precision: fp32, optimizer.lr: 1.0e-4}\nresources: {cpus: 1, workers: 2}\n"
)


def test_two_workers_train_what_one_process_trains(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ablatrix", "run", str(write_sweep(tmp_path, TOGETHER)), "--store", str(tmp_path / "runs")]
    ended = subprocess.run([*command, "--cpus", "2"], capture_output=True, text=True, check=False, timeout=800)
    trial = Store(tmp_path / "runs").trials()[0]
    assert ended.returncode == 0, ended.stderr + (trial.log.read_text() if trial.log.exists() else "")
    recipe, alone = Recipe.read(trial.recipe().recipe), MemorySession()
    expected = train_and_evaluate(
        recipe, trial.recipe().seed, load(recipe.data, "train"), load(recipe.data, "test"), alone, torch.device("cpu")
    )
    losses = [report.values["train.loss"] for report in trial.reports() if "train.loss" in report.values]
    result = trial.result()
    assert result is not None

    assert [(r.epoch, r.step) for r in trial.reports()] == [(epoch, step) for epoch, step, _ in alone.reports]
    assert losses == pytest.approx([values["train.loss"] for _, _, values in alone.reports if "train.loss" in values], rel=1e-5)
    # One test image of 32 may change sides by rounding.
    assert result.metrics == pytest.approx(expected, abs=3.2)
    # One line of each worker: Ray Train would have them printed twice.
    assert (trial.log.read_text().count("--- attempt 1 on"), trial.log.read_text().count("--- rank 1 on")) == (1, 1)


def test_workers_that_cannot_reach_each_other_fail_their_trial_with_the_reason_and_let_the_run_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ablatrix", "run", str(write_sweep(tmp_path, TOGETHER)), "--store", str(tmp_path / "runs")]
    ended = subprocess.run(
        [*command, "--cpus", "2"], capture_output=True, text=True, check=False, timeout=800,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "no-such-device"},
    )  # fmt: skip
    status = Store(tmp_path / "runs").trials()[0].status()
    assert status is not None

    # Tried twice: what the first try had taken of the machine was given back.
    assert (ended.returncode, status.state, status.failures) == (3, "failed", {"error": 2})
    assert "its workers failed before they began: RuntimeError: [" in ended.stderr  # brackets are no markup
    assert "no-such-device" in ended.stderr
    assert "Traceback" not in ended.stderr
