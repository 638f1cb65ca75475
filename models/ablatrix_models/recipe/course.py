"""A course: the earlier legs of a run whose settings changed on the way, as population based training changes them.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", section 3: a member goes on from another's weights with other
hyperparameters. Here such a run is a recipe like any other: what it was trained with, from its first epoch on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ablatrix_models.recipe.augment import Augment
from ablatrix_models.recipe.fields import Problem, value
from ablatrix_models.recipe.mask import Mask
from ablatrix_models.recipe.method import Method, MoCo
from ablatrix_models.recipe.mixing import Mixing
from ablatrix_models.recipe.optimize import Optimizer

SECTIONS = ("method", "augment", "augment_b", "mask", "mixing", "optimizer")  # whose settings may change between legs


@dataclass(frozen=True)
class Leg:
    """Epochs that were trained with settings of their own: up to `until`, from where the leg before it ended."""

    until: int = value(1, "the last epoch of this leg", low=1)
    method: Method = value(MoCo, "as in the recipe; only its numbers with a fraction may change")
    augment: Augment = value(Augment, "view a")
    augment_b: Augment | None = value(None, "view b, where it differs from view a")
    mask: Mask = value(Mask, "the mask")
    mixing: Mixing = value(Mixing, "mixtures")
    optimizer: Optimizer = value(Optimizer, "the optimiser; not its name")

    @property
    def settings(self) -> dict[str, Any]:
        """The sections of a recipe that this leg is trained with."""
        return {name: getattr(self, name) for name in SECTIONS}


def change_problems(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Problem]:
    """What of two legs' settings differs that must not, since the weights or the optimiser's state of one would not fit the other."""
    if before["optimizer"].name != after["optimizer"].name:
        names = f"from {before['optimizer'].name} to {after['optimizer'].name}"
        yield Problem("optimizer.name", f"changes {names} in the course of training, but the optimiser's state would not fit. Keep it.")
    one, other = before["method"], after["method"]
    if type(one) is not type(other):
        yield Problem("method.name", "changes in the course of training, but the weights would not fit. Keep it.")
        return
    for field in dataclasses.fields(one):
        was, becomes = getattr(one, field.name), getattr(other, field.name)
        if was != becomes and not (isinstance(was, float) and isinstance(becomes, float)):
            yield Problem(
                f"method.{field.name}",
                "changes in the course of training, where of a framework only numbers with a fraction may, such as a temperature. Keep it.",
            )
