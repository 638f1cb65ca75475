from __future__ import annotations

from pathlib import Path

import pytest

from ablatrix.grid import Axis, Level, combinations, label, matches
from tiny_sweep import SWEEP, make_plan, problems_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"), (False, "false"), (None, "none"), (2, "2"), (2.0, "2"), (0.5, "0.5"), (1e-4, "0.0001"), (1e-9, "1e-09"),
        (0.12345678, "0.12345678"), (1234567.5, "1234567.5"), ("blocked", "blocked"), ([0.2, 1.0], "[0.2, 1]"),
        ({"mask.grid": 2, "mixing": None}, "mask.grid=2, mixing=none"),
    ],
)  # fmt: skip
def test_a_level_is_written_as_briefly_as_it_stays_exact(value: object, text: str) -> None:
    assert label(value) == text


def test_the_last_axis_runs_fastest() -> None:
    a, b = Axis("a", (Level("1", ()), Level("2", ()))), Axis("b", (Level("x", ()), Level("y", ())))

    assert [(c["a"].label, c["b"].label) for c in combinations([a, b])] == [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]
    assert list(combinations([])) == [{}]


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ({}, True), ({"grid": 2}, True), ({"grid": "2"}, True), ({"grid": 4}, False), ({"grid": [4, 2]}, True), ({"grid": []}, False),
        ({"grid": 2, "mix": None}, True), ({"grid": 2, "mix": True}, False), ({"other": 2}, False),
    ],
)  # fmt: skip
def test_a_condition_asks_for_all_its_axes_and_any_value_of_a_list(condition: dict, met: bool) -> None:
    assert matches(condition, {"grid": "2", "mix": "none"}) is met


def test_levels_may_be_mappings_whose_keys_move_together(tmp_path: Path) -> None:
    levels = "\n    levels:\n      coarse: {mask.grid: 2, mask.kind: discrete}\n      fine: {mask: {grid: 8, kind: blocked}}\n"
    cells = make_plan(tmp_path, SWEEP.replace("{key: mask.grid, levels: [2, 4]}\n", levels)).cells

    assert [cell.id for cell in cells] == ["grid=coarse", "grid=fine"]
    assert [(c.recipe.mask.grid, c.recipe.mask.kind) for c in cells if c.recipe] == [(2, "discrete"), (8, "blocked")]


def test_the_key_of_an_axis_is_the_prefix_of_its_mapping_levels(tmp_path: Path) -> None:
    text = SWEEP.replace("{key: mask.grid, levels: [2, 4]}", "{key: mask, levels: [{grid: 2}, {grid: 4, per: image}]}")
    plan = make_plan(tmp_path, text)

    assert plan.axes[0].labels == ("grid=2", "grid=4, per=image")
    assert plan.axes[0].keys == ("mask.grid", "mask.per")
    assert [c.recipe.mask.per for c in plan.cells if c.recipe] == ["step", "image"]


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("[2, 4]", "[2, 4, 2]", 6, "has the level 2 twice"),
        ("[2, 4]", "[2, 2.0]", 6, "has the level 2 twice"),
        ("key: mask.grid, ", "", 6, "has plain levels but no `key`"),
        ("key: mask.grid", "key: mask.gird", 6, "mask.gird is not a known key. Did you mean 'grid'?"),
        ("[2, 4]", "[2, 1]", 6, "mask.grid is 1, but at least 2 is needed"),
        ("[2, 4]", "[2, '4']", 6, "without quotes"),
        ("[2, 4]", "[2, 16]", 6, "a cell would be smaller than a pixel"),
        ("[2, 4]", "[]", 6, "at least 1 item"),
        ("seeds: 2", "seeds: 2\nprofiles: {smoke: {axes: {gird: {levels: [2]}}}}", 8, "'gird' is no axis of this sweep"),
    ],
)
def test_a_bad_axis_is_told_on_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    problems = problems_of(tmp_path, SWEEP.replace(old, new))

    assert any(at == line and said in message for at, message in problems), problems
    assert {at for at, _ in problems} == {line}


def test_two_levels_that_differ_in_the_seventh_digit_are_two(tmp_path: Path) -> None:
    text = SWEEP.replace("{key: mask.grid, levels: [2, 4]}", "{key: optimizer.lr, levels: [0.1234567, 0.1234568]}")

    assert problems_of(tmp_path, text) == []


def test_two_axes_that_set_the_same_key_in_every_cell_are_refused(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, SWEEP.replace("seeds: 2", "  fine: {key: mask.grid, levels: [2, 8]}\nseeds: 2"))

    assert problems == [(7, "mask.grid is set by axis 'grid' and by axis 'fine' in every cell. Keep one.")]


def test_more_cells_than_can_be_planned_are_refused_before_they_are_made(tmp_path: Path) -> None:
    axes = "".join(f"  a{i}: {{key: k{i}, levels: [{', '.join(map(str, range(10)))}]}}\n" for i in range(9))

    problems = problems_of(tmp_path, SWEEP.replace("seeds: 2\n", axes + "seeds: 2\n"))

    assert (5, "the axes span 2,000,000,000 cells; at most 100,000 are planned.") in problems


VARIANTS = """\
schema: 1
sweep: tiny
title: "A tiny sweep"
recipe: tiny.yaml
axes:
  row:
    levels:
      coarse: {mask.grid: 2}
      fine: {mask.grid: 4, mask.kind: discrete}
metric: {name: knn.top1}
profiles:
  smoke: {axes: {row: {levels: [fine]}}}
"""


def test_a_profile_chooses_among_levels_that_are_mappings_by_their_labels(tmp_path):
    made = make_plan(tmp_path, VARIANTS, "smoke")

    assert [axis.labels for axis in made.axes] == [("fine",)]
    assert [cell.recipe.mask.grid for cell in made.cells if cell.recipe] == [4]


def test_a_profile_that_names_no_such_level_is_told_so_with_its_line(tmp_path):
    problems = problems_of(tmp_path, VARIANTS.replace("[fine]", "[finest]"))

    assert problems == [(12, "axis 'row' has no level finest. Did you mean 'fine'?")]
