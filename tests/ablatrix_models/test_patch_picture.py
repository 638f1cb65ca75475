"""The picture of predicted patches: its dots lie where view b's content lies in view a, and training never notices it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from ablatrix_models import augment
from ablatrix_models.augment.geometry import same_geometry
from ablatrix_models.data.images import ImageSet
from ablatrix_models.patch_picture import COLUMNS, GREY, MARGIN, SIDE, centres, patch_picture
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.augment import Augment

GRID, SIZE = 4, 64
PLAIN = {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0, "solarize_p": 0.0}


def recipe(method: str = "siameseim", **changes: object) -> Recipe:
    settings = {"name": method} | ({"dim": 32, "heads": 2} if method == "siameseim" else {})
    data = {"name": "cifar10", "image_size": 32}
    augmentation = {"crop_scale": [0.2, 1.0], "flip_first": True, **PLAIN}
    return Recipe.read({"method": settings, "backbone": {"name": "vit-tiny", "patch": 4}, "data": data, "augment": augmentation, **changes})


def coordinates(count: int) -> torch.Tensor:
    """Images whose red tells the column and whose green tells the row of each pixel."""
    line = torch.linspace(0, 255, SIZE).round().to(torch.uint8)
    red, green = line.expand(SIZE, SIZE), line[:, None].expand(SIZE, SIZE)
    return torch.stack([red, green, torch.zeros_like(red)]).expand(count, -1, -1, -1).contiguous()


def images(count: int = 8) -> ImageSet:
    return ImageSet(coordinates(count), torch.zeros(count, dtype=torch.int64), ("only",))


def look_up(views: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Colours at shares of the sides: (batch, 3, size, size) at (batch, points, 2) to (batch, points, 3)."""
    return torch.nn.functional.grid_sample(views, (2 * places - 1)[:, None].float(), align_corners=False)[:, :, 0].transpose(1, 2)


def test_the_places_show_in_view_a_what_view_b_shows_at_its_own_patches():
    config = Augment(crop_scale=(0.3, 1.0), flip_first=True, **PLAIN)
    views = augment.two_views(coordinates(32), config, config, 32, (0.0,) * 3, (1.0,) * 3, torch.Generator().manual_seed(3))
    assert views.geometry is not None
    there = centres(views.geometry, GRID)
    own = centres(same_geometry(32), GRID)
    inside = ((there > 0.05) & (there < 0.95)).all(dim=-1)
    difference = (look_up(views.a, there) - look_up(views.b, own))[inside].abs().max()

    assert views.geometry.flipped.any()
    assert inside.sum() > 100
    assert difference < 0.02


def test_equal_views_have_their_patches_in_their_own_places():
    own = centres(same_geometry(2), GRID)

    assert own[0, :5].tolist() == [[0.125, 0.125], [0.375, 0.125], [0.625, 0.125], [0.875, 0.125], [0.125, 0.375]]


@pytest.mark.parametrize(("method", "share"), [("siameseim", 0.6), ("mae", 0.75)])
def test_the_first_row_covers_the_share_of_patches_that_is_removed(method, share):
    picture = patch_picture(recipe(method), 0, images())
    assert picture is not None
    pixels = np.asarray(Image.open(BytesIO(picture)).convert("RGB"))
    first = pixels[:SIDE, MARGIN : MARGIN + SIDE]

    assert pixels.shape[1] > COLUMNS * SIDE
    assert (first == GREY).all(axis=-1).mean() == pytest.approx(share, abs=0.07)


def test_a_picture_is_a_function_of_recipe_seed_and_images_and_leaves_torchs_own_chance_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (patch_picture(recipe(), seed, images()) for seed in (0, 0, 1))

    assert first == second != other
    assert torch.equal(torch.get_rng_state(), before)


def test_methods_without_patches_and_untrained_networks_have_no_picture():
    contrastive = Recipe.read({"method": {"name": "simclr"}, "data": {"name": "cifar10", "image_size": 32}})

    assert patch_picture(contrastive, 0, images()) is None
    assert patch_picture(recipe(schedule={"epochs": 0}), 0, images()) is None
