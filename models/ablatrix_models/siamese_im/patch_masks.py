"""Which patches of view a are removed: an exact count for every image, blockwise or independent (methods 1.3)."""

from __future__ import annotations

import random
from collections.abc import MutableSequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ablatrix_models.blockwise import blockwise_cells
from ablatrix_models.distributed import own_rows, world_size
from ablatrix_models.draws import Draws, draw_seed
from ablatrix_models.recipe.patch_mask import PatchMask


class ShufflingDraws(Draws, Protocol):
    """`Draws` that can also put a list in random order, as `random.Random` does."""

    def shuffle(self, x: MutableSequence[Any], /) -> None:
        """Reorder `x` in place."""
        ...


def sample_removed(config: PatchMask, count: int, grid: int, generator: torch.Generator) -> Tensor:
    """Masks for `count` images: (count, patches) bool on the CPU, True where removed; a function of the generator's state.

    The images are this rank's own of a global batch, whose masks are all drawn.
    """
    return own_rows(_sample(config, count * world_size(), grid, generator))


def _sample(config: PatchMask, count: int, grid: int, generator: torch.Generator) -> Tensor:
    visible = config.visible(grid**2)
    if config.kind == "random":
        return removed_by_noise(torch.rand(count, grid**2, generator=generator), visible)
    draws = random.Random(draw_seed(generator))
    masks = [blockwise_removed(grid, grid**2 - visible, config.min_block, draws) for _ in range(count)]
    return torch.stack(masks).flatten(1)


def blockwise_removed(grid: int, target: int, min_block: int, draws: ShufflingDraws) -> Tensor:
    """BEiT's blocks, then random patches until exactly `target` are removed: (grid, grid) bool, in the released order of draws."""
    cells = blockwise_cells(grid, target, min_block, draws)
    missing = target - int(cells.sum())
    if missing:
        free = (~cells).flatten().nonzero().flatten().tolist()
        draws.shuffle(free)
        cells.view(-1)[free[:missing]] = True
    return cells


def removed_by_noise(noise: Tensor, visible: int) -> Tensor:
    """The `visible` patches of least noise stay: (count, patches) to bool of that shape (He et al. 2022, as released)."""
    removed = torch.ones_like(noise, dtype=torch.bool)
    return removed.scatter_(1, noise.argsort(dim=1)[:, :visible], False)


def visible_indices(removed: Tensor) -> Tensor:
    """The patches that stay, in their order: (count, patches) bool to (count, visible) int64.

    Raises ValueError where images keep different numbers, because a batch has one sequence length.
    """
    counts = (~removed).sum(dim=1)
    visible = int(counts[0])
    if visible == 0 or not bool((counts == visible).all()):
        raise ValueError(
            f"the masks keep {counts.min()} to {counts.max()} patches, but every image must keep equally many, and one or more."
        )
    return removed.int().argsort(dim=1, stable=True)[:, :visible]
