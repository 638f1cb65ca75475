"""Axes, levels and the cells that they span; pure."""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ablatrix.document import Place
from ablatrix.errors import FileProblem
from ablatrix.layers import Change, changes
from ablatrix.spec import Spec
from ablatrix_models.recipe.fields import nearest

MAX_CELLS = 100_000
RECIPE = "recipe"  # among the keys of a level: not a key of the recipe, but its name
ABSENT = "–"  # the level of an axis that an included cell has no part in
_COMPARISON = re.compile(r"(<=|>=|!=|<|>)\s*(\S.*)")
_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Level:
    """One level of an axis: its label, the keys that it sets, the recipe that it names, and its line."""

    label: str
    changes: tuple[Change, ...]
    recipe: str | None = None
    line: int = 0


@dataclass(frozen=True)
class Axis:
    """A named list of levels."""

    name: str
    levels: tuple[Level, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Every recipe key that a level of this axis sets; `recipe` where levels are variants by name."""
        named = (RECIPE,) if any(level.recipe for level in self.levels) else ()
        return tuple(dict.fromkeys((*named, *(change.key for level in self.levels for change in level.changes))))

    @property
    def labels(self) -> tuple[str, ...]:
        """The levels' labels, in the order of the file."""
        return tuple(level.label for level in self.levels)


def label(value: Any) -> str:
    """How a level is written in tables and matched by `if`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={label(child)}" for key, child in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(label(child) for child in value) + "]"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def axes(spec: Spec, profile: str | None) -> tuple[list[Axis], list[FileProblem]]:
    """The axes under a profile, and what is wrong with them."""
    found: list[Axis] = []
    problems: list[FileProblem] = []
    other = spec.file.profiles[profile].axes if profile else {}
    for name, axis in spec.file.axes.items():
        place: Place = ("profiles", profile or "", "axes", name, "levels")
        if name not in other:
            built, wrong = axis_of(spec, name, axis.key, axis.levels, ("axes", name, "levels"))
        elif isinstance(axis.levels, Mapping) and axis.key is None:
            built, wrong = _chosen(spec, name, axis.levels, other[name].levels, place)
        else:
            built, wrong = axis_of(spec, name, axis.key, other[name].levels, place)
        found.append(built)
        problems += wrong
    problems += [
        FileProblem(
            spec.document.line(("profiles", profile or "", "axes", name)),
            f"{name!r} is no axis of this sweep. {nearest(name, list(spec.file.axes))}",
        )
        for name in other
        if name not in spec.file.axes
    ]
    return found, problems


def _chosen(spec: Spec, name: str, levels: Mapping[str, Any], wanted: list[Any], place: Place) -> tuple[Axis, list[FileProblem]]:
    """Of an axis whose levels are mappings by label, those that a profile lists."""
    whole, problems = axis_of(spec, name, None, levels, ("axes", name, "levels"))
    known = {level.label: level for level in whole.levels}
    for i, missing in enumerate(wanted):
        if label(missing) not in known:
            problems.append(
                FileProblem(
                    spec.document.line((*place, i)), f"axis {name!r} has no level {label(missing)}. {nearest(label(missing), list(known))}"
                )
            )
    return Axis(name, tuple(known[label(one)] for one in wanted if label(one) in known)), problems


def axis_of(spec: Spec, name: str, key: str | None, levels: Any, place: Place) -> tuple[Axis, list[FileProblem]]:
    """One axis from its levels as they stand in the file, and what is wrong with them."""
    built = [_level(spec, key, *pair) for pair in _entries(levels, place)]
    return Axis(name, tuple(_named(level) for level in built)), list(_axis_problems(spec, name, built, place))


def _entries(levels: Any, place: Place) -> Iterator[tuple[Any, Any, Place]]:
    """(label, value, place) of each level, whether levels are a list or a mapping by label."""
    if isinstance(levels, Mapping):
        return ((name, value, (*place, name)) for name, value in levels.items())
    return ((label(value), value, (*place, i)) for i, value in enumerate(levels))


def _level(spec: Spec, key: str | None, name: Any, value: Any, place: Place) -> Level:
    line = spec.document.line(place)
    if isinstance(value, Mapping):
        inner = changes(value, spec.document, place)
        return Level(str(name), tuple(Change(f"{key}.{c.key}" if key else c.key, c.value, c.line) for c in inner), line=line)
    return Level(str(name), (Change(key or "", value, line),), line=line)


def _named(level: Level) -> Level:
    """The level with the recipe's name taken out of its changes, and what has no key or is wrongly named left out."""
    recipe = next((c.value for c in level.changes if c.key == RECIPE and isinstance(c.value, str)), None)
    return Level(level.label, tuple(c for c in level.changes if c.key not in ("", RECIPE)), recipe, level.line)


def _axis_problems(spec: Spec, name: str, levels: list[Level], place: Place) -> Iterator[FileProblem]:
    if any(change.key == "" for level in levels for change in level.changes):
        yield FileProblem(
            spec.document.line(place),
            f"axis {name!r} has plain levels but no `key`. Add the recipe key that they set, such as `key: mask.grid`, or `key: recipe`.",
        )
    seen: set[str] = set()
    for level in levels:
        if level.label in seen:
            yield FileProblem(level.line, f"axis {name!r} has the level {level.label} twice.")
        seen.add(level.label)
        for change in level.changes:
            if change.key == RECIPE and not isinstance(change.value, str):
                yield FileProblem(change.line, f"level {level.label} of axis {name!r} must name its recipe as text.")


def combinations(found: list[Axis]) -> Iterator[dict[str, Level]]:
    """Every combination of levels, the last axis running fastest."""
    for levels in itertools.product(*(axis.levels for axis in found)):
        yield dict(zip((axis.name for axis in found), levels, strict=True))


def matches(condition: Mapping[str, Any], levels: Mapping[str, str]) -> bool:
    """Whether a cell's labels meet an `if`: all of its axes, and of a list any value or comparison, such as "< 4"."""
    for name, wanted in condition.items():
        have = levels.get(name)
        if have is None or not any(_meets(have, w) for w in (wanted if isinstance(wanted, list) else [wanted])):
            return False
    return True


def _meets(have: str, wanted: Any) -> bool:
    if have == label(wanted):
        return True
    compared = comparison(wanted)
    if compared is None:
        return False
    order, bound = compared
    if order == "!=":
        return have != bound
    return _ORDERS[order](number(have), number(bound))  # any order with what is no number is false


def comparison(wanted: Any) -> tuple[str, str] | None:
    """The order and the bound of an `if` such as "< 4" or "!= none"; None for a plain level."""
    found = _COMPARISON.fullmatch(wanted) if isinstance(wanted, str) else None
    return (found[1], found[2].rstrip()) if found else None


def number(text: str) -> float:
    """A label or bound as a number; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def level_problem(axis: str, wanted: Any, levels: Collection[str], *, compared: bool = True) -> str | None:
    """What is wrong with the levels that a condition names, or (`compared`) compares with; None where nothing is."""
    for one in wanted if isinstance(wanted, list) else [wanted]:
        if label(one) not in levels and (message := _unmet(axis, one, levels, comparison(one) if compared else None)):
            return message
    return None


def _unmet(axis: str, wanted: Any, levels: Collection[str], compared: tuple[str, str] | None) -> str | None:
    order, bound = compared or ("!=", label(wanted))
    if order == "!=":
        return None if bound in levels else f"axis {axis!r} has no level {bound}. {nearest(bound, sorted(levels))}"
    if math.isnan(number(bound)):
        return f"the comparison {wanted!r} needs a number after {order}."
    if all(math.isnan(number(level)) for level in levels):
        return f"axis {axis!r} has no level that is a number, so {wanted!r} is never met."
    return None
