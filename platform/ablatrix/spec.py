"""A sweep file, read and checked in its shape, with the recipes that it names."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ablatrix import document, shipped
from ablatrix.document import Document, Place
from ablatrix.errors import FileProblem, InvalidInput, SweepFileError
from ablatrix.schema import SweepFile
from ablatrix_models.recipe.fields import nearest
from ablatrix_models.recipe.overlay import flatten as flat
from ablatrix_models.recipe.overlay import overlay

PAPER = "paper"
# For required keys that are missing or refused, so that what the rest means can be checked too; none of them is ever at fault.
STAND_INS: dict[str, Any] = {"schema": 1, "sweep": "unnamed", "title": "untitled", "metric": {"name": "train.loss"}}


@dataclass(frozen=True)
class Spec:
    """A sweep file whose shape is right. `lines` of values are in `document`."""

    file: SweepFile
    document: Document
    problems: tuple[FileProblem, ...] = ()
    _recipes: dict[tuple[str, str | None], dict[str, Any]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self.document.path

    @property
    def name(self) -> str:
        """What the file calls its sweep; SweepFileError where that is no name."""
        if self.document.values.get("sweep") != self.file.sweep:
            raise SweepFileError(self.path, self.problems)
        return self.file.sweep

    def recipe(self, name: str, profile: str | None) -> dict[str, Any]:
        """A named recipe as nested mappings, under one of the file's profiles; SweepFileError or InvalidInput where it is bad."""
        key = (name, profile)
        if key not in self._recipes:
            named = self.file.profiles[profile].recipes if profile else None
            self._recipes[key] = read_recipe(name, named or profile, near=self.path.parent, must_have=named is not None)
        return self._recipes[key]


def load(path: Path) -> Spec:
    """Read a sweep file. SweepFileError where its shape is beyond use; `Spec.problems` are those that leave it readable."""
    read = document.read(path)
    try:
        return Spec(SweepFile.model_validate(read.values), read, read.problems)
    except ValidationError as error:
        problems = (*read.problems, *shape_problems(error, read))
        rest = _without(read.values, [_place(detail, read) for detail in error.errors()])
        rest |= {name: part for name, part in STAND_INS.items() if not rest.get(name)}
    try:
        # The rest of the file may have problems of its own, and a user wants to hear of all of them at once.
        return Spec(SweepFile.model_validate(rest), read, problems)
    except ValidationError:
        raise SweepFileError(path, problems) from None


def _without(values: dict[str, Any], places: list[Place]) -> dict[str, Any]:
    """The values without what stands at `places`."""
    rest = copy.deepcopy(values)
    for place in places:
        part: Any = rest
        holder: dict[Any, Any] = {}
        name: str | int = ""
        for key in place:
            if isinstance(part, dict):
                holder, name = part, key  # of a list no item can go alone: the others would change their places
            try:
                part = part[key]
            except (LookupError, TypeError):  # what is missing has a place too
                part = None
        holder.pop(name, None)
    return rest


def shape_problems(error: ValidationError, read: Document) -> list[FileProblem]:
    """Pydantic's findings in our words, one for each place."""
    found: dict[Place, FileProblem] = {}
    for detail in error.errors():
        place = _place(detail, read)
        # The alternatives of one value each complain; the first, and of nested ones the innermost, says enough.
        found.setdefault(place, FileProblem(read.line(place), _sentence(detail, place)))
    return [problem for place, problem in found.items() if not any(other[: len(place)] == place != other for other in found)]


def _place(detail: ErrorDetails, read: Document) -> Place:
    """The keys of pydantic's location that stand in the file, without the names of alternatives."""
    place: Place = ()
    loc = detail["loc"]
    for i, part in enumerate(loc):
        if (*place, part) in read.lines or (i == len(loc) - 1 and detail["type"] == "missing"):
            place = (*place, part)
    return place


def _sentence(detail: ErrorDetails, place: Place) -> str:
    kind, where = detail["type"], ".".join(map(str, place))
    if kind == "extra_forbidden":
        known = _keys_at(place[:-1])
        return f"{place[-1]!r} is not a known key{_inside(place[:-1])}. {nearest(str(place[-1]), known)}"
    if kind == "missing":
        return f"the key {place[-1]!r} is missing{_inside(place[:-1])}."
    given = detail["input"]
    shown = f" {_short(given)}" if isinstance(given, str | int | float | bool) else ""
    rule = re.sub("(Input|String|List) should", "it should", detail["msg"].removeprefix("Value error, "))
    if kind == "string_pattern_mismatch" and where == "sweep":
        rule = "it should be lower-case letters, digits, '-', '_' and '.', since it names a directory"
    if kind in ("model_type", "dict_type"):
        rule = "it should be keys with values" + (f": {', '.join(_keys_at(place))}" if kind == "model_type" else "")
    if isinstance(given, str) and kind in ("int_type", "float_type"):
        rule += ". Write a plain number, without quotes"
    return f"{where} has the value{shown} that is refused: {rule}." if shown else f"{where or 'the file'} is refused: {rule}."


def _inside(place: Place) -> str:
    return f" of {'.'.join(map(str, place))}" if place else ""


def _short(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _keys_at(place: Place) -> list[str]:
    """The keys that the schema knows at a place."""
    model: Any = SweepFile
    for part in place:
        fields = getattr(model, "model_fields", {})
        match = next((f for n, f in fields.items() if part in (n, f.alias)), None)
        inner = _models(match.annotation) if match else []
        model = inner[0] if inner else model
    return [f.alias or n for n, f in getattr(model, "model_fields", {}).items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models(a)]


def read_recipe(name: str, profile: str | None, near: Path, must_have: bool = False) -> dict[str, Any]:
    """A recipe by shipped name, or by path from the sweep file's directory, with `extends` and the profile applied.

    A recipe without the profile stays as it is, or, where it `must_have` it, is InvalidInput.
    """
    path = _recipe_path(name, near)
    layers = _layers(path, profile, ())
    if must_have and len(layers) == len(_layers(path, None, ())):
        raise InvalidInput(f"the recipe {name} has no profile {profile!r}, which the sweep's profile asks for.")
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = overlay(merged, dict(flat(layer)))
    return merged


def _recipe_path(name: str, near: Path) -> Path:
    known = shipped.recipes()
    if name in known:
        return known[name]
    path = near / name
    with contextlib.suppress(OSError, ValueError):  # a name too long is no file either
        if path.suffix in (".yaml", ".yml") and path.is_file():
            return path.resolve()
    raise InvalidInput(f"{_short(name)} is no shipped recipe, and no recipe file beside the sweep. {nearest(name, list(known))}")


def _layers(path: Path, profile: str | None, seen: tuple[Path, ...]) -> list[Mapping[str, Any]]:
    read = document.read(path)
    values = dict(read.values)
    parent, profiles = values.pop("extends", None), values.pop("profiles", None) or {}
    problems = [*read.problems]
    if parent is not None and not isinstance(parent, str):
        problems.append(FileProblem(read.line(("extends",)), "extends must name one recipe."))
    if path in seen:
        problems.append(FileProblem(read.line(("extends",)), "the recipe extends itself."))
    if not isinstance(profiles, dict) or not all(isinstance(layer, dict | None) for layer in profiles.values()):
        problems.append(FileProblem(read.line(("profiles",)), "profiles must be a mapping of names to changed keys."))
    if problems:
        raise SweepFileError(path, problems)
    below = _layers(_recipe_path(parent, path.parent), profile, (*seen, path)) if parent else []
    own = profiles.get(profile) if profile else None
    return [*below, values, *([own] if own else [])]
