"""Lay changed keys over a recipe written as nested mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ablatrix_models.recipe.root import TAGGED


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and leaf values of nested mappings, in their order; an empty mapping is a leaf."""
    for key, child in mapping.items():
        dotted = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(child, Mapping) and child:
            yield from flatten(child, dotted)
        else:
            yield dotted, child


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested `base` with the dotted keys of `changes` put in. What is not changed is shared with `base`, which stays as it was.

    A section written as a scalar (`mixing: none`) is opened first. Choosing another framework or encoder by
    `name` drops the keys of the one before, which would be unknown to it.
    """
    result = dict(base)
    ordered = sorted(changes.items(), key=lambda item: not item[0].endswith(".name") and item[0] not in TAGGED)
    for dotted, value in ordered:
        *parents, last = dotted.split(".")
        place = result
        for depth, parent in enumerate(parents):
            place[parent] = _section(".".join(parents[: depth + 1]), place.get(parent))
            place = place[parent]
        place[last] = _placed(dotted, place.get(last), value)
        if last == "name" and len(parents) == 1 and parents[0] in TAGGED:
            result[parents[0]] = _chosen(parents[0], base.get(parents[0]), value, result[parents[0]])
    return result


def _section(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return {} if value is None else {_tag(key): value}


def _placed(key: str, before: Any, value: Any) -> Any:
    if "." in key or isinstance(value, Mapping) or not isinstance(before, Mapping) or value is None:
        return value
    if key in TAGGED:
        return _chosen(key, before, value, {**before, "name": value})
    return {**before, _tag(key): value}


def _tag(section: str) -> str:
    return "name" if section in TAGGED or section in ("data", "optimizer") else "kind"


def _chosen(section: str, before: Any, name: Any, merged: dict[str, Any]) -> dict[str, Any]:
    old = before if isinstance(before, str) else (before or {}).get("name") if isinstance(before, Mapping | None) else None
    same = old is None or TAGGED[section](old) is TAGGED[section](name)
    return merged if same else {"name": name}
