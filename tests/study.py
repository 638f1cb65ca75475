"""A sweep in a store for the tests of reports, written through the store's own code without training anything."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablatrix import shipped
from ablatrix.records import Report, Result, Status, TrialRecipe, encode, encode_report, write_atomically
from ablatrix.spec import read_recipe
from ablatrix.store import Store, TrialDirectory
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.overlay import overlay

VERSIONS = {"ablatrix": "0.1.0", "torch": "2.11.0"}


class Study:
    """A sweep in a store: `cell` ids are `axis=level,axis=level`; give trials a state, then `submit`."""

    def __init__(self, store: Store, axes: Mapping[str, Sequence[str]], *, seeds: Sequence[int] = (0, 1, 2), **plan: Any) -> None:
        self.store, self.seeds = store, list(seeds)
        metric = {"name": plan.pop("metric", "knn.top1"), "goal": plan.pop("goal", "max"), "take": plan.pop("take", "last")}
        rows = plan.pop("rows", list(axes))
        columns = plan.pop("columns", [a for a in axes if a not in rows])
        self.plan: dict[str, Any] = {
            "schema": 1,
            "sweep": "masks",
            "profile": None,
            "title": "Mask grid",
            "question": "How fine should the grid be?",
            "file": "masks.yaml",
            "commit": "0123456789abcdef",
            "dirty": False,
            "command": "ablatrix run masks.yaml",
            "metric": metric,
            "axes": [{"name": a, "keys": [f"mask.{a}"], "levels": list(levels)} for a, levels in axes.items()],
            "table": {"rows": rows, "columns": columns, "baseline": plan.pop("baseline", None), "published": None},
            "seeds": self.seeds,
            "cells": [],
        } | plan
        for levels in itertools.product(*axes.values()):
            self.add(dict(zip(axes, levels, strict=True)))

    def add(self, levels: dict[str, str], *, seeds: Sequence[int] | None = None, **cell: Any) -> None:
        """One more cell, as `include` would make it."""
        name = ",".join(f"{a}={level}" for a, level in levels.items())
        trials = [{"trial": self.trial_id(name, s), "seed": s} for s in (self.seeds if seeds is None else seeds)]
        plain = {"id": name, "levels": levels, "label": None, "included": False, "note": None, "excluded": None, "trials": trials}
        self.plan["cells"].append(plain | {"metric": self.plan["metric"]} | cell)

    def cell(self, name: str) -> dict[str, Any]:
        return next(c for c in self.plan["cells"] if c["id"] == name)

    @staticmethod
    def trial_id(cell: str, seed: int) -> str:
        return hashlib.sha256(f"{cell}/{seed}".encode()).hexdigest()[:16]

    def directory(self, cell: str, seed: int) -> TrialDirectory:
        directory = self.store.trial(self.trial_id(cell, seed))
        directory.create(TrialRecipe(directory.id, seed, "data", {}))
        return directory

    def give(self, cell: str, **changes: Any) -> None:
        """The cell's trials get MixMask's CIFAR recipe with these changes, `__` for dots."""
        plain = read_recipe("mixmask/moco-cifar", None, near=shipped.root())
        recipe = Recipe.read(overlay(plain, {key.replace("__", "."): value for key, value in changes.items()})).as_mapping()
        for seed in self.seeds:
            directory = self.directory(cell, seed)
            write_atomically(directory.path / "recipe.json", encode(TrialRecipe(directory.id, seed, "data", recipe)))

    def finish(self, cell: str, *values: float, seconds: float = 10.0, **metrics: float) -> None:
        """The first seeds of `cell` finish with these values of the metric."""
        for seed, value in zip(self.seeds, values, strict=False):
            directory = self.directory(cell, seed)
            directory.log.write_text("done\n")
            final = {self.plan["metric"]["name"]: value} | metrics
            directory.write_result(Result(directory.id, final, 1, seconds, 2, "node", "cpu", VERSIONS))

    def status(self, cell: str, seed: int, state: Any, *, cause: str | None = None, message: str | None = None) -> TrialDirectory:
        directory = self.directory(cell, seed)
        directory.log.write_text("…\n")
        status = Status(directory.id, state, 1, "node", pid=1, threads=2, started=100.0, updated=130.0, seconds=30.0, epoch=3, epochs=10)
        directory.write_status(replace(status, cause=cause, message=message))
        return directory

    def reports(self, cell: str, seed: int, *values: float, name: str = "knn.top1") -> None:
        """Lines of metrics.jsonl, one epoch each."""
        lines = [encode_report(Report(i, 10 * i, 100.0 + i, {name: v})) for i, v in enumerate(values)]
        with self.directory(cell, seed).metrics_file.open("a") as file:
            file.write("".join(lines))

    def submit(self) -> Store:
        self.store.sweep(self.plan["sweep"]).submit("schema: 1\n", self.plan)
        return self.store
