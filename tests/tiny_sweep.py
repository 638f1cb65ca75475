"""A sweep of a second: a recipe and a sweep file that train next to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablatrix import document, plan, spec
from ablatrix.plan import Plan
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.overlay import overlay

RECIPE = """\
method: {name: moco, dim: 8, queue: 64, symmetric: false, bn_splits: 1}
backbone: {name: resnet18, width: 0.125}
data: {name: digits, image_size: 8, train_images: 64, test_images: 32}
mask: {kind: discrete, grid: 2}
mixing: mixmask
schedule: {epochs: 2, batch_size: 16}
evaluate: {knn: {features: backbone, k: 1}}
"""

# Tests count on these lines.
SWEEP = """\
schema: 1
sweep: tiny
title: "A tiny sweep"
recipe: tiny.yaml
axes:
  grid: {key: mask.grid, levels: [2, 4]}
seeds: 2
metric: {name: knn.top1}
"""


def tiny_recipe(**changes: Any) -> Recipe:
    """The recipe above; double underscores stand for dots."""
    return Recipe.read(overlay(plain_recipe(), {key.replace("__", "."): value for key, value in changes.items()}))


def plain_recipe() -> dict[str, Any]:
    """The recipe as the file has it."""
    return document.read_value("{" + ", ".join(RECIPE.splitlines()) + "}")


def write_sweep(place: Path, text: str = SWEEP, recipe: str = RECIPE) -> Path:
    """Both files in `place`; returns the sweep file."""
    (place / "tiny.yaml").write_text(recipe)
    path = place / "sweep.yaml"
    path.write_text(text)
    return path


def make_plan(place: Path, text: str = SWEEP, profile: str | None = None, recipe: str = RECIPE, **options: Any) -> Plan:
    """The plan of a sweep's text, on data of which nothing is read."""
    return plan.make(spec.load(write_sweep(place, text, recipe)), profile, lambda data: f"print of {data.name}", **options)


def problems_of(place: Path, text: str, recipe: str = RECIPE) -> list[tuple[int, str]]:
    """What `check` finds, as (line, message)."""
    from ablatrix.errors import SweepFileError

    try:
        found = plan.check(spec.load(write_sweep(place, text, recipe)))
    except SweepFileError as error:
        found = error.problems
    return [(problem.line, problem.message) for problem in found]
