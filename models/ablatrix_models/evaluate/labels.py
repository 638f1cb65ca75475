"""Stratified subsets of labelled images, drawn from a seed that the protocol fixes.

Every trial of a sweep sees the same subsets, so that cells stay paired; the trial's own seed plays no part.
"""

from __future__ import annotations

import torch
from torch import Tensor

PROTOCOL_SEED = 0


def protocol_generator() -> torch.Generator:
    """A fresh generator at the protocol's seed, on the CPU whatever the device, so that subsets agree everywhere."""
    return torch.Generator().manual_seed(PROTOCOL_SEED)


def per_class(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Ascending indices of `count` random images of every class present in `labels` (images,), or all where a class has fewer.

    From the same generator state, a smaller `count` gives a subset of a larger one.
    """
    sizes = torch.bincount(labels.cpu())
    return _draw(labels.cpu(), sizes, torch.full_like(sizes, count), generator)


def share_of(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Ascending indices of a random `share` (0..1) of every class's images: rounded to the nearest, and at least one."""
    sizes = torch.bincount(labels.cpu())
    return _draw(labels.cpu(), sizes, (sizes.double() * share).round().long().clamp(min=1), generator)


def _draw(labels: Tensor, sizes: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = torch.arange(len(labels)) - starts
    return by_class[rank < wanted.repeat_interleave(sizes)].sort().values
