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
from ablatrix_models.recipe.data import Data

# Small and already pixels: read into memory each time. The other layouts are decoded, once, through the cache.
READERS: dict[str, Callable[[Source, Split], Arrays]] = {"digits": read_digits, "idx": read_idx, "cifar": read_cifar}


def load(config: Data, split: Split) -> ImageSet:
    """The recipe's images of `split` ('train' or 'test'): the first `train_images` or `test_images` of it.

    Sides are the dataset's own where all images share one, else `config.store_size`; resizing to `image_size` is the
    augmentation's. Classes take turns, so a prefix is stratified; parquet rows keep their order. Memory-mapped
    tensors are private copies on write: changing one never reaches the file. Raises DataError.
    """
    source = find(config)
    arrays = READERS[source.kind](source, split) if source.kind in READERS else cached(config, source, split)
    count = wanted(config, split, len(arrays.labels))
    return ImageSet(torch.from_numpy(arrays.images[:count]), torch.from_numpy(arrays.labels[:count]), arrays.classes)
