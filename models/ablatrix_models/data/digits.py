"""The 1,797 handwritten digits that scikit-learn ships (UCI optical recognition, test part): real, 8 x 8, grey."""

from __future__ import annotations

import gzip
import zlib

import numpy as np

from ablatrix_models.data.arrays import Arrays
from ablatrix_models.data.layout import Source, Split
from ablatrix_models.data.places import DataError

TEST_SHARE = 0.2


def read_digits(source: Source, split: Split) -> Arrays:
    """Test: the last 20 % of each class in the file's order (rounded), train: the rest; classes take turns.

    Grey 0..16 is scaled to 0..255, rounded, and repeated in three channels.
    """
    path = source.parts[split][0]
    try:
        with gzip.open(path, "rt", encoding="ascii") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
        grey, labels = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1]
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}). Install scikit-learn again.") from error
    kept = _test_rows(labels) if split == "test" else ~_test_rows(labels)
    pixels = np.rint(grey[kept] * (255 / 16)).astype(np.uint8)
    return Arrays(np.repeat(pixels, 3, axis=1), labels[kept], tuple("0123456789")).interleaved()


def _test_rows(labels: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        of_class = np.flatnonzero(labels == label)
        rows[of_class[len(of_class) - round(len(of_class) * TEST_SHARE) :]] = True
    return rows
