"""Pixels as targets: patches as vectors, their norm, and MAE's loss (He et al. 2022, sections 3 and 4.1; methods 1.6)."""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCE_EPS = 1e-6


def patchify(images: Tensor, patch: int) -> Tensor:
    """(batch, 3, size, size) to (batch, patches, patch * patch * 3), ordered by row, then column in the patch, then channel."""
    batch, channels, height, width = images.shape
    tiles = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def norm_patches(patches: Tensor) -> Tensor:
    """Each patch to mean 0 and (unbiased) variance 1 over its pixels and channels; (..., values)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + VARIANCE_EPS).sqrt()


def pixel_loss(prediction: Tensor, target: Tensor, scored: Tensor | None = None) -> Tensor:
    """Mean squared error of (batch, patches, values) over the patches that `scored` (batch, patches) marks, or over all; a scalar."""
    errors = (prediction.to(torch.promote_types(prediction.dtype, torch.float32)) - target.detach()).square().mean(dim=-1)
    return errors.mean() if scored is None else (errors * scored).sum() / scored.sum()
