"""Axes, levels and the cells that they span; pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ablatrix.document import Place
from ablatrix.errors import FileProblem
from ablatrix.layers import Change, changes
from ablatrix.spec import Spec
from ablatrix_models.recipe.fields import nearest

MAX_CELLS = 100_000


@dataclass(frozen=True)
class Level:
    """One level of an axis: its label and the keys that it sets."""

    label: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Axis:
    """A named list of levels."""

    name: str
    levels: tuple[Level, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Every recipe key that a level of this axis sets."""
        return tuple(dict.fromkeys(change.key for level in self.levels for change in level.changes))

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
        if name in other:
            place: Place = ("profiles", profile or "", "axes", name, "levels")
            levels: Any = other[name].levels
        else:
            place, levels = ("axes", name, "levels"), axis.levels
        built = [_level(spec, axis.key, *pair) for pair in _entries(levels, place)]
        problems += _axis_problems(spec, name, axis.key, built, place)
        found.append(Axis(name, tuple(Level(b.label, tuple(c for c in b.changes if c.key)) for b in built)))
    problems += [
        FileProblem(
            spec.document.line(("profiles", profile or "", "axes", name)),
            f"{name!r} is no axis of this sweep. {nearest(name, list(spec.file.axes))}",
        )
        for name in other
        if name not in spec.file.axes
    ]
    return found, problems


def _entries(levels: Any, place: Place) -> Iterator[tuple[Any, Any, Place]]:
    """(label, value, place) of each level, whether levels are a list or a mapping by label."""
    if isinstance(levels, Mapping):
        return ((name, value, (*place, name)) for name, value in levels.items())
    return ((label(value), value, (*place, i)) for i, value in enumerate(levels))


def _level(spec: Spec, key: str | None, name: Any, value: Any, place: Place) -> Level:
    if isinstance(value, Mapping):
        inner = changes(value, spec.document, place)
        return Level(str(name), tuple(Change(f"{key}.{c.key}" if key else c.key, c.value, c.line) for c in inner))
    return Level(str(name), (Change(key or "", value, spec.document.line(place)),))


def _axis_problems(spec: Spec, name: str, key: str | None, levels: list[Level], place: Place) -> Iterator[FileProblem]:
    line = spec.document.line(place)
    if key is None and any(change.key == "" for level in levels for change in level.changes):
        yield FileProblem(line, f"axis {name!r} has plain levels but no `key`. Add the recipe key that they set, such as `key: mask.grid`.")
    seen: set[str] = set()
    for level in levels:
        if level.label in seen:
            yield FileProblem(level.changes[0].line if level.changes else line, f"axis {name!r} has the level {level.label} twice.")
        seen.add(level.label)


def combinations(found: list[Axis]) -> Iterator[dict[str, Level]]:
    """Every combination of levels, the last axis running fastest."""
    for levels in itertools.product(*(axis.levels for axis in found)):
        yield dict(zip((axis.name for axis in found), levels, strict=True))


def matches(condition: Mapping[str, Any], levels: Mapping[str, str]) -> bool:
    """Whether a cell's labels meet an `if`; a list means any of its values."""
    for name, wanted in condition.items():
        allowed = [label(w) for w in wanted] if isinstance(wanted, list) else [label(wanted)]
        if levels.get(name) not in allowed:
            return False
    return True
