"""What a recipe asks of the number of its workers. The number itself is no part of it: n workers compute what one does."""

from __future__ import annotations

from collections.abc import Iterator

from ablatrix_models.recipe.fields import Problem
from ablatrix_models.recipe.method import MoCo
from ablatrix_models.recipe.root import Recipe


def worker_problems(recipe: Recipe, workers: int) -> Iterator[Problem]:
    """Rules between a recipe and `workers` processes that train it together, with keys as seen from the recipe's root."""
    schedule, method = recipe.schedule, recipe.method
    if not schedule.epochs or workers == 1:
        return
    if schedule.part_size % workers:
        yield Problem(
            "schedule.batch_size",
            f"gives parts of {schedule.part_size} images, which {workers} workers cannot share equally. Use a multiple of {workers}.",
        )
    if isinstance(method, MoCo) and method.bn_splits > 1 and method.bn_splits % workers:
        yield Problem(
            "method.bn_splits",
            f"is {method.bn_splits}, whose groups {workers} workers cannot share equally. Use workers that divide it, or bn_splits 1.",
        )
