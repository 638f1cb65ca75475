"""How long does a plan of 10,000 trials take, and does its cost grow linearly from 1,000?

Half of the trials are in the store, as small files of the shape that trials leave. Every cell has a recipe of its own and one
seed, which is the dearest case: seeds of a cell share its recipe. Timed: reading the file, every check, ids, the look into the
store, cost and doubts; all that `ablatrix plan --json` does but printing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from ablatrix import cost, plan, spec
from ablatrix.cli import planned
from ablatrix.records import Result, Status, encode
from ablatrix.store import Store

BAR_S, GROWTH = 10.0, 1.5
SWEEP = """\
schema: 1
sweep: bench
title: "Plan benchmark"
recipe: mixmask/moco-digits
axes:
  lr: {{key: optimizer.lr, levels: [{rates}]}}
  decay: {{key: optimizer.weight_decay, levels: [{decays}]}}
when: [{{if: {{lr: "> 0.5"}}, set: {{optimizer.momentum: 0.8}}, note: "steady"}}]
metric: {{name: knn.top1}}
"""


def timed(place: Path, count: int) -> tuple[float, float]:
    """Seconds of wall and processor for a plan of `count` trials; the store is filled before."""
    rates = ", ".join(f"{0.001 * (i + 1):.4f}" for i in range(count // 10))
    path, store = place / f"{count}.yaml", Store(place / f"runs{count}")
    path.write_text(SWEEP.format(rates=rates, decays=", ".join(f"{1e-5 * (i + 1):.6f}" for i in range(10))))
    fill(store, plan.make(spec.load(path), None, lambda data: "print"))
    wall, cpu = time.perf_counter(), time.process_time()
    made = plan.make(spec.load(path), None, lambda data: "print")
    rows = planned.listed(made, store)
    expected = planned.foreseen(made, rows, cost.measures(made, store), cpus=8)
    planned.sense(made)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert len(made.trials) == count
    assert expected.to_run == count // 2
    return wall, cpu


def fill(store: Store, made: plan.Plan) -> None:
    """Half of the trials as finished ones; written plainly, since flushing each file to disk would take minutes."""
    for trial in made.trials[::2]:
        place = store.trial(trial.id).path
        place.mkdir(parents=True)
        (place / "recipe.json").write_text(encode(trial.record()))
        (place / "result.json").write_text(encode(Result(trial.id, {"knn.top1": 50.0}, 1, 60.0, 1, "host", "cpu")))
        (place / "status.json").write_text(encode(Status(trial.id, "finished", 1, "host", 1, 1, 0.0, 0.0, 60.0, 1, 1)))


def main() -> int:
    """Print the figures and the verdict; 1 where the bar is missed."""
    with tempfile.TemporaryDirectory() as directory:
        found = {count: timed(Path(directory), count) for count in (1_000, 10_000)}
    for count, (wall, cpu) in found.items():
        print(f"{count:>6} trials: {wall:.2f} s wall, {cpu:.2f} s processor")
    growth = found[10_000][1] / found[1_000][1] / 10
    passed = found[10_000][0] < BAR_S and growth < GROWTH
    print(f"10 times as many trials cost {10 * growth:.1f} times as much processor time; bars: {BAR_S:g} s, {10 * GROWTH:g} times")
    print("passed" if passed else "failed")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
