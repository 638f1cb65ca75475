"""What can be run and is probably not meant: doubts about a recipe, which refuse nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.fields import Problem
from ablatrix_models.recipe.mae import MAE
from ablatrix_models.recipe.mask import Mask
from ablatrix_models.recipe.mocov3 import MoCoV3
from ablatrix_models.recipe.root import Recipe

# Training images: CIFAR-100, Tiny-ImageNet and ImageNet as in MixMask's appendix A; the others as counted from their files.
TRAIN_IMAGES = {
    "digits": 1438,
    "cifar100": 50_000,
    "fashion-mnist": 60_000,
    "tiny-imagenet": 100_000,
    "imagenette": 9_469,
    "imagenet-1k": 1_281_167,
}
EMPTY_SHARE = 0.01  # of masks; beyond it a recipe is doubted
ATTEMPTS = 10  # at a first rectangle, as in `ablatrix_models.blockwise`
ASPECT = (0.3, 1 / 0.3)
STEPS = 64  # of the sums over areas and aspect ratios


def doubts(recipe: Recipe) -> Iterator[Problem]:
    """Everything about a recipe that its author should know before it runs."""
    yield from _mask_doubts(recipe)
    yield from _encoder_doubts(recipe)
    if recipe.schedule.epochs:
        yield from _schedule_doubts(recipe)
        yield from _data_doubts(recipe)


def _mask_doubts(recipe: Recipe) -> Iterator[Problem]:
    size, mask = recipe.data.image_size, recipe.mask
    if not recipe.mixing.masks:
        return
    if size % mask.grid:
        narrow = size // mask.grid
        yield Problem("mask.grid", f"is {mask.grid}, which does not divide {size} pixels: cells are {narrow} or {narrow + 1} wide.")
    if mask.kind == "blocked" and (share := empty_share(mask)) > EMPTY_SHARE:
        yield Problem("mask.min_block", f"is {mask.min_block}: {share:.0%} of the masks will be empty, and show the partner alone.")


def _encoder_doubts(recipe: Recipe) -> Iterator[Problem]:
    method, vit = recipe.method, recipe.backbone
    if isinstance(method, MAE) and isinstance(vit, ViT):
        for key in ("final_norm", "train_patch_embedding"):
            if not getattr(vit, key):
                yield Problem(f"backbone.{key}", "is false, as for SiameseIM, but MAE's release has it true.")
    if isinstance(method, MoCoV3) and isinstance(vit, ViT) and (vit.pool, vit.final_norm) != ("cls", True):
        yield Problem("backbone.pool", "is not cls with final_norm: true, which is what MoCo v3's heads and its probe read.")


def _schedule_doubts(recipe: Recipe) -> Iterator[Problem]:
    schedule, images = recipe.schedule, train_images(recipe)
    if images:
        steps = schedule.epochs * (images // schedule.batch_size)
        if 0 < steps <= schedule.warmup_steps:
            yield Problem("schedule.warmup_steps", f"is {schedule.warmup_steps}, but all {schedule.epochs} epochs have {steps} steps.")
    late = [milestone for milestone in schedule.milestones if milestone >= schedule.epochs]
    if schedule.shape == "step" and late:
        yield Problem("schedule.milestones", f"have {late[0]}, which {schedule.epochs} epochs never reach.")
    if recipe.evaluate.every > schedule.epochs:
        yield Problem(
            "evaluate.every", f"is {recipe.evaluate.every}, but {schedule.epochs} epochs are trained: nothing is measured on the way."
        )


def _data_doubts(recipe: Recipe) -> Iterator[Problem]:
    images, queue = train_images(recipe), getattr(recipe.method, "queue", 0)
    if images is None:
        return
    if recipe.schedule.batch_size > images:
        yield Problem("schedule.batch_size", f"is {recipe.schedule.batch_size}, more than the {images:,} images: no batch is full.")
    if queue > images:
        yield Problem("method.queue", f"is {queue}, more than the {images:,} training images, so an image meets itself as a negative.")
    if recipe.evaluate.knn.kind != "off" and recipe.evaluate.knn.k > images:
        yield Problem("evaluate.knn.k", f"is {recipe.evaluate.knn.k}, more than the {images:,} training images.")


def train_images(recipe: Recipe) -> int | None:
    """How many images an epoch has; None where only the files know."""
    known, limit = TRAIN_IMAGES.get(recipe.data.name), recipe.data.train_images
    images = min(known, limit) if known and limit else known or limit
    return images and recipe.data.trained_on(images)


@functools.cache
def empty_share(mask: Mask) -> float:
    """The share of blocked masks without a single cell: all attempts at the first rectangle fail.

    An attempt draws an area between `min_block` and the target and an aspect ratio (methods 2.1), and fails where the
    rectangle is as wide or high as the grid, has no cell, or more than the target. A ratio given as [a, b] is averaged over.
    """
    low, high = mask.ratio if isinstance(mask.ratio, tuple) else (mask.ratio, mask.ratio)
    ratios = [low + (high - low) * (i + 0.5) / STEPS for i in range(STEPS if high > low else 1)]
    targets = [max(1, math.floor(ratio * mask.grid**2)) for ratio in ratios]
    shares = {target: (1 - _accepted(mask.grid, target, mask.min_block)) ** ATTEMPTS for target in set(targets)}
    return sum(shares[target] for target in targets) / len(targets)


def _accepted(grid: int, target: int, min_block: int) -> float:
    """The share of first rectangles that are accepted."""
    good, (low, high) = 0, map(math.log, ASPECT)
    for i in range(STEPS):
        area = min_block + (target - min_block) * (i + 0.5) / STEPS
        for j in range(STEPS):
            aspect = math.exp(low + (high - low) * (j + 0.5) / STEPS)
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            good += height < grid and width < grid and 0 < height * width <= target
    return good / STEPS**2
