"""The shipped SiameseIM and MAE recipes against the released settings (methods 1.1 to 1.8), and a first step of their smoke profiles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ablatrix.spec import read_recipe
from ablatrix_models.data.images import ImageSet
from ablatrix_models.pretrain import train_and_evaluate
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.mae import MAE
from ablatrix_models.recipe.overlay import overlay
from ablatrix_models.recipe.siameseim import SiameseIM
from ablatrix_models.session import MemorySession

NAMES = ["siameseim/siameseim", "siameseim/mae"]


def recipe(name: str, profile: str | None = None, **changes: Any) -> Recipe:
    return Recipe.read(overlay(read_recipe(name, profile, Path()), {key.replace("__", "."): value for key, value in changes.items()}))


def test_siameseim_is_the_released_setting() -> None:
    found = recipe("siameseim/siameseim")

    assert found.method == SiameseIM(negative_weight=0.02)
    assert (found.backbone.name, found.data.image_size) == ("vit-base", 224)
    assert (found.optimizer.lr, found.schedule.batch_size) == (6.25e-5 * 4096 / 256, 4096)
    assert (found.optimizer.name, found.optimizer.betas, found.optimizer.weight_decay) == ("adamw", (0.9, 0.95), 0.05)
    assert (found.optimizer.clip_norm, found.compute.precision) == (1.0, "fp16")
    assert (found.schedule.epochs, found.schedule.warmup_epochs, found.schedule.warmup_from, found.schedule.per) == (
        1600,
        40,
        "zero",
        "step",
    )


def test_siameseim_s_views_are_moco_v3_s_with_the_flip_in_front() -> None:
    a, b = recipe("siameseim/siameseim").augment, recipe("siameseim/siameseim").augment_b

    assert b is not None
    for view in (a, b):
        assert (view.crop_scale, view.interpolation, view.flip, view.flip_first) == ((0.08, 1.0), "bicubic", 0.5, True)
        assert (view.jitter, view.jitter_p, view.grey_p, view.blur_sigma) == ((0.4, 0.4, 0.2, 0.1), 0.8, 0.2, (0.1, 2.0))
    assert (a.blur_p, a.solarize_p, b.blur_p, b.solarize_p) == (1.0, 0.0, 0.1, 0.2)
    assert math.ceil(b.solarize_threshold * 255) == 128


def test_mae_is_the_released_setting_of_its_own_code() -> None:
    found = recipe("siameseim/mae")

    assert found.method == MAE()
    assert found.optimizer.lr == pytest.approx(1.5e-4 * 4096 / 256)
    assert (found.optimizer.betas, found.optimizer.weight_decay, found.optimizer.clip_norm) == ((0.9, 0.95), 0.05, None)
    assert (found.augment.crop_scale, found.augment.jitter_p, found.augment.grey_p, found.augment.blur_p) == ((0.2, 1.0), 0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_both_are_judged_by_the_released_protocols(name: str) -> None:
    found = recipe(name).evaluate

    assert found.metrics() == ("knn.top1", "linear.top1", "finetune.top1", "logistic.top1")
    assert (found.linear.kind, found.linear.epochs, found.linear.batch_size, found.linear.warmup_epochs) == ("lars", 90, 16384, 10)
    assert found.linear.lr == pytest.approx(0.1 * 16384 / 256)
    assert (found.finetune.epochs, found.finetune.batch_size, found.finetune.layer_decay) == (100, 1024, 0.65)
    assert found.finetune.lr == pytest.approx(2.5e-4 * 1024 / 256)
    assert found.logistic.labels == 0.01


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("profile", ["short", "smoke"])
def test_a_profile_keeps_the_method_s_character(name: str, profile: str) -> None:
    paper, cheap = recipe(name), recipe(name, profile)

    for key in ("target", "views", "loss", "target_norm", "projector_norm", "decoder_norm", "norm_pixels"):
        assert getattr(cheap.method, key, None) == getattr(paper.method, key, None)
    assert cheap.method.mask.ratio == paper.method.mask.ratio  # type: ignore[union-attr]
    assert cheap.schedule.warmup_epochs < 0.2 * cheap.schedule.epochs


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_the_smoke_profile_yields_its_metrics(name: str) -> None:
    found = recipe(name, "smoke", schedule__epochs=1, schedule__batch_size=16, schedule__warmup_epochs=0, evaluate__knn__k=5,
                   data__train_images=None, data__test_images=None, evaluate__linear__epochs=2)  # fmt: skip
    session = MemorySession()

    metrics = train_and_evaluate(found, 0, noise(found, 16), noise(found, 8), session, torch.device("cpu"))

    (report,) = (values for _, _, values in session.reports if "train.loss" in values)
    assert math.isfinite(report["train.loss"])
    assert {"train.embedding_std", "train.embedding_rank"} <= report.keys()
    assert set(metrics) == set(found.evaluate.metrics())


def noise(found: Recipe, count: int) -> ImageSet:
    size = found.data.image_size
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
    return ImageSet(images, torch.arange(count) % 4, ("a", "b", "c", "d"))
