"""A small sweep as it lies in a store, written with the store's own records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablatrix.records import Environment, Report, Result, Status, TrialRecipe, Usage, encode_report, encode_usage
from ablatrix.store import Store, TrialDirectory

SWEEP = "grid-sweep"
START = 1_732_273_000.0
METRIC = {"name": "knn.top1", "goal": "max", "take": "last"}
DATA = {"name": "cifar100", "path": None, "image_size": 32, "train_images": 5000}
RECIPE = {"mask": {"grid": 2, "kind": "random"}, "mixing": None, "sizes": [32, 64], "data": DATA}
ENVIRONMENT = Environment(1, "node-1", "Fast CPU", 8, [], "def5678", True, {"torch": "2.15", "python": "3.11"})


def trial_id(number: int) -> str:
    return f"{number:016x}"


def plan(grids: Iterable[str] = ("2", "4"), seeds: Iterable[int] = (0, 1), sweep: str = SWEEP, **changes: Any) -> dict[str, Any]:
    """Trials are numbered cell by cell, seed by seed."""
    grids, seeds = list(grids), list(seeds)
    numbers = iter(range(10_000))
    cells = [
        {
            "id": f"grid={grid}", "levels": {"grid": grid}, "label": None, "included": False, "note": None, "excluded": None,
            "trials": [{"trial": trial_id(next(numbers)), "seed": seed} for seed in seeds], "metric": METRIC,
        }
        for grid in grids
    ]  # fmt: skip
    return {
        "schema": 1, "sweep": sweep, "profile": None, "title": "Mask grid", "question": "How fine?", "file": "grid.yaml",
        "commit": "abc1234", "dirty": False, "command": "ablatrix run grid.yaml", "metric": METRIC,
        "axes": [{"name": "grid", "keys": ["mask.grid"], "levels": grids}],
        "table": {"rows": ["grid"], "columns": [], "baseline": None, "published": None},
        "seeds": seeds, "cells": cells, **changes,
    }  # fmt: skip


def submit(root: Path, name: str = SWEEP, **changes: Any) -> Store:
    store = Store(root)
    store.sweep(name).submit(f"sweep: {name}\n", plan(**changes))
    return store


def begin(store: Store, number: int, seed: int = 0, attempt: int = 1) -> TrialDirectory:
    """The trial is running, and has reported nothing yet."""
    trial = store.trial(trial_id(number))
    trial.create(TrialRecipe(trial.id, seed, "data-1", RECIPE))
    began = START + number
    trial.write_status(Status(trial.id, "running", attempt, "node-1", 7, 1, started=began, updated=began))
    return trial


def use(trial: TrialDirectory, seconds: Iterable[float]) -> None:
    """Append a sample of the machine at each second of work."""
    with trial.usage_file.open("a") as file:
        for second in seconds:
            file.write(encode_usage(Usage(second, START + second, {"cpu_percent": 90.0, "memory_mb": 700.0 + second})))


def report(trial: TrialDirectory, epochs: Iterable[int], late_s: float = 0.0) -> None:
    """Append a line for each epoch; a later attempt writes equal values at later times."""
    with trial.metrics_file.open("a") as file:
        for epoch in epochs:
            values = {"train.loss": 5.0 / epoch, "knn.top1": 50.0 + epoch + int(trial.id, 16)}
            file.write(encode_report(Report(epoch, 27 * epoch, START + 60 * epoch + late_s, values)))


def keep_lines(trial: TrialDirectory, count: int) -> None:
    """Cut the reports back, as a resumed attempt does."""
    lines = trial.metrics_file.read_text().splitlines(keepends=True)
    trial.metrics_file.write_text("".join(lines[:count]))


def end(trial: TrialDirectory, state: str = "finished", epochs: int = 3, **changes: Any) -> None:
    status = trial.status()
    assert status is not None
    if state == "finished":
        metrics = {"knn.top1": 50.0 + epochs + int(trial.id, 16)}
        trial.write_result(Result(trial.id, metrics, status.attempt, 60.0, 1, "node-1", "cpu", {"torch": "2.15", "python": "3.11"}))
    ended = START + 60 * epochs + 5
    trial.write_status(dataclasses.replace(status, **{"state": state, "updated": ended, "ended": ended, **changes}))


def finish(store: Store, number: int, seed: int = 0, epochs: int = 3) -> TrialDirectory:
    trial = begin(store, number, seed)
    report(trial, range(1, epochs + 1))
    end(trial, epochs=epochs)
    return trial
