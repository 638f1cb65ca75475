"""Crop, resize and flip a batch at once: antialiased resampling as two matrix products per image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ablatrix_models.augment.parameters import Parameters

Interpolation = Literal["bilinear", "bicubic"]


def crop(images: Tensor, parameters: Parameters, size: int, interpolation: Interpolation, *, flip_first: bool = False) -> Tensor:
    """Cut each image's box out, resize it to `size` x `size` with antialiasing, mirror it where drawn.

    images: float (batch, 3, height, width) in 0..1. Returns (batch, 3, size, size) in 0..1. Equals torchvision's
    `resized_crop(antialias=True)` on float tensors: pixels outside the box never enter. O(batch * size * (height + size) * width).
    """
    batch, channels, height, width = images.shape
    left = parameters.left
    if flip_first:
        left = torch.where(parameters.flip, width - left - parameters.width, left)
    columns = _weights(left, parameters.width, parameters.flip, width, size, interpolation, images)
    rows = _weights(parameters.top, parameters.height, None, height, size, interpolation, images)
    # Columns before rows, as Pillow does it; the order shows only where bicubic overshoots and is cut off.
    narrow = torch.bmm(images.reshape(batch, channels * height, width), columns.mT).view(batch, channels, height, size)
    if interpolation == "bicubic":
        narrow.clamp_(0, 1)
    result = torch.empty(batch, channels, size, size, dtype=images.dtype, device=images.device)
    for channel in range(channels):  # one product per channel spares a copy of the weights for each
        result[:, channel] = torch.bmm(rows, narrow[:, channel])
    return result.clamp_(0, 1)


def _weights(
    start: Tensor, length: Tensor, mirrored: Tensor | None, pixels: int, size: int, interpolation: Interpolation, like: Tensor
) -> Tensor:
    """(batch, size, pixels): how much of each source pixel along one axis goes into each output pixel.

    The filter is stretched by the reduction length/size where that is above 1 (antialiasing) and its rows sum to one.
    """
    scale = (length / size).to(like, non_blocking=True)[:, None]
    stretch = scale.clamp(min=1)
    target = torch.arange(size, dtype=like.dtype, device=like.device) + 0.5
    if mirrored is not None:
        target = torch.where(mirrored.to(like.device, non_blocking=True)[:, None], size - target, target)
    centres = target * (scale / stretch)
    place = torch.arange(pixels) - start[:, None]
    outside = (place < 0) | (place >= length[:, None])
    source = (place + 0.5).masked_fill_(outside, torch.inf).to(like, non_blocking=True) / stretch
    distance = (source[:, None, :] - centres[:, :, None]).abs_()
    weights = _triangle(distance) if interpolation == "bilinear" else _keys(distance)
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _triangle(distance: Tensor) -> Tensor:
    """Linear interpolation's filter of distances >= 0, in place."""
    return distance.neg_().add_(1).clamp_(min=0)


def _keys(distance: Tensor) -> Tensor:
    """Cubic convolution of distances >= 0 (Keys 1981, eq. 4) with a = -0.5, which Pillow and torch use where they antialias."""
    d = distance.clamp_(max=2)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d < 1, near, far)
