"""Image folders: one directory per class below each split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ablatrix_models.data.arrays import turns
from ablatrix_models.data.layout import Source, Split
from ablatrix_models.data.listing import Encoded, Listing
from ablatrix_models.data.places import DataError
from ablatrix_models.data.tree import class_images


def list_folder(source: Source, split: Split) -> Listing:
    """The split's files, classes taking turns; the classes are train's, sorted by name.

    Raises DataError where a training class is empty, or a test class is unknown to training.
    """
    directory = source.parts["train"][0]
    train = class_images(directory)
    classes = tuple(sorted({name for name, _ in train}))
    empty = {entry.name for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith(".")} - set(classes)
    if empty:
        raise DataError(f"{directory / min(empty)} holds no image. Add some, or remove the directory.")
    found = train if split == "train" else class_images(source.parts["test"][0])
    unknown = sorted({name for name, _ in found} - set(classes))
    if unknown or not found:
        what = f"the class {unknown[0]!r}, which {directory} lacks" if unknown else "no image"
        raise DataError(f"{source.parts[split][0]} holds {what}. Give both splits the same classes.")
    return _listing(found, classes)


def _listing(found: list[tuple[str, Path]], classes: tuple[str, ...]) -> Listing:
    index = {name: label for label, name in enumerate(classes)}
    labels = np.array([index[name] for name, _ in found], dtype=np.int64)
    order = turns(labels)

    def first(count: int) -> Iterator[Encoded]:
        return ((str(found[row][1]), found[row][1]) for row in order[:count])

    return Listing(labels[order], classes, first)
