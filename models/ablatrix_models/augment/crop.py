"""Crop, resize and flip a batch at once: antialiased resampling as two matrix products per image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ablatrix_models.augment.parameters import Parameters

Interpolation = Literal["bilinear", "bicubic"]

_LEVELS = 255.0


def crop(images: Tensor, parameters: Parameters, size: int, interpolation: Interpolation, *, flip_first: bool = False) -> Tensor:
    """Cut each image's box out, resize it to `size` x `size` with antialiasing, mirror it where drawn.

    images: float (batch, 3, height, width) in 0..1. Returns (batch, 3, size, size) in 0..1. Equals torchvision's
    `resized_crop(antialias=True)` and `horizontal_flip`, on bytes and in Pillow: pixels outside the box never enter, and the
    columns are rounded to whole grey levels before the rows are resampled. O(batch * size * (height + size) * width).
    """
    batch, channels, height, width = images.shape
    rows, columns = resampling(parameters, height, width, size, interpolation, images, flip_first=flip_first)
    # Grey levels 0..255 between the two products; the weights carry the units, which saves two passes over the pixels.
    narrow = torch.bmm(images.reshape(batch, channels * height, width), columns.mul_(_LEVELS).mT).view(batch, channels, height, size)
    narrow.add_(0.5).floor_()  # halves go up, as they do there
    if interpolation == "bicubic":  # overshoots
        narrow.clamp_(0, _LEVELS)
    rows.div_(_LEVELS)
    result = torch.empty(batch, channels, size, size, dtype=images.dtype, device=images.device)
    for channel in range(channels):  # one product per channel spares a copy of the weights for each
        result[:, channel] = torch.bmm(rows, narrow[:, channel])
    return result.clamp_(0, 1)


def resampling(
    parameters: Parameters, height: int, width: int, size: int, interpolation: Interpolation, like: Tensor, *, flip_first: bool = False
) -> tuple[Tensor, Tensor]:
    """The weights (rows, columns) of which `crop` is rows @ image @ columns^T.

    rows: (batch, size, height). columns: (batch, size, width). Both of `like`'s type and device; each row sums to one.
    """
    left = parameters.left
    if flip_first:
        left = torch.where(parameters.flip, width - left - parameters.width, left)
    columns = _weights(left, parameters.width, parameters.flip, width, size, interpolation, like)
    return _weights(parameters.top, parameters.height, None, height, size, interpolation, like), columns


def _weights(
    start: Tensor, length: Tensor, mirrored: Tensor | None, pixels: int, size: int, interpolation: Interpolation, like: Tensor
) -> Tensor:
    """(batch, size, pixels): how much of each source pixel along one axis goes into each output pixel.

    The filter is stretched by the reduction length/size where that is above 1, which is the antialiasing.
    """
    scale = (length.double() / size).to(like, non_blocking=True)[:, None]
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
