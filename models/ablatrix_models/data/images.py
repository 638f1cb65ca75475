"""A split of a dataset, as the training loop and the evaluations see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Labelled images, all of one size.

    images: (n, 3, height, width) uint8 RGB, in memory or memory-mapped. labels: (n,) int64, indices into `classes`.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise ValueError(f"images are {self.images.dtype} of shape {tuple(self.images.shape)}, but (n, 3, height, width) uint8 is needed")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels are {self.labels.dtype} of shape {tuple(self.labels.shape)}, but ({len(self.images)},) int64 is needed, one per image"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor | Sequence[int] | slice) -> ImageSet:
        """The images at `indices`, in that order, with all classes kept. A slice shares memory; indices copy."""
        chosen = indices if isinstance(indices, slice | Tensor) else torch.tensor(indices, dtype=torch.int64)
        return ImageSet(self.images[chosen], self.labels[chosen], self.classes)
