"""The sweep file's shape as JSON Schema, for editors: completion, types and meanings, recipe keys included."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Any

from ablatrix.schema import SweepFile
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.fields import nearest

DIALECT = "https://json-schema.org/draft/2020-12/schema"
CHANGED = ("SweepFile", "When", "Include", "Profile")  # those with a `set`


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a sweep file. What keys mean together only `ablatrix check` decides."""
    schema = SweepFile.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    definitions["RecipeKeys"] = {
        "type": "object",
        "description": "Recipe keys, nested or dotted, and their values.",
        "properties": {key: {"description": help} for key, help in sorted(set(recipe_keys(Recipe)))},
    }
    for name in CHANGED:
        part = schema if name == "SweepFile" else definitions[name]
        part["properties"]["set"] = {"$ref": "#/$defs/RecipeKeys"}
    return {"$schema": DIALECT, "title": "Ablatrix sweep file", **{k: v for k, v in schema.items() if k != "title"}}


def recipe_keys(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every dotted key of a recipe with its meaning; of a section that a name chooses, the keys of all its choices."""
    for field in dataclasses.fields(config):
        key = f"{prefix}.{field.name}" if prefix else field.name
        yield key, field.metadata.get("help", "which one")
        for section in _sections(typing.get_type_hints(config)[field.name]):
            yield from recipe_keys(section, key)


def unknown_key(key: str) -> str | None:
    """What is wrong with a dotted key that no recipe has, whatever framework or encoder it names; None where some recipe has it."""
    known = _known_keys()
    parts = key.split(".")
    depth = next(depth for depth in range(len(parts), -1, -1) if depth == 0 or ".".join(parts[:depth]) in known)
    if depth == len(parts):
        return None
    above = ".".join(parts[:depth])
    inside = {other.removeprefix(f"{above}.").split(".")[0] for other in known if not depth or other.startswith(f"{above}.")}
    return (
        f"{key} is not a known key. {nearest(parts[depth], sorted(inside))}" if inside else f"{key} is not a known key: {above} is a value."
    )


@functools.cache
def _known_keys() -> frozenset[str]:
    return frozenset(key for key, _ in recipe_keys(Recipe))


def _sections(hint: Any) -> list[Any]:
    if typing.get_origin(hint) is tuple:  # what a list holds has no dotted key
        return []
    if dataclasses.is_dataclass(hint):
        return [hint]
    return [section for inner in typing.get_args(hint) for section in _sections(inner)]
