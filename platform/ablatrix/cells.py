"""The cells of a sweep under one profile, each with its recipe; pure but for reading recipe files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ablatrix import grid, shipped
from ablatrix.document import Place
from ablatrix.errors import FileProblem, InvalidInput
from ablatrix.grid import ABSENT, RECIPE, Axis, Level, label, matches
from ablatrix.json_schema import unknown_key
from ablatrix.layers import Change, Layered, changes
from ablatrix.schema import Include, Profile
from ablatrix.spec import Spec
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.fields import Known


@dataclass(frozen=True)
class Cell:
    """One combination of levels, on the grid or included beside it."""

    levels: dict[str, str]
    recipe: Recipe | None
    label: str | None = None
    note: str | None = None
    included: bool = False
    excluded: str | None = None

    @property
    def id(self) -> str:
        """Readable and unique within the sweep."""
        return ",".join(f"{name}={level}" for name, level in self.levels.items())


class Cells:
    """Resolves each cell's recipe: recipe < set < when < profile < command line < levels < include.

    The recipe itself is the file's, or that of a level (a named variant), of the last `when` that names one, or of the include.
    """

    def __init__(self, spec: Spec, profile_name: str | None, axes: Sequence[Axis], overrides: Sequence[Change]) -> None:
        self.spec, self.profile_name, self.axes, self.overrides = spec, profile_name, axes, tuple(overrides)
        document = spec.document
        profile = spec.file.profiles[profile_name] if profile_name else Profile()
        self.base = tuple(changes(spec.file.set, document, ("set",)))
        self.profile = tuple(changes(profile.set, document, ("profiles", profile_name or "", "set")))
        self.whens = [tuple(changes(w.set, document, ("when", i, "set"))) for i, w in enumerate(spec.file.when)]
        self.problems: list[FileProblem] = list(_clashes(spec, axes, (*self.profile, *self.overrides)))
        self._known: Known = {}
        self._below: dict[tuple[str, tuple[int, ...]], Layered] = {}
        self._unreadable: dict[str, str] = {}
        self._meant: dict[str, tuple[str, Layered] | None] = {}

    def build(self) -> tuple[list[Cell], list[FileProblem]]:
        """Every cell in the order of the table, included ones first, and everything that is wrong with them."""
        line = self.spec.document.line
        listed = [(cell, line(("include", i))) for i, include in enumerate(self.spec.file.include) for cell in self._included(i, include)]
        listed += [(self._cell(levels), 0) for levels in grid.combinations(list(self.axes))]
        seen: dict[str, int] = {}
        for cell, at in listed:
            # Twice on the grid is a level that stands twice, which its axis tells.
            if blamed := max(at, seen.get(cell.id, 0)) if cell.id in seen else 0:
                self.problems.append(FileProblem(blamed, f"the cell {cell.id} stands twice in the table."))
            seen.setdefault(cell.id, at)
        return [cell for cell, _ in listed], self.problems

    def _cell(self, levels: Mapping[str, Level]) -> Cell:
        labels = {name: level.label for name, level in levels.items()}
        excluded = next((e.reason for e in self.spec.file.exclude if matches(e.if_, labels)), None)
        if excluded:
            return Cell(labels, None, excluded=excluded)
        recipe, note = self._recipe(labels, list(levels.values()), None, 0)
        return Cell(labels, recipe, note=note)

    def suggested(self, name: str, chosen: Mapping[str, Level], number: int, title: str) -> Cell:
        """The cell of a search's suggestion, whose place on the axis `name` is its number."""
        labels = {dimension: level.label for dimension, level in chosen.items()}
        recipe, note = self._recipe(labels, list(chosen.values()), None, 0)
        return Cell({name: str(number)}, recipe, title, note)

    def _included(self, index: int, include: Include) -> Iterator[Cell]:
        crossed = [axis for axis in self.axes if axis.name in include.cross]
        fixed = {name: label(level) for name, level in include.as_.items()}
        own = tuple(changes(include.set, self.spec.document, ("include", index, "set")))
        for levels in grid.combinations(crossed):
            labels = {a.name: levels[a.name].label if a.name in levels else fixed.get(a.name, ABSENT) for a in self.axes}
            recipe, note = self._recipe(labels, list(levels.values()), include, index, own)
            yield Cell(labels, recipe, include.label, include.note or note, included=True)

    def _recipe(
        self, labels: dict[str, str], levels: list[Level], include: Include | None, index: int, own: tuple[Change, ...] = ()
    ) -> tuple[Recipe | None, str | None]:
        whens = self.spec.file.when
        active = tuple(i for i, when in enumerate(whens) if matches(when.if_, labels))
        named = ((whens[i].recipe, ("when", i, "recipe")) for i in reversed(active))
        choices: list[tuple[str | None, Place | int]] = [
            (include.recipe if include else None, ("include", index, "recipe")), *named, *((level.recipe, level.line) for level in levels),
            (self.spec.file.recipe, ("recipe",)),
        ]  # fmt: skip
        name, at = next(((name, at) for name, at in choices if name), (None, ("recipe",)))
        line = at if isinstance(at, int) else self.spec.document.line(at)
        top = tuple(change for level in levels for change in level.changes) + own
        try:
            if name is None:
                raise InvalidInput("the key 'recipe' is missing, and not every cell has a level that names one.")
            below = self._layers_below(name, active)
        except InvalidInput as error:
            changed = (*self.base, *(change for i in active for change in self.whens[i]), *self.profile, *self.overrides, *top)
            self.problems += [FileProblem(line, str(error)), *self._without_recipe(name or "", changed)]
            return None, None
        built, problems = below.over(top).build(line, self._known)
        self.problems += problems
        return built, next((whens[i].note for i in reversed(active) if whens[i].note), None)

    def _without_recipe(self, name: str, changed: Sequence[Change]) -> list[FileProblem]:
        """What can be said of changed keys all the same: keys that no recipe has, and what is wrong with the recipe that was meant."""
        found = [FileProblem(change.line, message) for change in changed if (message := unknown_key(change.key))]
        if name not in self._meant:
            self._meant[name] = self._closest(name)
        if (meant := self._meant[name]) is None:
            return found
        _, problems = meant[1].over(change for change in changed if not unknown_key(change.key)).build(-1, self._known)
        # That a key belongs to another framework may be because another recipe was meant.
        told = (p for p in problems if p.line >= 0 and "is not a known key" not in p.message)
        return [*found, *(FileProblem(p.line, f"{p.message} (with the recipe {meant[0]})") for p in told)]

    def _closest(self, name: str) -> tuple[str, Layered] | None:
        """The shipped recipe that a wrong name comes closest to."""
        closest = shipped.closest_recipe(name)
        if closest is None or closest == name:
            return None
        try:
            return closest, Layered(self.spec.recipe(closest, self.profile_name))
        except InvalidInput:
            return None

    def _layers_below(self, name: str, active: tuple[int, ...]) -> Layered:
        """What cells of one recipe and the same `when` share; laid once, since a sweep may have thousands of them."""
        if name in self._unreadable:
            raise InvalidInput(self._unreadable[name])
        if (name, active) not in self._below:
            try:
                layered = Layered(self.spec.recipe(name, self.profile_name))
            except InvalidInput as error:
                self._unreadable[name] = str(error)
                raise
            for layer in (self.base, *(self.whens[i] for i in active), self.profile, self.overrides):
                layered = layered.over(layer)
            self._below[name, active] = layered
        return self._below[name, active]


def _clashes(spec: Spec, axes: Sequence[Axis], above: Sequence[Change]) -> Iterator[FileProblem]:
    """A key that an axis sets in every cell, set elsewhere too, would never hold."""
    owned: list[tuple[str, Axis]] = []
    for axis in axes:
        everywhere = [key for key in axis.keys if all(_sets(level, key) for level in axis.levels)]
        for key in everywhere:
            other = next((owner for known, owner in owned if _same(known, key)), None)
            if other and other is not axis:
                line = spec.document.line(("axes", axis.name))
                yield FileProblem(line, f"{key} is set by axis {other.name!r} and by axis {axis.name!r} in every cell. Keep one.")
        owned += [(key, axis) for key in everywhere]
    for change in above:
        owner = next((axis for known, axis in owned if _same(known, change.key)), None)
        if owner:
            yield FileProblem(
                change.line, f"{change.key} is set here, but axis {owner.name!r} sets it in every cell. Change the axis's levels."
            )


def _sets(level: Level, key: str) -> bool:
    return any(_same(change.key, key) for change in level.changes) or (key == RECIPE and level.recipe is not None)


def _same(key: str, other: str) -> bool:
    """Whether two keys are one place: a section written as a scalar (`mixing: none`) sets its `kind` or `name`."""
    return _section(key) == _section(other)


def _section(key: str) -> str:
    return key.removesuffix(".kind").removesuffix(".name")
