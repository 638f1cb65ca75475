"""The block sampler against the released code's own masks, a cell-by-cell transcription, and its stated limits."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablatrix_models.blockwise import blockwise_cells
from ablatrix_models.draws import draws_from
from golden import load_golden

TARGETS = [(grid, ratio, int(ratio * grid**2)) for grid in (2, 4, 8, 16, 32) for ratio in (0.25, 0.5, 0.75)]


def transcribed_cells(grid: int, target: int, min_block: int, draws: random.Random) -> list[list[int]]:
    """Methods 1.3, literally: no arrays, one cell at a time."""
    cells = [[0] * grid for _ in range(grid)]
    count = 0
    while count < target:
        budget = min(target - count, target)
        accepted = 0
        for _ in range(10):
            area = draws.uniform(min_block, budget)
            aspect = math.exp(draws.uniform(math.log(0.3), math.log(1 / 0.3)))
            height = round(math.sqrt(area * aspect))
            width = round(math.sqrt(area / aspect))
            if width < grid and height < grid:
                top = draws.randint(0, grid - height)
                left = draws.randint(0, grid - width)
                inside = [(row, column) for row in range(top, top + height) for column in range(left, left + width)]
                new = sum(cells[row][column] == 0 for row, column in inside)
                if 0 < new <= budget:
                    for row, column in inside:
                        cells[row][column] = 1
                    accepted = new
                    break
        if accepted == 0:
            break
        count += accepted
    return cells


def replay(grid: int, target: int, min_block: int, count: int) -> np.ndarray:
    draws = random.Random(0)
    return torch.stack([blockwise_cells(grid, target, min_block, draws) for _ in range(count)]).numpy()


@pytest.mark.parametrize(("grid", "ratio", "target"), TARGETS)
def test_masks_equal_the_released_ones_bit_for_bit_under_its_random_stream(grid: int, ratio: float, target: int):
    golden = load_golden("mixmask_mask_first32_seed0")
    released = golden[f"block_grid{grid}_masklam{ratio}_target{target}_minblock4__first32_masks_python_random_seed0"]

    masks = replay(grid, target, min_block=4, count=32)

    np.testing.assert_array_equal(masks, released)


@pytest.mark.parametrize(("target", "min_block"), [(75, 16), (118, 16), (147, 16), (118, 4)])
def test_masks_equal_those_of_beit_bit_for_bit(target: int, min_block: int):
    golden = load_golden("blockwise_mask_first32_seed0")
    released = golden[f"beit_grid14_target{target}_minblock{min_block}__first32_masks_python_random_seed0"]

    masks = replay(14, target, min_block, count=32)

    np.testing.assert_array_equal(masks, released)


@given(grid=st.integers(2, 20), share=st.floats(0.0, 1.0), min_block=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_masks_equal_a_cell_by_cell_transcription(grid: int, share: float, min_block: int, seed: int):
    target = max(1, int(share * grid**2))

    mask = blockwise_cells(grid, target, min_block, random.Random(seed))

    assert mask.int().tolist() == transcribed_cells(grid, target, min_block, random.Random(seed))


@given(grid=st.integers(2, 20), target=st.integers(1, 400), min_block=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_target_is_never_exceeded(grid: int, target: int, min_block: int, seed: int):
    mask = blockwise_cells(grid, target, min_block, random.Random(seed))

    assert mask.shape == (grid, grid)
    assert int(mask.sum()) <= target


def test_a_target_of_nothing_draws_nothing():
    draws = random.Random(0)
    before = draws.getstate()

    mask = blockwise_cells(8, 0, 4, draws)

    assert not mask.any()
    assert draws.getstate() == before


def test_a_mask_stays_empty_where_every_block_would_span_the_grid():
    # Areas of 3 to 4 cells round to at least one side of 2 in a grid of 2, and a block must be narrower and lower than the grid.
    draws = draws_from(torch.Generator().manual_seed(0))

    masks = torch.stack([blockwise_cells(2, 3, 4, draws) for _ in range(500)])

    assert not masks.any()
