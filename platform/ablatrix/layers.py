"""Changed recipe keys with the lines that they stand on, laid over a recipe in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ablatrix.document import Document, Place
from ablatrix.errors import FileProblem
from ablatrix_models.recipe import Problem, Recipe
from ablatrix_models.recipe.fields import build
from ablatrix_models.recipe.overlay import overlay

MAX_PARTS = 16  # of a dotted key
_EMPTY = "the key ''"


@dataclass(frozen=True)
class Change:
    """One dotted key set to a value, on a line of the sweep file (0: on the command line)."""

    key: str
    value: Any
    line: int


def changes(mapping: Mapping[str, Any], document: Document, place: Place) -> Iterator[Change]:
    """The changes that a `set` block at `place` makes; nested and dotted keys alike."""
    for key, child in mapping.items():
        here = (*place, key)
        if isinstance(child, Mapping) and child:
            for inner in changes(child, document, here):
                yield Change(f"{key}.{inner.key}", inner.value, inner.line)
        else:
            yield Change(str(key), child, document.line(here))


def resolve(recipe: Mapping[str, Any], layers: Iterable[Iterable[Change]], fallback: int) -> tuple[Recipe | None, list[FileProblem]]:
    """Lay `layers` over `recipe`, lowest first; every problem is put on the line of the change that brought it.

    `fallback` is the line for what comes from the recipe itself.
    """
    merged = dict(recipe)
    lines: dict[str, int] = {}
    deep: list[FileProblem] = []
    for layer in layers:
        listed = []
        for change in layer:
            if change.key.count(".") < MAX_PARTS:
                listed.append(change)
            else:
                deep.append(FileProblem(change.line, f"{change.key[:40]}… is not a known key: no recipe goes {MAX_PARTS} deep."))
        merged = overlay(merged, {change.key: change.value for change in listed})
        lines.update({change.key: change.line for change in listed})
    built, problems = build(Recipe, merged)
    found = [FileProblem(_line(problem, lines, fallback), f"{problem.key or _EMPTY} {problem.message}") for problem in problems]
    return (None if deep else built), deep + found


def _line(problem: Problem, lines: Mapping[str, int], fallback: int) -> int:
    """The line of the last change at, below or above the problem's key."""
    parts = problem.key.split(".")
    for depth in range(len(parts), 0, -1):
        key = ".".join(parts[:depth])
        below = [line for changed, line in lines.items() if changed == key or changed.startswith(f"{key}.")]
        if below and (depth == len(parts) or key in lines):
            return max(below)
    section = [line for changed, line in lines.items() if changed.split(".")[0] == parts[0]]
    return max(section, default=fallback)
