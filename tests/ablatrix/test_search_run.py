"""A search through Ray Tune, with a scheduler that stops trials early."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ablatrix.board import read_board
from ablatrix.store import Store
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
