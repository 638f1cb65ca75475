from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest

from ablatrix_models.recipe import Recipe, RecipeError
from ablatrix_models.recipe.fields import nearest


def problems_of(mapping: Any) -> dict[str, str]:
    """Each problem's message by its key; nothing where the recipe is good."""
    try:
        Recipe.read(mapping)
    except RecipeError as error:
        return {problem.key: problem.message for problem in error.problems}
    return {}


def test_an_empty_recipe_is_all_defaults() -> None:
    assert Recipe.read({}) == Recipe()


@pytest.mark.parametrize("name", ["moco", "simclr", "byol", "simsiam"])
def test_a_recipe_written_out_reads_back_as_itself(name: str) -> None:
    recipe = Recipe.read({"method": name, "augment_b": {"flip": 0.0}, "mask": {"ratio": [0.25, 0.75]}, "mixing": "both"})

    assert Recipe.read(recipe.as_mapping()) == recipe
    assert recipe.as_mapping()["mask"]["ratio"] == [0.25, 0.75]


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().data.name = "cifar10"  # type: ignore[misc]


def test_a_word_for_a_section_is_its_kind_or_its_name() -> None:
    recipe = Recipe.read({"mixing": "none", "method": "byol", "data": "cifar10", "optimizer": "adam", "evaluate": {"knn": "euclidean"}})

    assert (recipe.mixing.kind, recipe.method.name, recipe.data.name) == ("none", "byol", "cifar10")
    assert (recipe.optimizer.name, recipe.evaluate.knn.kind) == ("adam", "euclidean")


def test_every_problem_is_told_at_once_with_its_place() -> None:
    found = problems_of(
        {"mask": {"grid": 1, "kind": "round"}, "optimizer": {"lr": "1e-3", "momentun": 1}, "extra": 1, "data": {"image_size": 2.5}}
    )

    assert set(found) == {"mask.grid", "mask.kind", "optimizer.lr", "optimizer.momentun", "extra", "data.image_size"}
    assert "without quotes" in found["optimizer.lr"]
    assert "Did you mean 'momentum'?" in found["optimizer.momentun"]


@pytest.mark.parametrize(
    ("mapping", "key", "said"),
    [
        ([1], "", "but a mapping is needed"),
        (None, "", "is empty, but a mapping is needed"),
        ({"mask": 5}, "mask.kind", "none of blocked, discrete"),
        ({"mask": {"grid": True}}, "mask.grid", "is the boolean True, but a whole number is needed"),
        ({"mask": {"grid": 4.0}}, "mask.grid", "a whole number is needed"),
        ({"mask": {"grid": 2**70}}, "mask.grid", "at most 512 is allowed"),
        ({"mask": {"ratio": [0.2, 0.4, 0.6]}}, "mask.ratio", "a number or a list is needed"),
        ({"mask": {"ratio": 1.5}}, "mask.ratio", "at most 1 is allowed"),
        ({"mask": {"ratio": [0.2, 1.5]}}, "mask.ratio", "at most 1 is allowed"),
        ({"mask": {"ratio": [0.7, 0.2]}}, "mask.ratio", "smaller bound first"),
        ({"mask": {"ratio": 0}}, "mask.ratio", "nothing would be mixed"),
        ({"mask": {"grid": 2}}, "mask.grid", "mask.kind: discrete"),
        ({"mask": {"grid": 4, "min_block": 10}}, "mask.min_block", "has 9 cells"),
        ({"mixing": {"switch": 1}}, "mixing.switch", "true or false is needed"),
        ({"optimizer": {"lr": math.nan}}, "optimizer.lr", "a number is needed"),
        ({"optimizer": {"lr": math.inf}}, "optimizer.lr", "a number is needed"),
        ({"optimizer": {"lr": 10**400}}, "optimizer.lr", "a number is needed"),
        ({"optimizer": {"lr": -1}}, "optimizer.lr", "at least 0 is needed"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas", "has 1 values, but 2 are needed"),
        ({"augment": {"jitter": "strong"}}, "augment.jitter", "a list is needed"),
        ({"augment": {"jitter": [0.4, 0.4, "a", 0.1]}}, "augment.jitter.2", "a number is needed"),
        ({"augment": {"crop_scale": [1.0, 0.2]}}, "augment.crop_scale", "smaller bound first"),
        ({"augment": {"jitter": [0, 0, 0, 0.6]}}, "augment.jitter", "half turn"),
        ({"schedule": {"first_epoch": 1.0}}, "schedule.first_epoch", "none of 0, 1"),
        ({"schedule": {"first_epoch": True}}, "schedule.first_epoch", "none of 0, 1"),
        ({"schedule": {"shape": "step"}}, "schedule.milestones", "needed by the step schedule"),
        ({"schedule": {"warmup_epochs": 5, "epochs": 5}}, "schedule.warmup_epochs", "end inside the warm-up"),
        ({"schedule": {"warmup_epochs": 1, "warmup_steps": 1}}, "schedule.warmup_steps", "Keep one of the two"),
        ({"compute": {"compile": True, "recompute": True}}, "compute.recompute", "is true beside compile"),
        ({"method": "mocco"}, "method.name", "Did you mean 'moco'?"),
        ({"method": {"name": "byol", "queue": 4}}, "method.queue", "is not a known key"),
        ({"method": {"queue": 1000}}, "method.queue", "no multiple of the 1024 keys"),
        ({"schedule": {"batch_size": 508}, "method": {"queue": 1016}}, "method.bn_splits", "does not divide the batch of 508"),
        ({"backbone": "resnet34"}, "backbone.name", "Did you mean"),
        ({"data": "cifar1000"}, "data.name", "Did you mean 'cifar100'?"),
        ({"data": "folder"}, "data.path", "is needed"),
        ({"data": {"train_images": 100}}, "schedule.batch_size", "more than the 100 training images"),
        ({"data": {"train_images": 600, "held_out": 100}}, "schedule.batch_size", "more than the 500 training images"),
        ({"data": {"train_images": 600, "held_out": 600}}, "data.held_out", "none of the 600 training images is left"),
        ({"data": {"image_size": 8}, "mixing": "mixmask", "mask": {"grid": 16}}, "mask.grid", "smaller than a pixel"),
        ({"evaluate": {"knn": "off"}}, "evaluate", "every protocol off"),
        ({"evaluate": {"knn": {"labels_per_class": 2}}}, "evaluate.knn.k", "more than the 20 labelled images"),
        ({"evaluate": {"logistic": "cls"}}, "evaluate.logistic.kind", "no ViT and has no CLS token"),
        ({"evaluate": {"finetune": "vit"}}, "evaluate.finetune.kind", "no ViT, so there are no layers to decay over"),
        ({"evaluate": {"linear": "lars"}}, "evaluate.linear.lr", "published value of `lars` is 6.4"),
        ({"evaluate": {"linear": {"kind": "lars", "lr": 1, "epochs": 10}}}, "evaluate.linear.warmup_epochs", "end inside the warm-up"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_with_place_and_rule(mapping: Any, key: str, said: str) -> None:
    found = problems_of(mapping)

    assert list(found) == [key]
    assert said in found[key]


def test_images_held_out_are_another_trial_whatever_the_test_images() -> None:
    plain, held, other = (Recipe.read({"data": data}).identity() for data in ({}, {"held_out": 9}, {"held_out": 9, "test_images": 5}))

    assert "held_out" not in plain["data"]
    assert plain != held == other


def test_what_a_run_never_reaches_is_not_refused() -> None:
    assert problems_of({"mixing": "none", "mask": {"grid": 64, "min_block": 1}}) == {}
    assert problems_of({"schedule": {"epochs": 0}, "method": {"queue": 1000}, "data": {"train_images": 100}}) == {}


def test_metrics_are_named_after_the_protocols_that_run() -> None:
    recipe = Recipe.read({"evaluate": {"knn": "off", "linear": "moco", "finetune": "sgd"}})

    assert recipe.evaluate.metrics() == ("linear.top1", "finetune.top1")


def test_the_nearest_word_is_offered_or_all_of_them() -> None:
    assert nearest("gird", ["grid", "ratio"]) == "Did you mean 'grid'?"
    assert nearest("zzz", ["b", "a"]) == "Known: a, b."


def test_reading_a_recipe_needs_no_torch() -> None:
    code = "import sys, ablatrix_models.recipe, ablatrix_models.recipe.overlay; print('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
