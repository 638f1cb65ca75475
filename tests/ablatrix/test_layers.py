from __future__ import annotations

from pathlib import Path

import pytest

from ablatrix import document
from ablatrix.layers import Change, changes, resolve
from tiny_sweep import plain_recipe


def test_nested_and_dotted_keys_are_the_same_change_with_the_line_of_the_value(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("set:\n  mask.grid: 4\n  mask:\n    kind: blocked\n  mixing: {}\n")
    read = document.read(path)
    found = list(changes(read.values["set"], read, ("set",)))

    assert found == [Change("mask.grid", 4, 2), Change("mask.kind", "blocked", 4), Change("mixing", {}, 5)]


def test_a_later_layer_wins_key_by_key() -> None:
    layers = [[Change("mask.grid", 4, 1), Change("optimizer.lr", 0.5, 1)], [], [Change("mask.grid", 8, 2)]]
    recipe, problems = resolve(plain_recipe(), layers, 9)

    assert problems == []
    assert recipe is not None
    assert (recipe.mask.grid, recipe.optimizer.lr) == (8, 0.5)


def test_the_recipe_that_is_laid_over_is_left_as_it_was() -> None:
    base = plain_recipe()
    resolve(base, [[Change("mask.grid", 4, 1), Change("mixing.switch", False, 1)]], 9)

    assert base == plain_recipe()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (Change("mask.grid", "two", 3), 3),
        (Change("mask", {"grid": "two"}, 3), 3),
        (Change("mask.gird", 2, 3), 3),
        (Change("", 2, 3), 3),
        (Change("mask..grid", 2, 3), 3),
        (Change("." * 200, 2, 3), 3),
        (Change(".".join("a" * 600), 2, 3), 3),
        (Change("mask.grid", 2**80, 3), 3),
        (Change("optimizer.lr", 10**400, 3), 3),
        (Change("method.name", {"a": 1}, 3), 3),
        (Change("method", [1], 3), 3),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_problem_stands_on_the_line_of_the_change_that_brought_it(change: Change, line: int) -> None:
    recipe, problems = resolve(plain_recipe(), [[Change("optimizer.lr", 0.1, 2)], [change]], 9)

    assert recipe is None
    assert [problem.line for problem in problems] == [line]
    assert len(problems[0].message) < 250


def test_a_rule_across_fields_is_told_at_the_last_change_of_its_section() -> None:
    changed = [Change("schedule.epochs", 3, 4), Change("schedule.warmup_epochs", 3, 5), Change("optimizer.lr", 0.1, 6)]
    _, problems = resolve(plain_recipe(), [changed], 9)

    assert [problem.line for problem in problems] == [5]


def test_a_problem_of_the_recipe_itself_stands_on_the_fallback_line() -> None:
    _, problems = resolve({**plain_recipe(), "mask": {"grid": 1}}, [[Change("optimizer.lr", 0.1, 2)]], 9)

    assert [problem.line for problem in problems] == [9]
    assert "mask.grid is 1, but at least 2 is needed" in problems[0].message
