"""Population based training as ordinary trials: generations of legs, each a function of the search's seed; pure.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", section 3, with truncation selection and perturbation (section
4.1.1), and with generations that wait for each other, so that what is trained depends on no clock. A leg goes on from the last
checkpoint of the trial before it, but its recipe says all that it was trained with (`Recipe.course`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablatrix.cells import Cell
from ablatrix.grid import Level
from ablatrix.schema import Scheduler
from ablatrix.space import SUGGESTION, Dimension, suggest
from ablatrix_models.recipe import Recipe, RecipeError

NAME = "pbt"


@dataclass(frozen=True)
class Member:
    """One leg of one member: its suggestion's number, levels by dimension, recipe, and trial id."""

    number: int
    levels: Mapping[str, Level]
    recipe: Recipe
    trial: str


@dataclass(frozen=True)
class Heir:
    """Who a member of the next generation goes on from, and whether it is another whose levels it is to change."""

    parent: Member
    explores: bool


def legs(epochs: int, scheduler: Scheduler) -> int:
    """How many legs a member is trained in."""
    assert scheduler.interval_epochs is not None
    return max(1, math.ceil(epochs / scheduler.interval_epochs))


def leg(cell: Cell, parent: Member | None, scheduler: Scheduler) -> Cell:
    """A suggestion's cell as a leg that goes on from `parent`, or as a first one. Raises RecipeError where it cannot go on from there."""
    assert cell.recipe is not None
    assert scheduler.interval_epochs is not None
    begun = parent.recipe.schedule.end if parent else 0
    until = begun + scheduler.interval_epochs
    schedule = replace(cell.recipe.schedule, until=until if until < cell.recipe.schedule.epochs else 0)
    recipe = replace(cell.recipe, schedule=schedule)
    told = f"epochs {begun + 1} to {schedule.end}" + (f", from {parent.number}" if parent else "")
    # Numbers are what "from" speaks of, so each row begins with its own.
    label = f"{cell.levels[SUGGESTION]}: {cell.label}, {told}"
    return replace(cell, recipe=recipe.continued(parent.recipe) if parent else recipe, label=label)


def heirs(generation: Sequence[Member], scores: Sequence[float], scheduler: Scheduler, chance: random.Random) -> list[Heir]:
    """For each member of a generation, who goes on in its place; `scores` are better the larger they are, and NaN of those that failed.

    Empty where all failed. A failed member is always replaced: it has left no weights.
    """
    sound = sorted((i for i, score in enumerate(scores) if not math.isnan(score)), key=lambda i: (-scores[i], i))
    if not sound:
        return []
    share = max(1, int(scheduler.quantile * len(generation)))
    best, worst = sound[:share], set(sound[-share:]) if len(sound) > share else set()
    found = []
    for i, member in enumerate(generation):
        chosen = generation[chance.choice(best)]  # drawn for each, so that no member's fate moves another's
        replaced = math.isnan(scores[i]) or (i in worst and i not in best)
        found.append(Heir(chosen, True) if replaced else Heir(member, False))
    return found


def explore(space: list[Dimension], levels: Mapping[str, Level], scheduler: Scheduler, chance: random.Random) -> dict[str, Level]:
    """Levels near those of a parent. A dimension that the parent has not, since its condition was not met, is drawn."""
    return suggest(space, _Nearby(levels, scheduler, chance))


@dataclass(frozen=True)
class _Nearby:
    """Answers a space in the place of a study."""

    levels: Mapping[str, Level]
    scheduler: Scheduler
    chance: random.Random

    def suggest_float(self, name: str, low: float, high: float, /, *, step: float | None = None, log: bool = False) -> float:
        """The parent's number, times or divided by the factor, within the interval."""
        value = self._moved(name)
        if value is None:
            value = math.exp(self.chance.uniform(math.log(low), math.log(high))) if log else self.chance.uniform(low, high)
        if step:
            value = low + step * round((value - low) / step)
            value -= step if value > high + 1e-9 * step else 0.0
        return min(max(value, low), high)

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False) -> int:
        """The same in whole numbers; a step at least, where the factor is too small for one."""
        before = self._before(name)
        value = self._moved(name)
        if value is None or before is None:
            drawn = math.exp(self.chance.uniform(math.log(low), math.log(high + 1))) if log else self.chance.uniform(low, high + 1)
            value = math.floor(drawn)
        elif abs(value - before) < step:
            value = before + math.copysign(step, value - before)
        last = low + (high - low) // step * step
        return min(max(low + step * round((value - low) / step), low), last)

    def suggest_categorical(self, name: str, choices: list[str], /) -> Any:
        """The level beside the parent's, in the order of the file."""
        anew, up = self.chance.random() < self.scheduler.resample, self.chance.random() < 0.5
        drawn = self.chance.randrange(len(choices))
        known = self.levels.get(name)
        if anew or known is None or known.label not in choices:
            return choices[drawn]
        return choices[min(max(choices.index(known.label) + (1 if up else -1), 0), len(choices) - 1)]

    def _before(self, name: str) -> float | None:
        return float(self.levels[name].changes[0].value) if name in self.levels else None

    def _moved(self, name: str) -> float | None:
        """None where the number is to be drawn anew."""
        anew, up = self.chance.random() < self.scheduler.resample, self.chance.random() < 0.5
        before = self._before(name)
        if anew or before is None:
            return None
        return before * self.scheduler.perturb if up else before / self.scheduler.perturb


def change_problem(recipes: Sequence[Recipe], scheduler: Scheduler) -> str | None:
    """Why a member with one of these recipes could not go on from one with another, if so."""
    assert scheduler.interval_epochs is not None
    for recipe in recipes[1:]:
        first = replace(recipes[0], schedule=replace(recipes[0].schedule, until=scheduler.interval_epochs))
        try:
            recipe.continued(first)
        except RecipeError as error:
            problem = error.problems[0]
            return f"{problem.key} {problem.message}".strip()
    return None
