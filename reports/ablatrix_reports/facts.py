"""What a cell is, in a paper's words: the facts of its recipe under the names that published protocols use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ablatrix.grid import label
from ablatrix_models.recipe import Recipe, RecipeError
from ablatrix_models.recipe.backbone import VIT_SIZES
from ablatrix_models.recipe.overlay import flatten
from ablatrix_reports.plan import Metric

Facts = dict[str, tuple[str, ...]]  # a fact may have several true labels: "linear probe", and "linear probe, 100 epochs"
PROTOCOL = ("epochs", "backbone", "evaluation", "metric")  # how a number came about, rather than what it is a number of
NAMES = {"framework": {"mocov3": "moco-v3"}}  # of a recipe, by the papers' own
_STATED = {"dataset": "data.name", "framework": "method.name", "epochs": "schedule.epochs"}
_KEY = re.compile(r"([a-z_]+(?:\.[a-z_]+)+): ")


def keys_of(axes: Mapping[str, str]) -> dict[str, str]:
    """Recipe keys by the names of a publication's axes, whose texts begin with them: `mask.grid: cells per side`."""
    found = {name: match.group(1) for name, text in axes.items() if (match := _KEY.match(text))}
    return _STATED | found


def facts_of(recipe: Mapping[str, Any], metric: Metric, keys: Mapping[str, str]) -> Facts:
    """The facts of one cell, by the publication's names; what the run never reads is no fact of it."""
    flat = dict(flatten(_read(recipe)))
    found: Facts = {name: (_named(name, label(flat[key])),) for name, key in keys.items() if key in flat}
    found["metric"] = (metric.name,)
    found["backbone"] = (_backbone(flat),)
    if evaluation := _evaluation(flat, metric.name.partition(".")[0]):
        found["evaluation"] = evaluation
    return found


def shortcuts(recipe: Mapping[str, Any], metric: Metric) -> tuple[str, ...]:
    """What makes a run cheaper than any paper's, in words: fewer images, fewer labels, no test images."""
    flat = dict(flatten(recipe))
    limits = [("data.train_images", "training images"), ("data.test_images", "test images")]
    limits += [("evaluate.knn.labels_per_class", "labels per class")] if metric.name.startswith("knn.") else []
    found = [f"{words} {label(flat[key])} ≠ all" for key, words in limits if flat.get(key) is not None]
    if held_out := flat.get("data.held_out"):
        found.append(f"judged on {label(held_out)} training images ≠ the test images")
    return tuple(found)


def _read(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return Recipe.read(recipe).identity()
    except RecipeError:  # written by another version; its values can still be compared
        return recipe


def _named(fact: str, text: str) -> str:
    return NAMES.get(fact, {}).get(text, text)


def _backbone(flat: Mapping[str, Any]) -> str:
    """`resnet18`, or `vit-b16` as the papers write it; with its width, and a transformer's depth, where they are not those of its name."""
    name, width, depth = flat.get("backbone.name"), flat.get("backbone.width"), flat.get("backbone.depth")
    if name not in VIT_SIZES:
        return f"{name}" + (f" of width {label(width)}" if width not in (1, None) else "")
    short, own = f"{name[:5]}{label(flat.get('backbone.patch'))}", VIT_SIZES[name]
    changed = [f"{what} {label(have)}" for what, have, usual in (("width", width, own[0]), ("depth", depth, own[1])) if have != usual]
    return short + (f" of {' and '.join(changed)}" if changed else "")


def _evaluation(flat: Mapping[str, Any], protocol: str) -> tuple[str, ...]:
    """The ways in which a paper may name the protocol that measured the metric, the most telling last."""
    epochs = flat.get(f"evaluate.{protocol}.epochs")
    if protocol == "knn":
        return ("k-NN",)
    if protocol == "linear":
        quick = flat.get("evaluate.linear.kind") == "lbfgs"
        return ("linear probe by L-BFGS",) if quick else ("linear probe", f"linear probe, {epochs} epochs")
    if protocol == "logistic":
        return (f"{100 * flat.get('evaluate.logistic.labels', 1.0):g} % of the labels",)
    return ("finetuning", f"finetuning, {epochs} epochs") if protocol == "finetune" else ()
