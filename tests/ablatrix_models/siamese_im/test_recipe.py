"""SiameseIM's configs: Table 3 is a set of values, impossible combinations are refused, and no torch is needed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.augment import Augment
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.fields import build
from ablatrix_models.recipe.patch_mask import PatchMask, grid_problems
from ablatrix_models.recipe.siameseim import SiameseIM, view_problems


def problems_of(cls: type, mapping: dict[str, Any]) -> dict[str, str]:
    return {problem.key: problem.message for problem in build(cls, mapping)[1]}


def test_every_row_of_table_3_is_a_valid_setting(row: dict[str, Any]) -> None:
    settings, problems = build(SiameseIM, row)

    assert problems == []
    assert settings is not None
    assert list(grid_problems(settings.mask, ViT(), 224)) == []
    assert list(view_problems(settings, Augment(), Augment())) == []


def test_the_rows_of_table_3_differ_from_each_other(table3: dict[str, dict[str, Any]]) -> None:
    settings = [build(SiameseIM, row)[0] for row in table3.values()]

    assert len(set(settings)) == len(table3)


@pytest.mark.parametrize(
    ("method", "given", "mask"),
    [
        ("mae", {"ratio": 0.9}, PatchMask("random", 0.9)),
        ("mae", {"kind": "blockwise", "min_block": 4}, PatchMask("blockwise", 0.75, 4)),
        ("mae", "blockwise", PatchMask("blockwise", 0.75)),
        ("mae", {}, PatchMask("random", 0.75)),
        ("mocov3", {"ratio": 0.4}, PatchMask("random", 0.4)),
        ("mocov3", None, None),
        ("siameseim", {"ratio": 0.5}, PatchMask("blockwise", 0.5)),
    ],
)
def test_what_a_mask_leaves_out_is_the_method_s_own(method: str, given: Any, mask: PatchMask | None) -> None:
    recipe = Recipe.read({"method": {"name": method, "mask": given}, "backbone": {"name": "vit-tiny", "patch": 4}})

    assert recipe.method.mask == mask  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("mapping", "key", "message"),
    [
        ({"target": "pixel"}, "loss", "is unigrad, but pixel targets have no negatives. Use l2."),
        ({"target": "pixel", "loss": "global"}, "loss", "is global, but pixel targets"),
        ({"target": "pixel", "loss": "l2", "target_norm": "moco-like"}, "target_norm", "For pixels use mae-like"),
        ({"target": "pixel", "loss": "l2", "prediction_norm": True}, "prediction_norm", "predicted pixels need their own scale"),
        ({"target_norm": "none"}, "target_norm", "features without a norm can shrink to 0"),
        ({"target_norm": "moco-like", "prediction_norm": True}, "prediction_norm", "norms the prediction already"),
        ({"scored": "removed"}, "scored", "only pixels of the same view"),
        ({"target": "pixel", "loss": "l2", "scored": "removed"}, "scored", "only pixels of the same view"),
        ({"loss": "l2", "negative_weight": 0.1}, "negative_weight", "is 0.1, but the l2 loss has no negatives"),
        ({"dim": 30, "heads": 3}, "dim", "is 30, but sine-cosine positions need a multiple of 4"),
        ({"dim": 768, "heads": 7}, "heads", "is 7, which does not divide the dim of 768"),
        ({"mask": {"ratio": 1.5}}, "mask.ratio", "is 1.5, but at most 1 is allowed"),
        ({"loss": "unigrd"}, "loss", "Did you mean 'unigrad'?"),
    ],
)
def test_impossible_settings_are_refused_with_the_way_out(mapping: dict[str, Any], key: str, message: str) -> None:
    problems = problems_of(SiameseIM, mapping)

    assert message in problems[key]


def test_an_encoder_whose_heads_do_not_divide_its_width_is_refused() -> None:
    assert "does not divide the width of 64" in problems_of(ViT, {"width": 64, "heads": 3})["heads"]


@pytest.mark.parametrize(
    ("settings", "backbone", "image_size", "key", "message"),
    [
        (SiameseIM(), object(), 224, "backbone.name", "Use backbone: vit-base"),
        (SiameseIM(), ViT(patch=15), 224, "backbone.patch", "images of 224 pixels need a smaller patch that divides them"),
        (SiameseIM(), ViT(patch=32), 32, "backbone.patch", "need a smaller patch"),
        (SiameseIM(mask=PatchMask(ratio=0.0)), ViT(), 224, "method.mask.ratio", "196 of 196 patches stay"),
        (SiameseIM(mask=PatchMask(ratio=1.0)), ViT(), 224, "method.mask.ratio", "so 0 of 196 patches stay"),
        (SiameseIM(), ViT(patch=8), 32, "method.mask.min_block", "the largest block that fits 4 x 4 patches has 9"),
    ],
)
def test_settings_that_do_not_fit_the_grid_are_refused(
    settings: SiameseIM, backbone: object, image_size: int, key: str, message: str
) -> None:
    (problem,) = grid_problems(settings.mask, backbone, image_size)

    assert problem.key == key
    assert message in problem.message


def test_views_that_positions_cannot_describe_are_refused() -> None:
    turned = Augment(rotation_deg=10.0)

    problems = list(view_problems(SiameseIM(), Augment(), turned))

    assert [problem.key for problem in problems] == ["augment_b.rotation_deg"]
    assert list(view_problems(SiameseIM(views="same"), turned, turned)) == []


@pytest.mark.parametrize(
    ("settings", "negatives"),
    [
        (SiameseIM(), 0.02),
        (SiameseIM(target_norm="moco-like"), 15.36),
        (SiameseIM(target_norm="moco-like", negative_weight=0.02), 0.02),
        (SiameseIM(loss="l2"), 0.0),
    ],
)
def test_moco_like_norm_scales_the_repulsion_to_the_same_strength(settings: SiameseIM, negatives: float) -> None:
    assert settings.negatives == pytest.approx(negatives)


@pytest.mark.parametrize(
    ("settings", "removed_only"),
    [
        (SiameseIM(), False),
        (SiameseIM(target="pixel", loss="l2"), False),
        (SiameseIM(target="pixel", loss="l2", views="same"), True),
        (SiameseIM(target="pixel", loss="l2", views="same", scored="all"), False),
    ],
)
def test_only_pixels_of_the_same_view_leave_visible_patches_out_of_the_loss(settings: SiameseIM, removed_only: bool) -> None:
    assert settings.scores_removed_only is removed_only


def test_the_configs_need_no_torch() -> None:
    script = "import sys, ablatrix_models.recipe.siameseim; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


SIM: dict[str, Any] = {"method": "siameseim", "backbone": "vit-base", "data": {"image_size": 224}}
MAE: dict[str, Any] = SIM | {"method": "mae"}


@pytest.mark.parametrize(
    ("mapping", "key", "message"),
    [
        (SIM | {"backbone": "resnet18"}, "backbone.name", "leaves removed patches out of the encoder. Use backbone: vit-base"),
        (MAE | {"backbone": "resnet50"}, "backbone.name", "leaves removed patches out of the encoder"),
        (SIM | {"method": "moco"}, "backbone.name", "is vit-base, but moco is built on a ResNet here. Use resnet18 or resnet50."),
        (SIM | {"mixing": "mixmask"}, "mixing.kind", "is mixmask, but siameseim takes no mixtures. Use mixing: none."),
        (MAE | {"mixing": "unmix"}, "mixing.kind", "is unmix, but mae takes no mixtures"),
        (SIM | {"data": {"image_size": 225}}, "backbone.patch", "is 16, but images of 225 pixels"),
        (MAE | {"backbone": {"name": "vit-small", "heads": 5}}, "backbone.heads", "is 5, which does not divide the width of 384"),
        (SIM | {"augment_b": {"rotation_deg": 5.0}}, "augment_b.rotation_deg", "positions know crops and flips alone"),
        (SIM | {"schedule": {"batch_size": 64, "accumulate": 3}}, "schedule.accumulate", "does not cut the batch of 64 into equal parts"),
    ],
)
def test_sections_that_do_not_go_together_are_refused_by_the_whole_recipe(mapping: dict[str, Any], key: str, message: str) -> None:
    problems = problems_of(Recipe, mapping)

    assert message in problems[key]


@pytest.mark.parametrize(
    ("name", "sizes"), [("vit-tiny", (192, 12, 3)), ("vit-small", (384, 12, 6)), ("vit-base", (768, 12, 12)), ("vit-large", (1024, 24, 16))]
)
def test_a_size_fills_in_what_is_not_given(name: str, sizes: tuple[int, int, int]) -> None:
    backbone, other = (Recipe.read(SIM | {"backbone": {"name": name} | given}).backbone for given in ({}, {"depth": 4}))

    assert isinstance(backbone, ViT)
    assert isinstance(other, ViT)
    assert (backbone.width, backbone.depth, backbone.heads) == sizes
    assert (other.width, other.depth) == (sizes[0], 4)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (MAE, MAE | {"augment_b": {"flip": 0.0}}),
        (MAE, MAE | {"method": {"name": "mae", "mask": {"kind": "random", "ratio": 0.75, "min_block": 4}}}),
        (SIM, SIM | {"backbone": {"name": "vit-base", "width": 768, "heads": 12}}),
        (SIM, SIM | {"method": {"name": "siameseim", "negative_weight": 0.02, "scored": "all"}}),
        (SIM, SIM | {"mask": {"grid": 4}}),
        (SIM, SIM | {"optimizer": {"clip_norm": None}, "schedule": {"accumulate": 1, "warmup_from": "first"}}),
    ],
)
def test_what_a_run_never_reads_is_no_part_of_its_identity(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert Recipe.read(one).identity() == Recipe.read(two).identity()


@pytest.mark.parametrize(
    "other",
    [
        {"method": {"name": "siameseim", "mask": {"min_block": 4}}},
        {"augment_b": {"flip": 0.0}},
        {"optimizer": {"clip_norm": 1.0}},
        {"schedule": {"accumulate": 2}},
        {"schedule": {"warmup_from": "zero"}},
        {"backbone": {"name": "vit-base", "mlp_ratio": 2.0}},
        {"compute": {"precision": "fp16"}},
    ],
)
def test_what_a_run_reads_makes_another_trial(other: dict[str, Any]) -> None:
    assert Recipe.read(SIM | other).identity() != Recipe.read(SIM).identity()


def test_pixel_targets_have_no_momentum_network_to_tell_apart() -> None:
    pixels = {"name": "siameseim", "target": "pixel", "loss": "l2"}

    one, two = (Recipe.read(SIM | {"method": pixels | {"momentum": momentum}}).identity() for momentum in (0.9, 0.99))

    assert one == two


def test_a_patch_mask_removes_the_released_number_of_patches() -> None:
    assert 196 - PatchMask().visible(196) == 118
