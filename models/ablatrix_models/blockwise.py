"""Blockwise masks: BEiT's rectangles, accepted or rejected one by one (Bao et al. 2022, algorithm 1, as released; methods 1.3 and 2.1).

Until the target is reached: up to ten attempts at a rectangle whose area is uniform between `min_block` and what is still missing, and
whose aspect ratio is log-uniform in [0.3, 1/0.3]. It must be narrower and lower than the grid, and add at least one cell but no more than
are missing. Ten failures end the mask, so its count may stay below the target; nothing tops it up.
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
