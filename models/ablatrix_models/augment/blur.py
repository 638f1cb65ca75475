"""Gaussian blur of a batch, each image with its own width, as two matrix products."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ablatrix_models.augment.colour import on_rows
from ablatrix_models.augment.parameters import Parameters

_REACH = 4.0  # the kernel ends at this many of the largest sigma; 6e-5 of a Gaussian lies beyond


def blur(images: Tensor, parameters: Parameters, largest_sigma: float) -> Tensor:
    """Blur the chosen images in place; equals torchvision's `gaussian_blur` with 2 * `radius` + 1 taps, borders reflected.

    images: float (batch, 3, height, width). Pillow's blur in the official 224-pixel code approximates a Gaussian by three
    boxes and repeats the border instead; the two differ by about one grey level.
    """
    rows = torch.nonzero(parameters.blur)[:, 0]
    sigma = parameters.blur_sigma[rows].to(images, non_blocking=True)
    return on_rows(images, rows, lambda chosen: _blur(chosen, sigma, largest_sigma))


def radius(largest_sigma: float, pixels: int) -> int:
    """Taps on either side of the centre: 4 sigma, and never more than one reflection can serve."""
    return min(math.ceil(_REACH * largest_sigma), pixels - 1)


def _blur(images: Tensor, sigma: Tensor, largest_sigma: float) -> Tensor:
    batch, channels, height, width = images.shape
    columns = _weights(sigma, radius(largest_sigma, width), width)
    rows = columns if height == width else _weights(sigma, radius(largest_sigma, height), height)
    across = torch.bmm(images.reshape(batch, channels * height, width), columns.mT).view(batch, channels, height, width)
    return torch.stack([torch.bmm(rows, across[:, channel]) for channel in range(channels)], dim=1)


def _weights(sigma: Tensor, reach: int, pixels: int) -> Tensor:
    """(batch, pixels, pixels): row u holds what each source pixel gives to output pixel u."""
    tap = torch.arange(reach + 1, dtype=sigma.dtype, device=sigma.device)
    kernel = torch.exp(-0.5 * (tap / sigma[:, None]) ** 2)
    kernel *= kernel > 1e-9  # narrow kernels end in denormal numbers, which slow the products down tenfold
    kernel /= 2 * kernel.sum(dim=1, keepdim=True) - 1  # the centre counts once
    return (kernel @ _shifts(reach, pixels, sigma.device)).view(-1, pixels, pixels)


@functools.lru_cache(maxsize=8)
def _shifts(reach: int, pixels: int, device: torch.device) -> Tensor:
    """(reach + 1, pixels * pixels): entry (t, u, v) counts how often v lies t pixels beside u on the reflected axis."""
    target = torch.arange(pixels)
    shifts = torch.zeros(reach + 1, pixels, pixels)
    for tap in range(-reach, reach + 1):
        source = (target + tap).abs()
        source = torch.where(source < pixels, source, 2 * (pixels - 1) - source)
        shifts[abs(tap), target, source] += 1
    return shifts.flatten(1).to(device)
