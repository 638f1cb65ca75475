"""Blockwise masks: BEiT's rectangles, accepted and rejected one by one, or for many masks at once.

Both samplers follow the same rules (Bao et al. 2022, algorithm 1, as released; methods 1.3 and 2.1) and agree in law. Until the target is
reached: up to ten attempts at a rectangle whose area is uniform between `min_block` and what is still missing, and whose aspect ratio
is log-uniform in [0.3, 1/0.3]. It must be narrower and lower than the grid, and add at least one cell but no more than are missing. Ten
failures end the mask, so its count may stay below the target; nothing tops it up.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ablatrix_models.draws import Draws

ATTEMPTS = 10
LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))


def blockwise_cells(grid: int, target: int, min_block: int, draws: Draws) -> Tensor:
    """One mask, (grid, grid) bool, with at most `target` cells set; draws in the order of the released code."""
    cells = np.zeros((grid, grid), dtype=np.bool_)
    missing = target
    while missing > 0 and (added := _add_rectangle(cells, missing, min_block, draws)):
        missing -= added
    return torch.from_numpy(cells)


def _add_rectangle(cells: np.ndarray, missing: int, min_block: int, draws: Draws) -> int:
    """Set the first acceptable rectangle in place; the number of cells it added, 0 when all attempts failed."""
    grid = len(cells)
    for _ in range(ATTEMPTS):
        area = draws.uniform(min_block, missing)
        aspect = math.exp(draws.uniform(*LOG_ASPECT))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= grid or width >= grid:
            continue
        top, left = draws.randint(0, grid - height), draws.randint(0, grid - width)
        rectangle = cells[top : top + height, left : left + width]
        added = height * width - int(np.count_nonzero(rectangle))
        if 0 < added <= missing:
            rectangle[:] = True
            return added
    return 0


def blockwise_lanes(grid: int, targets: Tensor, min_block: int, generator: torch.Generator) -> Tensor:
    """Many masks at once, (lanes, grid, grid) bool; `targets` (lanes,) counts cells.

    A round draws all ten attempts of every unfinished lane and takes the first that is acceptable. Attempts are independent given
    the mask so far, so that is the sequential law. Rounds are as many as the most rectangles in one mask, about ten.
    """
    cells = torch.zeros(len(targets), grid, grid)
    missing = targets.to(torch.float64)
    active = torch.nonzero(missing > 0).flatten()
    while len(active):
        rows, columns, area, inside = _propose(grid, missing[active], min_block, generator)
        added = area - (torch.bmm(rows, cells[active]) * columns).sum(-1)
        accepted = inside & (added > 0) & (added <= missing[active, None])
        first = accepted.int().argmax(dim=1)
        kept = torch.nonzero(accepted.any(dim=1)).flatten()
        active, first = active[kept], first[kept]
        cells[active] = torch.maximum(cells[active], rows[kept, first][:, :, None] * columns[kept, first][:, None, :])
        missing[active] -= added[kept, first]
        active = active[missing[active] > 0]
    return cells.bool()


def _propose(grid: int, missing: Tensor, min_block: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rectangles a lane: indicators of their rows and columns (lanes, 10, grid), areas and whether they fit (lanes, 10)."""
    uniform = torch.rand(4, len(missing), ATTEMPTS, generator=generator, dtype=torch.float64)
    area = min_block + (missing[:, None] - min_block) * uniform[0]
    aspect = torch.exp(LOG_ASPECT[0] + (LOG_ASPECT[1] - LOG_ASPECT[0]) * uniform[1])
    height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    rows = _span(uniform[2], height, grid)
    columns = _span(uniform[3], width, grid)
    return rows, columns, height * width, (height < grid) & (width < grid)


def _span(uniform: Tensor, length: Tensor, grid: int) -> Tensor:
    """1 on `length` consecutive cells of `grid`, starting at a uniform place: (lanes, 10, grid) float."""
    offset = torch.arange(grid, dtype=torch.float32) - (uniform * (grid - length + 1)).floor().float()[..., None]
    return ((offset >= 0) & (offset < length.float()[..., None])).float()
