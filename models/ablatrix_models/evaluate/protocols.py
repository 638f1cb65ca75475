"""All protocols of a recipe on one trained method."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate.features import Encoder, extract
from ablatrix_models.evaluate.finetune import finetune_top1
from ablatrix_models.evaluate.knn import knn_top1, problems_with
from ablatrix_models.evaluate.linear import linear_top1
from ablatrix_models.evaluate.logistic import logistic_top1
from ablatrix_models.recipe.evaluate import PROTOCOLS, Evaluate
from ablatrix_models.recipe.fields import RecipeError
from ablatrix_models.recipe.root import Recipe


def check(config: Evaluate, train_labels: Tensor) -> None:
    """Raise RecipeError when the protocols ask for more than the labels (images,) give; cheap, so call it before training."""
    if problems := problems_with(config.knn, train_labels):
        raise RecipeError(problems)


def evaluate(
    recipe: Recipe,
    method: Encoder,
    train: ImageSet,
    test: ImageSet,
    *,
    seed: int,
    device: torch.device | str,
    only: Collection[str] = PROTOCOLS,
) -> dict[str, float]:
    """Run the recipe's protocols that are named in `only`: {'knn.top1': percent, ...}, in the order of PROTOCOLS.

    A function of its arguments: no protocol draws from another's randomness, and the method and the global generators are
    left as they are. Raises ValueError for an unknown name in `only`, RecipeError when the data cannot serve a protocol.
    """
    if unknown := set(only) - set(PROTOCOLS):
        raise ValueError(f"unknown protocol {sorted(unknown)[0]!r} in `only`. Known: {', '.join(PROTOCOLS)}.")
    config, data, precision = recipe.evaluate, recipe.data, recipe.compute.precision
    found: dict[str, float] = {}
    if "knn" in only and config.knn.kind != "off":
        check(config, train.labels)
        encode = method.features if config.knn.features == "backbone" else method.project
        bank, queries = (extract(encode, images, data, device=device, precision=precision) for images in (train, test))
        found["knn.top1"] = knn_top1(config.knn, bank, train.labels, queries, test.labels, len(train.classes))
    if "linear" in only and config.linear.kind != "off":
        found["linear.top1"] = linear_top1(config.linear, method, train, test, data, seed=seed, device=device, precision=precision)
    if "finetune" in only and config.finetune.kind != "off":
        found["finetune.top1"] = finetune_top1(config.finetune, method, train, test, data, seed=seed, device=device, precision=precision)
    if "logistic" in only and config.logistic.kind != "off":
        found["logistic.top1"] = logistic_top1(config.logistic, method, train, test, data, device=device, precision=precision)
    return found
