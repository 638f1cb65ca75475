"""That training trains: the loss may fall while the representation rots, so the yardstick is k-NN against the untrained network."""

from __future__ import annotations

import pytest
import torch

from ablatrix import shipped
from ablatrix.spec import read_recipe
from ablatrix_models.data.load import load
from ablatrix_models.pretrain import train_and_evaluate
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.overlay import overlay
from ablatrix_models.session import MemorySession


def top1(**changes: object) -> float:
    shipped_recipe = read_recipe("mixmask/moco-digits", None, near=shipped.root())
    recipe = Recipe.read(overlay(shipped_recipe, {key.replace("__", "."): value for key, value in changes.items()}))
    train, test = load(recipe.data, "train"), load(recipe.data, "test")
    return train_and_evaluate(recipe, 0, train, test, MemorySession(), torch.device("cpu"))["knn.top1"]


@pytest.mark.slow
def test_eight_epochs_on_real_digits_beat_the_untrained_network_of_the_seed() -> None:
    untrained = top1(mixing="none", schedule__epochs=0)

    trained = top1(mixing="none", schedule__epochs=8, evaluate__every=0)

    assert trained > untrained + 5.0


@pytest.mark.slow
def test_four_epochs_of_byol_on_real_digits_beat_its_random_weights_under_the_same_batch_norm_statistics() -> None:
    """The statistics alone cost an untrained network 18 points, and few epochs without negatives do not win all of them back."""
    byol = {
        "method__name": "byol", "method__hidden": 256, "method__momentum_schedule": "constant", "backbone__max_pool": True,
        "mixing": "none", "optimizer__name": "adam", "optimizer__weight_decay": 0.0, "schedule__batch_size": 32, "evaluate__every": 0,
    }  # fmt: skip
    random_weights = top1(**byol, schedule__epochs=1, optimizer__lr=0.0)

    trained = top1(**byol, schedule__epochs=4, optimizer__lr=0.001)

    assert trained > random_weights + 6.0
