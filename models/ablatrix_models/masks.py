"""Image masks of MixMask (Vishniakov et al. 2024, section 3.1; methods 2.1): 1 keeps the own pixel, 0 takes the partner's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ablatrix_models.blockwise import blockwise_cells
from ablatrix_models.draws import draws_from
from ablatrix_models.recipe.mask import Mask

# A ratio nearer to 0 or 1 than this over the number of cells leaves one odd cell in 99 of 100 masks anyway; the bound keeps redraws few.
RATIO_MARGIN = 1e-2


def sample_cells(config: Mask, count: int, generator: torch.Generator) -> Tensor:
    """`count` independent masks, (count, grid, grid) bool on the CPU, a function of `config` and `generator`'s state alone.

    A ratio given as [a, b] is drawn anew for each mask.
    """
    if count < 1:
        raise ValueError(f"count is {count}, but at least one mask must be drawn. Pass 1 for `per: step`, the batch size for `per: image`.")
    ratios = _sample_ratios(config, count, generator)
    if config.kind == "discrete":
        return discrete_cells(ratios, config.grid, lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64))
    targets = (ratios * config.grid**2).floor().clamp(min=1)
    # One by one: drawing all masks as lanes of one tensor was 0.6 to 2 times as fast, for 128 to 512 masks of grids 4 to 16.
    draws = draws_from(generator)
    return torch.stack([blockwise_cells(config.grid, int(target), config.min_block, draws) for target in targets.tolist()])


def _sample_ratios(config: Mask, count: int, generator: torch.Generator) -> Tensor:
    if not isinstance(config.ratio, tuple):
        return torch.full((count,), config.ratio, dtype=torch.float64)
    low, high = config.ratio
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)


def discrete_cells(ratios: Tensor, grid: int, uniform: Callable[..., Tensor]) -> Tensor:
    """Independent cells, each 1 with probability 1 - ratio; masks that are all 0 or all 1 are redrawn.

    ratios: (count,). uniform: gives float64 draws in [0, 1) of the shape it is called with. Returns (count, grid, grid) bool.
    The released `mask_lam` is the share *taken* from the partner here, but the share kept by blocked masks (methods 2.1).
    """
    margin = RATIO_MARGIN / grid**2
    thresholds = ratios.clamp(margin, 1 - margin)[:, None, None]
    cells = uniform(len(ratios), grid, grid) > thresholds
    pending = torch.nonzero(_constant(cells)).flatten()
    while len(pending):
        redrawn = uniform(len(pending), grid, grid) > thresholds[pending]
        cells[pending] = redrawn
        pending = pending[_constant(redrawn)]
    return cells


def _constant(cells: Tensor) -> Tensor:
    flat = cells.flatten(1)
    return flat.all(1) | ~flat.any(1)


def upsample(cells: Tensor, size: int) -> Tensor:
    """Nearest-neighbour pixels of `cells`: (count, grid, grid) to (count, 1, size, size), same dtype and device.

    Pixel p shows cell floor(p * grid / size), in integers, so it holds where the grid does not divide the size too.
    """
    grid = cells.shape[-1]
    if size < grid:
        raise ValueError(f"size is {size} pixels, fewer than the {grid} cells a side of the mask. Use a grid of {size} or less.")
    cell = torch.arange(size, device=cells.device) * grid // size
    return cells.index_select(1, cell).index_select(2, cell).unsqueeze(1)


def pixel_share(mask: Tensor) -> Tensor:
    """Lambda: the share of ones among each mask's pixels, (count, 1, size, size) to (count,) float32.

    The share of *cells* differs from it where the grid does not divide the size.
    """
    return mask.flatten(1).sum(dim=1) / mask[0].numel()
