"""The mask samplers' contract, their upsampling to pixels, and what a mask's configuration refuses."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.integrate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablatrix_models.masks import discrete_cells, pixel_share, sample_cells, upsample
from ablatrix_models.recipe.fields import build
from ablatrix_models.recipe.mask import Mask
from golden import load_golden

KINDS = [Mask(kind="blocked", grid=4), Mask(kind="blocked", grid=32), Mask(kind="discrete", grid=2), Mask(kind="discrete", grid=8)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("count", [1, 5, 200])
@pytest.mark.parametrize("config", KINDS)
class TestContract:
    def test_masks_are_boolean_grids_on_the_cpu(self, config: Mask, count: int):
        cells = sample_cells(config, count, seeded())

        assert cells.shape == (count, config.grid, config.grid)
        assert cells.dtype == torch.bool
        assert cells.device.type == "cpu"

    def test_masks_are_a_function_of_the_generator(self, config: Mask, count: int):
        first, second = seeded(7), seeded(7)

        cells = sample_cells(config, count, first)

        assert torch.equal(cells, sample_cells(config, count, second))
        assert torch.equal(first.get_state(), second.get_state())
        assert not torch.equal(torch.cat([cells, sample_cells(config, count, first)]), cells.repeat(2, 1, 1))

    def test_global_random_states_are_left_alone(self, config: Mask, count: int):
        before = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=True)

        sample_cells(config, count, seeded())

        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert str(np.random.get_state(legacy=True)) == str(before[2])


@pytest.mark.parametrize("grid", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_discrete_masks_equal_the_released_ones_bit_for_bit_under_its_random_stream(grid: int, ratio: float):
    released = load_golden("mixmask_mask_first32_seed0")[f"discrete_grid{grid}_masklam{ratio}__first32_masks_numpy_legacy_seed0"]
    stream = np.random.RandomState(0)

    masks = [discrete_cells(torch.tensor([ratio]), grid, lambda *shape: torch.from_numpy(stream.random_sample(shape))) for _ in range(32)]

    np.testing.assert_array_equal(torch.cat(masks).numpy(), released)


@pytest.mark.parametrize("ratio", [1e-9, 0.02, 0.5, 0.98, 1 - 1e-9])
def test_a_discrete_mask_always_mixes_something(ratio: float):
    cells = sample_cells(Mask(kind="discrete", grid=2, ratio=ratio), 300, seeded())

    kept = cells.flatten(1).sum(1)
    assert kept.min() >= 1
    assert kept.max() <= 3


def test_a_discrete_ratio_is_drawn_once_per_mask_and_kept_through_redraws():
    def probability(kept: int) -> float:
        """Of `kept` ones among four cells: the binomial without 0 and 4, averaged over ratios in [0, 1]."""
        weight = lambda r: math.comb(4, kept) * (1 - r) ** kept * r ** (4 - kept) / (1 - r**4 - (1 - r) ** 4)  # noqa: E731 -- a formula
        return scipy.integrate.quad(weight, 1e-9, 1 - 1e-9)[0]

    cells = sample_cells(Mask(kind="discrete", grid=2, ratio=(0.0, 1.0)), 40_000, seeded())

    shares = torch.bincount(cells.flatten(1).sum(1), minlength=5)[1:4] / len(cells)
    assert shares.tolist() == pytest.approx([probability(kept) for kept in (1, 2, 3)], abs=0.01)


@pytest.mark.parametrize("count", [100, 2000])
def test_a_blocked_ratio_is_drawn_per_mask(count: int):
    cells = sample_cells(Mask(grid=8, ratio=(0.25, 0.75)), count, seeded())

    kept = cells.flatten(1).sum(1).double()
    # int(64 r) for r uniform in [0.25, 0.75) is uniform on 16..47, with mean 31.5 and variance (32^2 - 1) / 12.
    assert float(kept.mean()) == pytest.approx(31.5, abs=4 * math.sqrt(85.25 / count))
    assert float(kept.var()) == pytest.approx(85.25, rel=5 / math.sqrt(count))
    assert kept.min() >= 14
    assert kept.max() <= 47


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_tiny_blocked_ratio_still_aims_at_one_cell(seed: int):
    cells = sample_cells(Mask(grid=4, ratio=0.001, min_block=1), 1, seeded(seed))

    assert int(cells.sum()) == 1


def test_asking_for_no_masks_is_an_error():
    with pytest.raises(ValueError, match=r"count is 0, but at least one mask must be drawn. Pass 1 for `per: step`"):
        sample_cells(Mask(), 0, seeded())


@pytest.mark.parametrize(("grid", "size"), [(g, s) for g in (2, 3, 4, 5, 7, 8, 14, 16, 32, 48) for s in (32, 64, 224) if g <= s])
def test_pixel_p_shows_cell_floor_p_grid_over_size(grid: int, size: int):
    cells = torch.arange(2 * grid**2).reshape(2, grid, grid)

    pixels = upsample(cells, size)

    wanted = [[[int(cells[i, (y * grid) // size, (x * grid) // size]) for x in range(size)] for y in range(0, size, 5)] for i in range(2)]
    assert pixels.shape == (2, 1, size, size)
    assert pixels[:, 0, ::5].tolist() == wanted


def test_upsampling_below_the_grid_is_an_error():
    with pytest.raises(ValueError, match=r"size is 32 pixels, fewer than the 48 cells a side of the mask. Use a grid of 32 or less"):
        upsample(torch.zeros(1, 48, 48, dtype=torch.bool), 32)


@given(grid=st.sampled_from([2, 4, 8, 16, 32]), size=st.sampled_from([32, 64, 224]), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_lambda_is_the_share_of_cells_where_the_grid_divides_the_size(grid: int, size: int, seed: int):
    cells = torch.rand(3, grid, grid, generator=seeded(seed)) > 0.5

    share = pixel_share(upsample(cells, size))

    assert share.dtype == torch.float32
    assert share.tolist() == pytest.approx(cells.flatten(1).double().mean(1).tolist(), abs=1e-7)


def test_lambda_is_the_share_of_pixels_where_the_grid_does_not_divide_the_size():
    cells = sample_cells(Mask(grid=48), 1, seeded())

    share = pixel_share(upsample(cells, 224))

    pixels = sum(int(cells[0, y * 48 // 224, x * 48 // 224]) for y in range(224) for x in range(224))
    assert float(share) == pytest.approx(pixels / 224**2, abs=1e-7)
    assert abs(float(share) - float(cells.double().mean())) > 1e-4


@pytest.mark.parametrize("grid", [2, 3])
def test_a_blocked_mask_of_a_coarse_grid_is_refused_with_the_reason_and_two_ways_out(grid: int):
    config, problems = build(Mask, {"kind": "blocked", "grid": grid, "min_block": 4})

    assert config is None
    assert [problem.key for problem in problems] == ["grid"]
    assert f"is {grid}, too few cells for blocks of 4 or more" in problems[0].message
    assert "94 % of the blocked masks are empty" in problems[0].message
    assert problems[0].message.endswith("Set mask.kind: discrete, or mask.min_block: 1.")


@pytest.mark.parametrize("mapping", [{"kind": "discrete", "grid": 2}, {"grid": 2, "min_block": 1}, {"grid": 4}, {"ratio": [0.0, 1.0]}])
def test_the_ways_out_are_accepted(mapping: dict[str, object]):
    config, problems = build(Mask, mapping)

    assert config is not None
    assert not problems


@pytest.mark.parametrize(
    ("mapping", "key", "message"),
    [
        ({"grid": 4, "min_block": 16}, "min_block", "is 16, but the largest block that fits a grid of 4 has 9 cells"),
        ({"ratio": 1.0}, "ratio", "is always 1, so nothing would be mixed"),
        ({"ratio": [0.0, 0.0]}, "ratio", "is always 0, so nothing would be mixed"),
        ({"ratio": [0.75, 0.25]}, "ratio", "runs from 0.75 down to 0.25. Write the smaller bound first."),
    ],
)
def test_a_mask_that_cannot_mix_is_refused(mapping: dict[str, object], key: str, message: str):
    _, problems = build(Mask, mapping)

    assert [problem.key for problem in problems] == [key]
    assert message in problems[0].message
