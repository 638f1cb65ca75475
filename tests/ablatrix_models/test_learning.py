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
