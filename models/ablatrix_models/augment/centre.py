"""Images as evaluation sees them: whole, or their centre; nothing random."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

_CHUNK = 256  # images held as floats at their native size at once


def centre(images: Tensor, size: int, resize: int | None = None, interpolation: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
    """Resize (antialiased), then cut the centre square out.

    images: uint8 (batch, 3, height, width). `resize` is the new length of the shorter side (256 before a 224-pixel crop in
    the ImageNet protocols); without it the images must be square and are resized to `size` whole.
    Returns float32 (batch, 3, size, size) in 0..1, on the images' device; torchvision's Resize and CenterCrop, without
    their rounding to whole grey levels. Raises ValueError where the square would leave the image.
    """
    height, width = images.shape[2:]
    if resize is None and height != width:
        raise ValueError(
            f"images of {height} x {width} pixels are not square. Give `resize`, the length of the shorter side, to take their centre."
        )
    short = size if resize is None else resize
    if short < size:
        raise ValueError(f"a centre of {size} pixels does not fit images resized to {short}. Use a resize of {size} or more.")
    shape = (short * height // min(height, width), short * width // min(height, width))
    top, left = (round((length - size) / 2) for length in shape)
    results = []
    for part in images.split(_CHUNK):
        whole = part.to(torch.float32).div_(255)
        if shape != (height, width):
            whole = interpolate(whole, size=shape, mode=interpolation, antialias=True, align_corners=False).clamp_(0, 1)
        results.append(whole[:, :, top : top + size, left : left + size])
    return torch.cat(results)
