"""A split as numpy arrays, and the order of its images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablatrix_models.data.layout import Split
from ablatrix_models.data.places import DataError
from ablatrix_models.recipe.data import Data


@dataclass(frozen=True)
class Arrays:
    """images: (n, 3, height, width) uint8. labels: (n,) int64. classes: names by label."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def interleaved(self) -> Arrays:
        """The same images with the classes taking turns."""
        order = turns(self.labels)
        return Arrays(self.images[order], self.labels[order], self.classes)


def turns(labels: np.ndarray) -> np.ndarray:
    """The order in which classes take turns, each in its own order, so that every prefix is as balanced as can be.

    labels: (n,) integers. Returns (n,) indices; the first k * classes hold k of each class while all have that many.
    """
    by_class = np.argsort(labels, kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.lexsort((labels, rank))


def wanted(config: Data, split: Split, total: int) -> int:
    """How many of a split's `total` images are used; raises DataError where the recipe asks for more."""
    limit = config.limit(split)
    if limit is not None and limit > total:
        raise DataError(
            f"data.{split}_images is {limit}, but the {split} split of {config.name!r} holds {total}. Use {total} or less, or leave it out."
        )
    return total if limit is None else limit
