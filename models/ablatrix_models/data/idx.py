"""Fashion-MNIST's four IDX files (LeCun's format), plain or compressed by gzip."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from ablatrix_models.data.arrays import Arrays
from ablatrix_models.data.layout import Source, Split
from ablatrix_models.data.places import DataError

UNSIGNED_BYTE = 8
FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def read_idx(source: Source, split: Split) -> Arrays:
    """Grey images repeated in three channels; classes take turns. Raises DataError naming the damaged file."""
    image_path, label_path = source.parts[split]
    grey, labels = _read(image_path, 3), _read(label_path, 1)
    if len(grey) != len(labels):
        raise DataError(f"{image_path} holds {len(grey)} images, but {label_path} {len(labels)} labels. Get the dataset again.")
    if len(labels) and labels.max() >= len(FASHION_CLASSES):
        raise DataError(
            f"{label_path} holds the label {labels.max()}, but there are {len(FASHION_CLASSES)} classes. Get the dataset again."
        )
    return Arrays(np.repeat(grey[:, None], 3, axis=1), labels.astype(np.int64), FASHION_CLASSES).interleaved()


def _read(path: Path, dimensions: int) -> np.ndarray:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}). Get it again.") from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, UNSIGNED_BYTE, dimensions)):
        raise DataError(f"{path} does not start as an IDX file of {dimensions} dimensions does. Get it again.")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).astype(np.int64)
    if len(content) - header != shape.prod():
        raise DataError(
            f"{path} holds {len(content) - header} values, but its header says {shape.prod()}: it is cut short or changed. Get it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
