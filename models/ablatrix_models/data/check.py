"""Look at every image of a dataset: counts, balance, damage, and what train and test share."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from ablatrix_models.data.cache import LISTERS, stored_side
from ablatrix_models.data.decode import Failure, decoded
from ablatrix_models.data.fingerprint import fingerprint
from ablatrix_models.data.layout import Source, Split, find
from ablatrix_models.data.load import READERS
from ablatrix_models.recipe.data import Data


@dataclass(frozen=True)
class SplitReport:
    """images: readable ones. per_class: how many of each label. repeats: images equal to an earlier one of the split."""

    images: int
    per_class: tuple[int, ...]
    repeats: int


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. Images count as equal when every decoded pixel is.

    side: pixels per side as loaded. shared: test images that also stand in train. corrupt: what cannot be read, and why.
    """

    name: str
    place: str
    layout: str
    fingerprint: str
    classes: tuple[str, ...]
    side: int
    train: SplitReport
    test: SplitReport
    shared: int
    corrupt: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether every image can be read. Repeats and shared images are facts of the dataset, not damage."""
        return not self.corrupt

    def as_mapping(self) -> dict[str, Any]:
        """Plain nested values for JSON."""
        return asdict(self)


def check(config: Data) -> CheckReport:
    """Decode the whole dataset, whatever the recipe's limits, and report; raises DataError where it cannot be listed."""
    source = find(config)
    train, test = _Pass(config, source, "train"), _Pass(config, source, "test")
    in_train = set(train.digests)
    return CheckReport(
        name=config.name,
        place=str(source.place),
        layout=source.kind,
        fingerprint=fingerprint(config),
        classes=train.classes,
        side=train.side,
        train=train.report(),
        test=test.report(),
        shared=sum(digest in in_train for digest in test.digests),
        corrupt=(*train.corrupt, *test.corrupt),
    )


class _Pass:
    """One look at every image of a split."""

    def __init__(self, config: Data, source: Source, split: Split) -> None:
        self.labels: list[int] = []
        self.digests: list[bytes] = []
        self.corrupt: list[str] = []
        labels, self.classes, images, self.side = _pixels(config, source, split)
        progress = tqdm(images, f"checking {config.name} {split}", len(labels), unit="img", file=sys.stderr, disable=None)
        for label, image in zip(labels, progress, strict=True):
            if isinstance(image, Failure):
                self.corrupt.append(str(image))
            else:
                self.labels.append(int(label))
                self.digests.append(hashlib.blake2b(image.tobytes(), digest_size=16).digest())

    def report(self) -> SplitReport:
        per_class = np.bincount(np.array(self.labels, dtype=np.int64), minlength=len(self.classes))
        return SplitReport(len(self.labels), tuple(map(int, per_class)), len(self.digests) - len(set(self.digests)))


def _pixels(config: Data, source: Source, split: Split) -> tuple[np.ndarray, tuple[str, ...], Iterator[np.ndarray | Failure], int]:
    if source.kind in READERS:
        arrays = READERS[source.kind](source, split)
        return arrays.labels, arrays.classes, iter(arrays.images), arrays.images.shape[-1]
    listing, side = LISTERS[source.kind](source, split), stored_side(config, source)
    return listing.labels, listing.classes, decoded(listing.first(len(listing)), side), side
