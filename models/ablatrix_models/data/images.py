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
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are {images.dtype} of shape {tuple(images.shape)}, but (n, 3, height, width) uint8 is needed.")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            rule = f"({len(images)},) int64 is needed, one per image"
            raise ValueError(f"labels are {labels.dtype} of shape {tuple(labels.shape)}, but {rule}.")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor | Sequence[int] | slice) -> ImageSet:
        """The images at `indices`, in that order, with all classes kept. A slice shares memory; indices copy."""
        chosen = indices if isinstance(indices, slice | Tensor) else torch.tensor(indices, dtype=torch.int64)
        return ImageSet(self.images[chosen], self.labels[chosen], self.classes)
