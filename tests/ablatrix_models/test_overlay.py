from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.overlay import flatten, overlay

leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
names = st.sampled_from(["a", "b", "c", "kind"])
nested = st.dictionaries(
    names, st.recursive(leaves, lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3), max_leaves=6), max_size=4
)


@given(nested)
def test_flattening_and_laying_over_nothing_gives_the_mapping_back(mapping: dict[str, Any]) -> None:
    assert overlay({}, dict(flatten(mapping))) == mapping


@given(nested, nested)
def test_neither_side_is_changed(base: dict[str, Any], changes: dict[str, Any]) -> None:
    kept = copy.deepcopy((base, changes))
    overlay(base, dict(flatten(changes)))["new"] = 1

    assert (base, changes) == kept


@given(nested, nested)
def test_laying_the_same_changes_twice_is_laying_them_once(base: dict[str, Any], changes: dict[str, Any]) -> None:
    once = overlay(base, dict(flatten(changes)))

    assert overlay(once, dict(flatten(changes))) == once


def test_flattening_keeps_the_order_and_lists_whole() -> None:
    assert list(flatten({"b": {"y": [1, {"z": 2}], "x": {}}, "a": None})) == [("b.y", [1, {"z": 2}]), ("b.x", {}), ("a", None)]


@pytest.mark.parametrize(
    ("base", "changes", "result"),
    [
        ({"mask": {"grid": 2}}, {"mask.grid": 4}, {"mask": {"grid": 4}}),
        ({"mask": {"grid": 2}}, {"mask": {"kind": "blocked"}}, {"mask": {"kind": "blocked"}}),
        ({}, {"evaluate.knn.k": 1}, {"evaluate": {"knn": {"k": 1}}}),
        ({"mixing": "mixmask"}, {"mixing.switch": False}, {"mixing": {"kind": "mixmask", "switch": False}}),
        ({"mixing": {"switch": False}}, {"mixing": "none"}, {"mixing": {"switch": False, "kind": "none"}}),
        ({"data": "cifar10"}, {"data.image_size": 16}, {"data": {"name": "cifar10", "image_size": 16}}),
        ({"optimizer": {"lr": 1.0}}, {"optimizer": "adam"}, {"optimizer": {"lr": 1.0, "name": "adam"}}),
        ({"augment_b": None}, {"augment_b.flip": 0.0}, {"augment_b": {"flip": 0.0}}),
        ({"augment_b": {"flip": 0.0}}, {"augment_b": None}, {"augment_b": None}),
    ],
)
def test_sections_open_and_close_as_they_are_written(base: dict, changes: dict, result: dict) -> None:
    assert overlay(base, changes) == result


@pytest.mark.parametrize("changes", [{"method": "byol"}, {"method.name": "byol"}, {"method": {"name": "byol"}}])
def test_another_framework_drops_the_keys_of_the_one_before(changes: dict[str, Any]) -> None:
    assert overlay({"method": {"name": "moco", "queue": 64}}, changes) == {"method": {"name": "byol"}}


@pytest.mark.parametrize("changes", [{"method": "moco"}, {"method.name": "moco"}, {"method.name": "moco", "method.queue": 64}])
def test_the_same_framework_keeps_its_keys(changes: dict[str, Any]) -> None:
    assert overlay({"method": {"name": "moco", "queue": 64}}, changes) == {"method": {"name": "moco", "queue": 64}}


def test_keys_of_the_new_framework_hold_wherever_they_stand() -> None:
    expected = {"method": {"name": "byol", "dim": 32}}

    assert overlay({"method": {"name": "moco", "queue": 64}}, {"method.dim": 32, "method.name": "byol"}) == expected
    assert overlay({"method": "moco"}, {"method.dim": 32, "method": "byol"}) == expected


def test_a_framework_misspelt_is_left_for_the_recipe_to_refuse() -> None:
    assert overlay({"method": {"name": "moco", "queue": 64}}, {"method": "mocoo"})["method"] == {"name": "mocoo"}


def test_a_depth_written_alone_keeps_the_other_encoder_keys() -> None:
    merged = overlay({"backbone": {"name": "resnet18", "width": 0.5}}, {"backbone": "resnet50"})

    assert Recipe.read(merged).backbone.width == 0.5
