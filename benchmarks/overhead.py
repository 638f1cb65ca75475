"""What a sweep costs beside its training: 8 real trials of about 3 s, two at a time, by our runner, by Ray Tune as it comes, and
by a bare pool of two processes forked from one that has torch imported, with no scheduler, no store and no isolation.

Bars: at most half of Ray Tune's wall time, and at most 1.35 times the ideal. All run the same trainings in rounds that
alternate, each in a process of its own. `whole` counts all from the interpreter's start to its end; the ideal of that is the bare
pool, which has to import torch too. `sweep` counts from a Ray that stands to the last trial's end; the ideal of that is the
trials' own seconds by two.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

TRIALS, AT_ONCE, TRIAL_S = 8, 2, 3.0
RECIPE = {
    "method": {"name": "moco", "dim": 8, "queue": 64, "symmetric": False, "bn_splits": 1},
    "backbone": {"name": "resnet18", "width": 0.125},
    "data": {"name": "digits", "image_size": 8, "train_images": 256, "test_images": 64},
    "mixing": "mixmask", "mask": {"kind": "discrete", "grid": 2},
    "schedule": {"batch_size": 32, "epochs": 1, "checkpoint_epochs": 1000},
    "evaluate": {"knn": {"features": "backbone", "k": 1}},
}  # fmt: skip


def recipe(epochs: int) -> Any:
    from ablatrix_models.recipe import Recipe

    return Recipe.read({**RECIPE, "schedule": {**RECIPE["schedule"], "epochs": epochs}})


def train(config: dict[str, Any]) -> dict[str, float]:
    """One trial, as a user of Ray Tune would write it."""
    import torch

    from ablatrix_models.data.load import load
    from ablatrix_models.pretrain import train_and_evaluate
    from ablatrix_models.session import MemorySession

    torch.set_num_threads(1)
    began, made = time.perf_counter(), recipe(config["epochs"])
    session = MemorySession()
    train_and_evaluate(made, config["seed"], load(made.data, "train"), load(made.data, "test"), session, torch.device("cpu"))
    return {"seconds": time.perf_counter() - began}


def epochs_of_three_seconds() -> int:
    """Calibrated as trials run: `AT_ONCE` beside each other, each in a process that has done everything once before."""
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(train, [{"epochs": 2, "seed": 0}] * AT_ONCE))
        seconds = [told["seconds"] for told in pool.map(train, [{"epochs": 10, "seed": 0}] * AT_ONCE)]
    return max(1, round(10 * TRIAL_S / float(np.mean(seconds))))


def by_ray_tune(epochs: int, place: Path) -> tuple[float, float]:
    """Ray Tune with its defaults; (seconds with Ray standing, the trials' own seconds)."""
    os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    import ray
    from ray import tune

    ray.init("local", num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    began = time.perf_counter()
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"seed": tune.grid_search(list(range(TRIALS))), "epochs": epochs},
        run_config=tune.RunConfig(name="default", storage_path=str(place), verbose=0),
    )
    seconds = [result.metrics["seconds"] for result in tuner.fit()]
    return time.perf_counter() - began, float(sum(seconds))


def by_pool(epochs: int, _: Path) -> tuple[float, float]:
    """The least that any scheduler of processes can take here; (seconds, the trials' own seconds)."""
    from ablatrix.nursery import PRELOADED

    began = time.perf_counter()
    for module in PRELOADED:
        importlib.import_module(module)
    with multiprocessing.get_context("fork").Pool(AT_ONCE) as pool:
        seconds = [told["seconds"] for told in pool.map(train, [{"epochs": epochs, "seed": n} for n in range(TRIALS)], chunksize=1)]
    return time.perf_counter() - began, float(sum(seconds))


def by_us(epochs: int, place: Path) -> tuple[float, float]:
    """Our runner; its Ray's start is taken from the first look that it writes down."""
    from ablatrix.identity import trial_id
    from ablatrix.occupancy import read_occupancy
    from ablatrix.records import TrialRecipe
    from ablatrix.runner import Runner
    from ablatrix.schema import Resources
    from ablatrix.store import Store

    store, made = Store(place), recipe(epochs)
    sweep = store.sweep("overhead")
    sweep.path.mkdir(parents=True)
    trials = [trial_id(made, seed, "digits") for seed in range(TRIALS)]
    for seed, trial in enumerate(trials):
        store.trial(trial).create(TrialRecipe(trial, seed, "digits", made.as_mapping()))
    runner = Runner(store, sweep, Resources(), AT_ONCE)
    runner.start(trials)
    while read_occupancy(sweep) is None and runner.running:
        time.sleep(0.05)
    standing = time.perf_counter()
    while runner.running and not (runner.dispatch and runner.dispatch.over):
        time.sleep(0.02)
    took = time.perf_counter() - standing
    runner.join()
    if runner.error:
        raise runner.error
    results = [store.trial(trial).result() for trial in trials]
    return took, float(sum(result.seconds for result in results if result))


CASES = {"us": by_us, "tune": by_ray_tune, "pool": by_pool}


def one(case: str, epochs: int) -> dict[str, float]:
    """Seconds of one sweep, in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--case", case, "--epochs", str(epochs)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(ended.stdout.splitlines()[-1])
    return {"whole": time.perf_counter() - began, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=list(CASES))
    parser.add_argument("--epochs", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.case:
        with tempfile.TemporaryDirectory(prefix="overhead-", ignore_cleanup_errors=True) as place:
            sweep, work = CASES[arguments.case](arguments.epochs, Path(place))
        print(json.dumps({"sweep": sweep, "ideal": work / AT_ONCE}))
        return
    epochs = arguments.epochs or epochs_of_three_seconds()
    print(f"{TRIALS} trials of {epochs} epochs, {AT_ONCE} at a time, {arguments.rounds} rounds, load {os.getloadavg()[0]:.1f}", flush=True)
    found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    for number in range(arguments.rounds):
        for case in list(CASES)[:: 1 if number % 2 == 0 else -1]:
            found[case].append(one(case, epochs))
            print(f"round {number} {case}: " + ", ".join(f"{k} {v:.1f} s" for k, v in found[case][-1].items()), flush=True)
    report(found)


def report(found: dict[str, list[dict[str, float]]]) -> None:
    """Medians of the paired ratios, against the bars."""
    us, tune, pool = (found[case] for case in CASES)
    for window in ("whole", "sweep"):
        tell(f"{window}: {{}} of Ray Tune's time", [mine[window] / its[window] for mine, its in zip(us, tune, strict=True)], 0.5)
    tell("whole: {} times the bare pool", [mine["whole"] / its["whole"] for mine, its in zip(us, pool, strict=True)], 1.35)
    tell("sweep: {} times the trials' own seconds by two", [mine["sweep"] / mine["ideal"] for mine in us], 1.35)
    tell("whole: {} times the trials' own seconds by two", [mine["whole"] / mine["ideal"] for mine in us])
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def tell(what: str, ratios: list[float], bar: float | None = None) -> None:
    ratio = float(np.median(ratios))
    judged = "" if bar is None else f" (bar {bar:.2f}: {'passed' if ratio <= bar else 'failed'})"
    print(what.format(f"{ratio:.2f}") + judged)


if __name__ == "__main__":
    main()
