"""Rotate a batch of images, each by its own angle."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def rotate(images: Tensor, angle_deg: Tensor) -> Tensor:
    """Rotate about the centre, counter-clockwise; bilinear, black outside, same size (torchvision's `rotate`).

    images: float (batch, 3, height, width). angle_deg: (batch,). Returns the same shape.
    """
    height, width = images.shape[2:]
    angle = torch.deg2rad(angle_deg).to(images)
    cosine, sine = angle.cos(), angle.sin()
    # The grid runs from -1 to 1 along both axes, so the off-diagonal terms carry the aspect ratio.
    zero = torch.zeros_like(angle)
    theta = torch.stack([cosine, -sine * height / width, zero, sine * width / height, cosine, zero], dim=1)
    grid = affine_grid(theta.view(-1, 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
