"""Patch masks against the released ones bit for bit, their law, and their exact count."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablatrix_models.recipe.patch_mask import PatchMask
from ablatrix_models.siamese_im.patch_masks import blockwise_removed, removed_by_noise, sample_removed, visible_indices
from golden import load_golden

RELEASED = [(14, 75, 16), (14, 118, 16), (14, 147, 16), (8, 38, 16), (8, 38, 4), (7, 29, 4), (4, 10, 4), (4, 9, 1)]
MASKS = 1500
LARGEST_Z = 4.5


@pytest.mark.parametrize(("grid", "target", "min_block"), RELEASED)
def test_masks_equal_the_released_ones_bit_for_bit_under_its_random_stream(grid: int, target: int, min_block: int) -> None:
    golden = load_golden("blockwise_mask_first32_seed0")
    released = golden[f"siameseim_fixed_grid{grid}_target{target}_minblock{min_block}__first32_masks_python_random_seed0"]
    draws = random.Random(0)

    masks = torch.stack([blockwise_removed(grid, target, min_block, draws) for _ in range(32)])

    np.testing.assert_array_equal(masks.numpy(), released)


@pytest.mark.parametrize(("grid", "ratio", "min_block"), [(14, 0.6, 16), (14, 0.75, 16), (7, 0.59, 4)])
def test_drawn_masks_follow_the_released_law(grid: int, ratio: float, min_block: int) -> None:
    config = PatchMask(ratio=ratio, min_block=min_block)
    target = grid**2 - config.visible(grid**2)
    prefix = f"siameseim_fixed_grid{grid}_target{target}_minblock{min_block}__"
    law = {
        k.removeprefix(prefix): v for k, v in load_golden("blockwise_mask_statistics_beit_and_siameseim").items() if k.startswith(prefix)
    }

    masks = sample_removed(config, MASKS, grid, torch.Generator().manual_seed(0)).view(-1, grid, grid).numpy()

    edges = (masks[:, 1:] != masks[:, :-1]).sum((1, 2)) + (masks[:, :, 1:] != masks[:, :, :-1]).sum((1, 2))
    error = float(law["std_internal_boundary_edges"]) * np.sqrt(1 / MASKS + 1 / law["n_samples"])
    assert abs(edges.mean() - law["mean_internal_boundary_edges"]) / error < LARGEST_Z
    share = law["per_cell_masked_probability"]
    errors = np.sqrt(share * (1 - share) * (1 / MASKS + 1 / law["n_samples"]))
    assert (np.abs(masks.mean(0) - share) / errors).max() < LARGEST_Z


@pytest.mark.parametrize("case", range(4))
def test_random_masks_equal_the_released_ones_for_the_same_noise(case: int) -> None:
    golden = load_golden("sim_random_masking")
    (prefix,) = {key.split("__")[0] for key in golden if key.startswith(f"case{case}_")}
    noise = torch.from_numpy(golden[f"{prefix}__noise_uniform01_NL"])
    config = PatchMask(kind="random", ratio=float(prefix.split("ratio")[1]))

    removed = removed_by_noise(noise, config.visible(noise.shape[1]))

    assert config.visible(noise.shape[1]) == golden[f"{prefix}__len_keep"]
    np.testing.assert_array_equal(removed.numpy(), golden[f"{prefix}__mask_1_is_removed_NL"].astype(bool))


@given(kind=st.sampled_from(["blockwise", "random"]), grid=st.integers(3, 16), ratio=st.floats(0.1, 0.9), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_every_image_keeps_exactly_the_configured_number(kind: str, grid: int, ratio: float, seed: int) -> None:
    config = PatchMask(kind=kind, ratio=ratio, min_block=4)  # type: ignore[arg-type]

    removed = sample_removed(config, 3, grid, torch.Generator().manual_seed(seed))

    assert (~removed).sum(dim=1).tolist() == [int(grid**2 * (1 - ratio))] * 3


@pytest.mark.parametrize("kind", ["blockwise", "random"])
def test_masks_are_a_function_of_the_generator_s_state(kind: str) -> None:
    config = PatchMask(kind=kind)  # type: ignore[arg-type]
    first, second = (sample_removed(config, 8, 14, torch.Generator().manual_seed(5)) for _ in range(2))

    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_the_default_keeps_the_78_released_patches() -> None:
    assert PatchMask().visible(196) == 78


def test_visible_patches_come_in_their_own_order() -> None:
    removed = torch.tensor([[True, False, True, False, False], [False, False, True, True, False]])

    assert visible_indices(removed).tolist() == [[1, 3, 4], [0, 1, 4]]


@pytest.mark.parametrize("removed", [[[True, False], [False, False]], [[True, True], [True, True]]])
def test_masks_that_keep_different_numbers_or_nothing_are_refused(removed: list[list[bool]]) -> None:
    with pytest.raises(ValueError, match="every image must keep equally many, and one or more"):
        visible_indices(torch.tensor(removed))
