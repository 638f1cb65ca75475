"""How long a report takes as a store grows: 10,000 finished trials in under 20 seconds, linear from 1,000.

The store is written with the store's own records into a temporary directory, and removed again. Sweeps have 10 seeds and claims;
`--published` gives them the recipes and numbers of MixMask's Table 1 too. Times are CPU seconds, so that a busy machine matters less.

Command: python benchmarks/report.py [--trials 1000 10000] [--published]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from ablatrix.records import Result, Status, TrialRecipe, encode
from ablatrix.store import Store
from ablatrix_models.recipe import Recipe
from ablatrix_reports.write import write_report

SEEDS, COLUMNS = 10, 5
LIMIT_S, SMALL, LARGE = 20.0, 1_000, 10_000
METRIC = {"name": "knn.top1", "goal": "max", "take": "last"}
VERSIONS = {"torch": "2.14.0", "python": "3.11"}


def write_store(root: Path, trials: int, published: bool) -> Store:
    """A finished sweep of `trials` trials; recipes differ in the mask's ratio, as fine as rows are many."""
    store, rows = Store(root), trials // SEEDS // COLUMNS
    axes = {"ratio": [f"{0.1 + 0.8 * i / rows:.6g}" for i in range(rows)], "part": [str(i) for i in range(COLUMNS)]}
    cells = [_cell(store, ratio, part) for ratio in axes["ratio"] for part in axes["part"]]
    check = f"cell(ratio={axes['ratio'][0]}) > cell(ratio={axes['ratio'][1]})"
    moved = [{"name": "ratio", "keys": ["mask.ratio"]}, {"name": "part", "keys": ["p"]}]
    plan = {
        "schema": 1, "sweep": "large", "profile": None, "title": f"{trials} trials", "question": None, "file": "large.yaml",
        "commit": None, "dirty": None, "command": "ablatrix run large.yaml", "metric": METRIC, "seeds": list(range(SEEDS)), "cells": cells,
        "axes": [axis | {"levels": axes[axis["name"]]} for axis in moved],
        "table": {"rows": ["ratio"], "columns": ["part"], "baseline": {"ratio": axes["ratio"][0]},
                  "published": ["mixmask/table1"] if published else []},
        "claims": [{"text": "the first ratio is better than the second", "check": check, "for": {}}],
    }  # fmt: skip
    store.sweep("large").submit("sweep: large\n", plan)
    return store


def _cell(store: Store, ratio: str, part: str) -> dict[str, Any]:
    name = f"ratio={ratio},part={part}"
    recipe = Recipe.read(
        {"mask": {"kind": "discrete", "ratio": float(ratio)}, "mixing": "mixmask", "data": {"name": "cifar100"}}
    ).as_mapping()
    trials = []
    for seed in range(SEEDS):
        id, draw = hashlib.sha256(f"{name}/{seed}".encode()).hexdigest()[:16], random.Random(f"{name}/{seed}")
        place = store.root / "trials" / id
        place.mkdir(parents=True)
        result = Result(id, {"knn.top1": 60 + draw.gauss(0, 1)}, 1, 100 + draw.random(), 4, "node", "cpu", VERSIONS)
        status = Status(id, "finished", 1, "node", 1, 4, 100.0, 200.0, 100.0, 20, 20, 200.0)
        # Plain writes: the store's own sync each file to the disk, which is what a trial needs and a benchmark of reading does not.
        for file, record in (("recipe", TrialRecipe(id, seed, "data", recipe)), ("status", status), ("result", result)):
            (place / f"{file}.json").write_text(encode(record))
        trials.append({"trial": id, "seed": seed})
    plain = {"label": None, "included": False, "note": None, "excluded": None, "metric": METRIC}
    return {"id": name, "levels": {"ratio": ratio, "part": part}, "trials": trials, **plain}


def seconds_of(trials: int, published: bool) -> tuple[float, float]:
    """(CPU seconds, seconds) of one report, written whole."""
    with tempfile.TemporaryDirectory() as place:
        store = write_store(Path(place), trials, published)
        cpu, wall = time.process_time(), time.perf_counter()
        write_report(store, "large")
        return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs=2, default=(SMALL, LARGE))
    parser.add_argument("--published", action="store_true")
    options = parser.parse_args()
    seconds_of(100, options.published)  # imports
    small, large = (seconds_of(trials, options.published) for trials in options.trials)
    growth = (large[0] / small[0]) / (options.trials[1] / options.trials[0])
    print(json.dumps({
        "published": options.published,
        "trials": list(options.trials),
        "cpu_s": [round(small[0], 2), round(large[0], 2)],
        "wall_s": [round(small[1], 2), round(large[1], 2)],
        "time per trial, large to small": round(growth, 2),
    }))  # fmt: skip
    if options.trials[1] >= LARGE:
        raise SystemExit(0 if large[0] < LIMIT_S and growth < 1.5 else 1)


if __name__ == "__main__":
    main()
