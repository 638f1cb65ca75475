from __future__ import annotations

import pytest
import torch

from ablatrix_models.masks import sample_cells
from ablatrix_models.recipe.mask import Mask
from ablatrix_models.recipe.sense import TRAIN_IMAGES, doubts, empty_share
from tiny_sweep import tiny_recipe


@pytest.mark.parametrize(
    "mask",
    [
        Mask("blocked", 2, 0.5), Mask("blocked", 2, 0.25), Mask("blocked", 3, 0.5), Mask("blocked", 4, (0.0, 1.0)),
        Mask("blocked", 8, (0.0, 1.0)), Mask("blocked", 8, 0.05), Mask("blocked", 4, 0.5, min_block=1),
        Mask("blocked", 5, 0.2, min_block=4),
    ],
    ids=str,
)  # fmt: skip
def test_the_share_of_empty_masks_is_that_of_the_sampler(mask: Mask) -> None:
    count = 3000
    drawn = sample_cells(mask, count, torch.Generator().manual_seed(0))
    seen = float((~drawn.flatten(1).any(1)).float().mean())
    expected = empty_share(mask)

    # Four standard errors, and what the sums over a lattice of 64 x 64 lose.
    assert abs(seen - expected) < 4 * (expected * (1 - expected) / count) ** 0.5 + 0.012


def places(**changes: object) -> set[str]:
    return {doubt.key for doubt in doubts(tiny_recipe(**changes))}


def test_a_sound_recipe_is_not_doubted() -> None:
    assert places() == set()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"mask__grid": 3}, "mask.grid"),
        ({"mask__grid": 4, "mask__kind": "blocked", "mask__ratio": [0.0, 1.0]}, "mask.min_block"),
        ({"schedule__warmup_steps": 8}, "schedule.warmup_steps"),
        ({"schedule__shape": "step", "schedule__milestones": [1, 2]}, "schedule.milestones"),
        ({"evaluate__every": 3}, "evaluate.every"),
        ({"data__train_images": None, "schedule__batch_size": 2048, "method__queue": 2048}, "schedule.batch_size"),
        ({"method__queue": 128}, "method.queue"),
        ({"data__train_images": 68, "data__held_out": 5}, "method.queue"),
        ({"evaluate__knn__k": 65}, "evaluate.knn.k"),
    ],
)
def test_what_is_probably_not_meant_is_doubted(changes: dict[str, object], key: str) -> None:
    assert key in places(**changes)


VIT = {"mixing": "none", "backbone__name": "vit-tiny", "backbone__patch": 2}


@pytest.mark.parametrize(
    ("method", "backbone", "keys"),
    [
        ("mae", {}, {"backbone.final_norm", "backbone.train_patch_embedding"}),
        ("mae", {"backbone__final_norm": True, "backbone__train_patch_embedding": True}, set()),
        ("mocov3", {}, {"backbone.pool"}),
        ("mocov3", {"backbone__pool": "cls"}, {"backbone.pool"}),
        ("mocov3", {"backbone__pool": "cls", "backbone__final_norm": True}, set()),
    ],
)
def test_an_encoder_that_is_not_the_method_s_own_is_doubted(method: str, backbone: dict[str, object], keys: set[str]) -> None:
    assert places(method__name=method, **VIT, **backbone) == keys


@pytest.mark.parametrize(
    "changes", [{"mask__grid": 3, "mixing": "none"}, {"schedule__warmup_steps": 7}, {"schedule__epochs": 0, "method__queue": 128}]
)
def test_what_a_run_never_reaches_is_not_doubted(changes: dict[str, object]) -> None:
    assert places(**changes) == set()


def test_the_digits_have_as_many_training_images_as_is_said() -> None:
    from ablatrix_models.data.load import load
    from ablatrix_models.recipe.data import Data

    assert len(load(Data(name="digits", image_size=8), "train")) == TRAIN_IMAGES["digits"]
