"""The rows of SiameseIM's Table 3: each recipe has what the paper's columns say of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ablatrix import shipped
from ablatrix.spec import read_recipe
from ablatrix_models.pretrain import initial_method
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.augment import Augment
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.mae import MAE
from ablatrix_models.recipe.mocov3 import MoCoV3
from ablatrix_models.recipe.siameseim import SiameseIM
from ablatrix_reports.published import load_published

ROWS = {value.place.row: value for value in load_published("siameseim").table("siameseim/table3").values() if value.place.column == "LIN"}
LETTERS = [row for row in ROWS if row.startswith("(")]


def name_of(row: str) -> str:
    return "siameseim/table3-" + row.strip("()").lower().replace(" with ", "-").replace(" ", "-")


def recipe(row: str, profile: str | None = None) -> Recipe:
    return Recipe.read(read_recipe(name_of(row), profile, Path()))


def coloured(augment: Augment) -> bool:
    return any((augment.jitter_p, augment.grey_p, augment.blur_p, augment.solarize_p))


def columns(found: Recipe) -> dict[str, tuple[str, ...]]:
    """The table's columns, read off a recipe of SiameseIM."""
    method = found.method
    assert isinstance(method, SiameseIM)
    assert method.projector_norm == method.decoder_norm
    views = [found.augment] if method.views == "same" else [found.augment, found.augment_b or found.augment]
    colours = {coloured(view) for view in views}
    assert len(colours) == 1
    return {
        "target": (method.target,),
        "views": ("different" if method.views == "two" else "same",),
        "colour": ("true" if colours == {True} else "false",),
        "mask": (method.mask.kind,),
        "norm": ("bn" if method.projector_norm == "batch" else "ln",),
        "loss_norm": (method.target_norm.removesuffix("-like"),),
        "loss_type": ("global" if method.loss == "global" else "dense",),
        "loss_form": ("l2" if method.loss == "l2" else "unigrad",),
    }


@pytest.mark.parametrize("row", LETTERS)
def test_a_row_s_recipe_has_what_the_table_says(row):
    said = {name: labels for name, labels in ROWS[row].protocol.settings.items() if name != "row"}

    assert columns(recipe(row)) == said


def test_the_table_has_its_thirteen_rows_and_the_sweep_runs_them_all():
    text = shipped.sweeps()["siameseim/table3"].read_text()

    assert len(ROWS) == 13
    assert [
        row for row in ROWS if f"siameseim/table3-{row.strip('()').lower().replace(' with ', '-').replace(' ', '-')}}}" not in text
    ] == []


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_pretrained_for_400_epochs_and_judged_by_the_same_protocols(row):
    found = recipe(row)

    assert found.schedule.epochs == 400
    assert found.evaluate == recipe("(i)").evaluate


def test_mae_is_the_released_one_and_masks_three_quarters_at_random():
    method = recipe("MAE").method

    assert isinstance(method, MAE)
    assert (method.mask.kind, method.mask.ratio, method.norm_pixels) == ("random", 0.75, True)


def test_moco_v3_with_mask_has_the_table_s_loss_on_siameseims_views():
    found, method = recipe("MoCo-v3 with mask"), recipe("MoCo-v3 with mask").method

    assert isinstance(method, MoCoV3)
    assert (method.loss, method.mask and method.mask.kind) == ("unigrad", "random")
    assert (found.augment, found.augment_b) == (recipe("(i)").augment, recipe("(i)").augment_b)


def test_moco_v3_with_mask_is_judged_by_the_normed_cls_token_that_its_loss_trains_and_the_other_rows_by_their_patches():
    backbones = {row: recipe(row, "smoke").backbone for row in ROWS}

    assert {row for row, backbone in backbones.items() if isinstance(backbone, ViT) and backbone.pool == "cls"} == {"MoCo-v3 with mask"}
    assert {row for row, backbone in backbones.items() if isinstance(backbone, ViT) and backbone.final_norm} == {"MAE", "MoCo-v3 with mask"}
    method = initial_method(recipe("MoCo-v3 with mask", "smoke"), 0).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        judged, tokens = method.features(images), method.encoder.tokens(images)  # type: ignore[operator, union-attr]
        torch.testing.assert_close(method.head(judged), method.project(images))
    assert torch.equal(judged, tokens[:, 0])


def test_colours_of_the_same_view_are_drawn_once_and_those_of_two_views_twice():
    assert columns(recipe("(c)"))["views"] == ("same",)
    assert recipe("(c)").augment == recipe("(i)").augment
    assert recipe("(f)").augment_b == recipe("(i)").augment_b


@pytest.mark.parametrize("row", ["(b)", "(e)", "(f)", "(g)", "(h)", "(k)"])
def test_the_repulsion_of_unit_features_is_scaled_to_their_width(row):
    method = recipe(row).method

    assert isinstance(method, SiameseIM)
    assert method.negatives == pytest.approx(0.02 * 768)
