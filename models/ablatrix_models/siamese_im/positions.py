"""Sine-cosine codes of patch positions, fixed and relative (methods 1.2). Rows come before columns, unlike in MAE's code."""

from __future__ import annotations

import torch
from torch import Tensor

from ablatrix_models.augment.geometry import RelativeGeometry

PERIOD = 10_000.0
LOG_SCALE = 10.0  # log ratios of box sizes are spread by this before they are encoded


def sincos(values: Tensor, dim: int) -> Tensor:
    """All sines, then all cosines, of `values` times dim/2 frequencies from 1 down: (..., dim) float32 (Vaswani et al. 2017, 3.5).

    Angles are taken in float64, where far positions keep their digits.
    """
    half = dim // 2
    frequencies = PERIOD ** (-torch.arange(half, dtype=torch.float64, device=values.device) / half)
    angles = values.double()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


def fixed_embedding(grid: int, dim: int) -> Tensor:
    """The code of every patch's own place: (patches, dim) float32; `dim` must be a multiple of 4."""
    if dim % 4:
        raise ValueError(f"dim is {dim}, but sine and cosine of rows and columns need a multiple of 4.")
    line = torch.arange(grid)
    return _grid_code(line[None], line[None], dim)[0]


def relative_embedding(geometry: RelativeGeometry, grid: int, dim: int) -> Tensor:
    """The code of view b's patches seen from view a, before the linear layer: (batch, patches, 2 * dim) float32.

    The first half is the code of the position, the second, equal for all patches of an image, that of the boxes' log size ratios.
    """
    rows, columns = geometry.positions(grid)
    places = _grid_code(rows, columns, dim)
    ratios = [sincos(LOG_SCALE * scale.log(), dim // 2) for scale in (geometry.row_scale, geometry.column_scale)]
    sizes = torch.cat(ratios, dim=-1)[:, None].expand_as(places)
    return torch.cat([places, sizes], dim=-1)


def _grid_code(rows: Tensor, columns: Tensor, dim: int) -> Tensor:
    """Row and column codes of every pair: two (batch, grid) to (batch, patches, dim)."""
    grid = rows.shape[1]
    row = sincos(rows, dim // 2)[:, :, None].expand(-1, -1, grid, -1)
    column = sincos(columns, dim // 2)[:, None].expand(-1, grid, -1, -1)
    return torch.cat([row, column], dim=-1).flatten(1, 2)
