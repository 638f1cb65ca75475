"""The sheet of what a network is shown."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ablatrix_models.data.images import ImageSet
from ablatrix_models.recipe import Recipe
from ablatrix_models.samples import COLUMNS, GAP, sample_sheet

SIZE = 16
STEP = 64 + GAP


@pytest.fixture
def images() -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    return ImageSet(
        torch.randint(0, 256, (20, 3, SIZE, SIZE), dtype=torch.uint8, generator=draw), torch.zeros(20, dtype=torch.int64), ("a",)
    )


def recipe(**mixing: object) -> Recipe:
    return Recipe.read({"data": {"image_size": SIZE}, "mask": {"kind": "discrete", "grid": 4}, "mixing": mixing})


def sheet(images: ImageSet, asked: Recipe, seed: int = 0) -> np.ndarray:
    data = sample_sheet(asked, seed, images)
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(data)))


def row(pixels: np.ndarray, i: int) -> np.ndarray:
    return pixels[i * STEP : i * STEP + 64]


@pytest.mark.parametrize(("kind", "rows"), [("none", 2), ("unmix", 3), ("mixmask", 4), ("erase", 4), ("both", 5)])
def test_each_kind_of_mixing_has_its_rows(images: ImageSet, kind: str, rows: int):
    pixels = sheet(images, recipe(kind=kind))

    assert pixels.shape == (rows * STEP - GAP, COLUMNS * STEP - GAP, 3)


def test_the_mixture_shows_the_own_view_where_the_mask_is_white_and_the_mirrored_column_elsewhere(images: ImageSet):
    pixels = sheet(images, recipe(kind="mixmask"))
    first, mask, mixed = (row(pixels, i).astype(int) for i in (0, 2, 3))
    for column in range(COLUMNS):
        place, mirrored = slice(column * STEP, column * STEP + 64), slice((COLUMNS - 1 - column) * STEP, (COLUMNS - 1 - column) * STEP + 64)
        expected = np.where(mask[:, place] > 0, first[:, place], first[:, mirrored])

        assert np.array_equal(mixed[:, place], expected)


def test_the_sheet_is_a_function_of_recipe_and_seed(images: ImageSet):
    asked = recipe(kind="both")

    assert sample_sheet(asked, 1, images) == sample_sheet(asked, 1, images)
    assert sample_sheet(asked, 1, images) != sample_sheet(asked, 2, images)


def test_training_draws_what_it_would_without_the_sheet(images: ImageSet):
    before = torch.get_rng_state()
    sample_sheet(recipe(kind="erase"), 0, images)

    assert torch.equal(torch.get_rng_state(), before)


def test_an_untrained_network_is_shown_nothing(images: ImageSet):
    assert sample_sheet(Recipe.read({"schedule": {"epochs": 0}}), 0, images) is None
