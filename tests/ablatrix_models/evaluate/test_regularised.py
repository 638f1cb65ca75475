"""Strongly regularised views: what each part does alone, and that all of them run at every magnitude."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ablatrix_models.evaluate.classifier import BICUBIC_VIEW, training_view
from ablatrix_models.evaluate.regularised import RegularisedViews
from ablatrix_models.recipe.data import Data
from ablatrix_models.recipe.evaluate import Finetune

OFF = {"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0, "rand_augment": 0, "erasing": 0.0}
UNSCALED = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def views(images, labels, data, classes: int = 3, **on: object) -> tuple[torch.Tensor, torch.Tensor]:
    config = Finetune(kind="vit", **{**OFF, **on})
    return RegularisedViews(config, data, classes, generator=torch.Generator().manual_seed(5), device="cpu")(images, labels)


def test_with_everything_off_it_is_the_bicubic_training_view(train, data) -> None:
    seen, targets = views(train.images[:9], train.labels[:9], data)

    plain = training_view(train.images[:9], data, generator=torch.Generator().manual_seed(5), device="cpu", view=BICUBIC_VIEW)
    assert torch.equal(seen, plain)
    assert torch.equal(targets, torch.nn.functional.one_hot(train.labels[:9], 3).float())


def test_smoothing_spreads_its_share_over_all_classes(train, data) -> None:
    for on in ({}, {"mixup": 0.8}, {"cutmix": 1.0}):
        _, targets = views(train.images[:8], train.labels[:8], data, smoothing=0.3, **on)

        torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
        assert targets.min().item() == pytest.approx(0.1)


def test_mixup_blends_images_and_labels_by_one_share_with_the_reversed_batch(train, data) -> None:
    images, labels = train.images[:8], torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])

    mixed, targets = views(images, labels, data, mixup=0.8)

    plain, own = views(images, labels, data)
    share = targets[0, 0].item()  # the partner of row 0 is of class 1
    assert 0 < share < 1
    torch.testing.assert_close(targets, share * own + (1 - share) * own.flip(0))
    torch.testing.assert_close(mixed, share * plain + (1 - share) * plain.flip(0), rtol=1e-4, atol=1e-5)


def test_cutmix_pastes_a_rectangle_and_gives_its_area_to_the_other_label() -> None:
    data = Data(image_size=32, **UNSCALED)
    grey = torch.tensor([10, 200], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 32, 32).contiguous()

    for _ in range(5):
        mixed, targets = views(grey, torch.tensor([0, 1]), data, cutmix=1.0)

        pasted = (mixed[0, 0] > 0.5).float().mean().item()
        assert targets[0].tolist() == pytest.approx([1 - pasted, pasted, 0], abs=1e-5)


def test_an_odd_batch_that_is_mixed_sees_its_first_image_twice(train, data) -> None:
    mixed, targets = views(train.images[:5], train.labels[:5], data, mixup=0.8)
    alone, _ = views(train.images[:1], train.labels[:1], data, cutmix=1.0)

    assert mixed.shape == (6, 3, 10, 10)
    assert targets.shape == (6, 3)
    assert alone.shape == (2, 3, 10, 10)


def test_erasing_hits_its_share_of_images_with_noise_around_the_mean() -> None:
    data = Data(image_size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    grey = torch.full((400, 3, 16, 16), 255, dtype=torch.uint8)

    seen, _ = views(grey, torch.zeros(400, dtype=torch.int64), data, erasing=0.25)

    erased = (seen - 2).abs() > 1e-3
    assert erased.flatten(1).any(dim=1).float().mean().item() == pytest.approx(0.25, abs=0.07)
    assert seen[erased].mean().item() == pytest.approx(0.0, abs=0.1)
    assert seen[erased].std().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("magnitude", "std"), [(1, 0.0), (9, 0.5), (10, 0.0), (10, 3.0)])
def test_rand_augment_runs_at_every_magnitude_and_changes_most_images(magnitude: int, std: float, train) -> None:
    data = Data(image_size=10, **UNSCALED)

    seen, _ = views(train.images.repeat(3, 1, 1, 1), train.labels.repeat(3), data, rand_augment=magnitude, rand_augment_std=std)

    plain, _ = views(train.images.repeat(3, 1, 1, 1), train.labels.repeat(3), data)
    changed = ((seen - plain).abs() > 1.5 / 255).flatten(1).any(dim=1).float().mean().item()
    assert 0.3 < changed < 0.95  # each of two operations comes with probability a half, and some of them leave some images alone
    assert seen.min() >= 0
    assert seen.max() <= 1
