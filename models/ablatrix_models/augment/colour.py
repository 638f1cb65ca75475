"""Colour transforms of a batch, each image with its own parameters; all of them change `images` in place.

images: float (batch, 3, height, width) in 0..1, RGB. The arithmetic is that of torchvision on float tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ablatrix_models.augment.parameters import CONTRAST, HUE, SATURATION, Parameters

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, with torchvision's digits


def luma(images: Tensor) -> Tensor:
    """Brightness of each pixel: (batch, height, width)."""
    red, green, blue = images.unbind(dim=1)
    return red.mul(LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def jitter(images: Tensor, parameters: Parameters) -> Tensor:
    """torchvision's ColorJitter: brightness, contrast, saturation and hue in each image's own order.

    Images whose turn is another transform, or that are not jittered, pass a turn with the ratio 1, which changes nothing.
    """
    ratios, mean_shares, pixel_shares = (share.to(images, non_blocking=True) for share in _blends(parameters))
    hue_turn = (parameters.order == HUE).int().argmax(dim=1).masked_fill_(~parameters.jitter, -1)
    for turn in range(4):
        grey_pixels = luma(images)
        of_mean = mean_shares[:, turn] * grey_pixels.mean(dim=(1, 2), keepdim=True)
        offset = grey_pixels.mul_(pixel_shares[:, turn]).add_(of_mean)
        images.mul_(ratios[:, turn, None]).add_(offset[:, None]).clamp_(0, 1)
        rows = torch.nonzero(hue_turn == turn)[:, 0]
        on_rows(images, rows, partial(_shift_hue, turns=parameters.hue[rows]))
    return images


def grey(images: Tensor, parameters: Parameters) -> Tensor:
    """Replace the chosen images by their luma in all three channels."""
    rows = torch.nonzero(parameters.grey)[:, 0]
    return on_rows(images, rows, lambda chosen: luma(chosen)[:, None].expand_as(chosen))


def solarize(images: Tensor, parameters: Parameters, threshold: float) -> Tensor:
    """Invert the pixels at or above `threshold` (0..1) of the chosen images."""
    rows = torch.nonzero(parameters.solarize)[:, 0]
    return on_rows(images, rows, lambda chosen: torch.where(chosen >= threshold, 1 - chosen, chosen))


def _blends(parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """What each turn computes, as clamp(ratio x + mean_share * mean luma + pixel_share * luma); each (batch, 4, 1, 1).

    torchvision blends r x + (1-r) y with y black for brightness, the image's mean luma for contrast, the pixel's luma for
    saturation. The ratio 1 stands for no blend at all.
    """
    factors = torch.stack([parameters.brightness, parameters.contrast, parameters.saturation, torch.ones(len(parameters))], dim=1)
    ratio = factors.gather(1, parameters.order).masked_fill_(~parameters.jitter[:, None], 1)
    contrast, saturation = ((1 - ratio) * (parameters.order == transform) for transform in (CONTRAST, SATURATION))
    return ratio[:, :, None, None], contrast[:, :, None, None], saturation[:, :, None, None]


def _shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the colour circle at constant value and chroma (HSV), without a round trip through hue sectors.

    Hue counts sixths of a turn: 0 is red, 2 green, -2 blue. With chroma C = max - min its size is 1 + (g + b - r - min)/C
    and its sign that of g - b. Back: a channel at hue c is min + C clamp(||h - c| - 3| - 1, 0, 1) for |h - c| <= 6.
    """
    red, green, blue = images.unbind(dim=1)
    low = images.amin(dim=1)
    chroma = images.amax(dim=1).sub_(low)
    size = green.add(blue).sub_(red).sub_(low).div_(chroma.clamp(min=1e-12)).add_(1)
    hue = torch.copysign(size, green - blue).add_(turns.mul(6).to(images, non_blocking=True)[:, None, None])
    hue.sub_(hue.div(6).round_(), alpha=6)
    places = torch.tensor([0.0, 2.0, -2.0]).to(images, non_blocking=True)[:, None, None]
    shifted = hue[:, None] - places
    shifted.abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return torch.addcmul(low[:, None], shifted, chroma[:, None])


def on_rows(images: Tensor, rows: Tensor, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Replace the images at `rows` by `transform` of them."""
    if len(rows):
        index = rows.to(images.device, non_blocking=True)
        images.index_copy_(0, index, transform(images.index_select(0, index)))
    return images
