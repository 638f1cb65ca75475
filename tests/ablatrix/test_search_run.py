"""Searches through Ray Tune: with a scheduler that stops trials early, and as a population."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ablatrix.board import read_board
from ablatrix.store import Store
from ablatrix_models.data.load import load
from ablatrix_models.pretrain import train_and_evaluate
from ablatrix_models.recipe import Recipe
from ablatrix_models.session import MemorySession
from tiny_sweep import RECIPE, write_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(560)]

RUN = "import sys; from ablatrix.cli import main; main(sys.argv[1:])"
TEXT = """\
schema: 1
sweep: tiny
title: "A tiny search"
recipe: tiny.yaml
set: {evaluate.every: 1}
search:
  algorithm: random
  trials: 4
  scheduler: {name: asha, grace_epochs: 1, reduction: 4}
  space:
    lr: {key: optimizer.lr, low: 1.0e-4, high: 1.0, log: true}
metric: {name: train.loss, goal: min}
"""


def test_a_search_runs_to_its_end_and_prunes_by_reports_and_running_again_runs_nothing(tmp_path: Path) -> None:
    file, store = write_sweep(tmp_path, TEXT, RECIPE.replace("epochs: 2", "epochs: 5")), tmp_path / "runs"
    command = [sys.executable, "-c", RUN, "run", str(file), "--store", str(store), "--cpus", "1"]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=False, timeout=270) for _ in range(2))
    lines = [json.loads(line) for line in (store / "sweeps/tiny/search/suggestions.jsonl").read_text().splitlines()]
    ends = {line["number"]: line["state"] for line in lines if line["event"] == "told"}
    board = read_board(Store(store), Store(store).sweep("tiny"))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert len(lines) == 8
    # The first has no other to be worse than.
    assert ends[0] == "complete"
    assert set(ends.values()) <= {"complete", "pruned"}
    assert [cell.cell for cell in board.cells] == [f"suggestion={n}" for n in range(4)]
    assert {trial.state: trial.cause for cell in board.cells for trial in cell.trials}.get("stopped", "pruned") == "pruned"
    assert all(ends[n] == ("complete" if cell.trials[0].state == "finished" else "pruned") for n, cell in enumerate(board.cells))


POPULATION = (
    TEXT.replace("trials: 4", "trials: 3")
    .replace("{name: asha, grace_epochs: 1, reduction: 4}", "{name: pbt, interval_epochs: 2}")
    .replace("{name: train.loss, goal: min}", "{name: knn.top1}")
)


def test_a_population_is_trained_in_generations_and_each_leg_is_what_its_recipe_trains_from_scratch(tmp_path: Path) -> None:
    file, store = write_sweep(tmp_path, POPULATION, RECIPE.replace("epochs: 2", "epochs: 5")), tmp_path / "runs"
    command = [sys.executable, "-c", RUN, "run", str(file), "--store", str(store)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=270)
    lines = [json.loads(line) for line in (store / "sweeps/tiny/search/suggestions.jsonl").read_text().splitlines()]
    legs = [line for line in lines if line["event"] == "suggested"]
    trial = Store(store).trial(legs[-1]["trial"])
    recipe, result, status = Recipe.read(trial.recipe().recipe), trial.result(), trial.status()
    session, threads = MemorySession(), torch.get_num_threads()
    torch.set_num_threads(1)
    alone = train_and_evaluate(recipe, 0, load(recipe.data, "train"), load(recipe.data, "test"), session, torch.device("cpu"))
    torch.set_num_threads(threads)

    assert ran.returncode == 0, ran.stderr
    assert len(legs) == 9
    assert [leg.schedule.end for leg in recipe.legs()] == [2, 4, 5]
    assert result is not None and result.metrics == alone  # noqa: PT018
    assert status is not None and (status.inherited, status.epoch, status.attempt) == (4, 5, 1)  # noqa: PT018
    told = [(report.epoch, report.step, report.values | {"train.images_per_s": 0.0}) for report in trial.reports()]
    assert told[:-1] == [(epoch, step, values | {"train.images_per_s": 0.0}) for epoch, step, values in session.reports[:-1]]
    assert told[-1][2].items() >= alone.items()
