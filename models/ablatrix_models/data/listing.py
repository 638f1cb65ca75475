"""A split whose images are still encoded: their labels, and a way to read them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Where an image stands, for messages, and its encoded bytes or the file that holds them; None where it has none.
Encoded = tuple[str, bytes | Path | None]


@dataclass(frozen=True)
class Listing:
    """labels: (n,) int64. classes: names by label. first: the first k images, encoded, in the labels' order."""

    labels: np.ndarray
    classes: tuple[str, ...]
    first: Callable[[int], Iterator[Encoded]]

    def __len__(self) -> int:
        return len(self.labels)
