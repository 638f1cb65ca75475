"""Changed recipe keys with the lines that they stand on, laid over a recipe in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ablatrix.document import Document, Place
from ablatrix.errors import FileProblem
from ablatrix_models.recipe import Problem, Recipe
from ablatrix_models.recipe.fields import Known, build
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


@dataclass(frozen=True)
class Layered:
    """A recipe with changes laid over it: nested values, and the line that each changed key stands on."""

    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[FileProblem, ...] = ()

    def over(self, layer: Iterable[Change]) -> Layered:
        """This with one more layer on top."""
        listed = tuple(layer)
        if not listed:
            return self
        deep = tuple(c for c in listed if c.key.count(".") >= MAX_PARTS)
        told = tuple(FileProblem(c.line, f"{c.key[:40]}… is not a known key: no recipe goes {MAX_PARTS} deep.") for c in deep)
        kept = [c for c in listed if c not in deep] if deep else listed
        values = overlay(self.values, {change.key: change.value for change in kept})
        return Layered(values, {**self.lines, **{change.key: change.line for change in kept}}, self.problems + told)

    def build(self, fallback: int, known: Known | None = None) -> tuple[Recipe | None, list[FileProblem]]:
        """The recipe; every problem is put on the line of the change that brought it, or on `fallback`. `known` as in `fields.build`."""
        built, problems = build(Recipe, self.values, known)
        found = [FileProblem(_line(problem, self.lines, fallback), f"{problem.key or _EMPTY} {problem.message}") for problem in problems]
        return (None if self.problems else built), [*self.problems, *found]


def resolve(recipe: Mapping[str, Any], layers: Iterable[Iterable[Change]], fallback: int) -> tuple[Recipe | None, list[FileProblem]]:
    """Lay `layers` over `recipe`, lowest first, and build it. `fallback` is the line for what comes from the recipe itself."""
    merged = Layered(recipe)
    for layer in layers:
        merged = merged.over(layer)
    return merged.build(fallback)


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
