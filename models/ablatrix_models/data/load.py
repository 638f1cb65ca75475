"""A recipe's images as tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ablatrix_models.data.arrays import Arrays, wanted
from ablatrix_models.data.cache import cached
from ablatrix_models.data.cifar import read_cifar
from ablatrix_models.data.digits import read_digits
from ablatrix_models.data.idx import read_idx
from ablatrix_models.data.images import ImageSet
from ablatrix_models.data.layout import Source, Split, find
from ablatrix_models.data.places import DataError
from ablatrix_models.recipe.data import Data

# Small and already pixels: read into memory each time. The other layouts are decoded, once, through the cache.
READERS: dict[str, Callable[[Source, Split], Arrays]] = {"digits": read_digits, "idx": read_idx, "cifar": read_cifar}


def load(config: Data, split: Split) -> ImageSet:
    """The recipe's images of `split` ('train' or 'test'): the first `train_images` or `test_images` of it.

    With `held_out` the first of the training images are the test split, the rest is trained on, and the test images stay unread.
    Sides are the dataset's own where all images share one, else `config.store_size`; resizing to `image_size` is the
    augmentation's. Classes take turns, so a prefix is stratified; parquet rows keep their order. Memory-mapped
    tensors are private copies on write: changing one never reaches the file. Raises DataError.
    """
    source = find(config)
    read: Split = "train" if config.held_out else split
    arrays = READERS[source.kind](source, read) if source.kind in READERS else cached(config, source, read)
    rows = _rows(config, split, wanted(config, read, len(arrays.labels)))
    return ImageSet(torch.from_numpy(arrays.images[rows]), torch.from_numpy(arrays.labels[rows]), arrays.classes)


def _rows(config: Data, split: Split, count: int) -> slice:
    """Which of the `count` images that were read belong to `split`."""
    if not config.held_out:
        return slice(count)
    if config.trained_on(count) < 1:
        raise DataError(
            f"data.held_out is {config.held_out}, so none of the {count} training images of {config.name!r} is left. Use fewer."
        )
    return slice(config.held_out) if split == "test" else slice(config.held_out, count)
