from __future__ import annotations

from pathlib import Path

import pytest

from tiny_sweep import RECIPE, SWEEP, make_plan, problems_of

AXIS = "  grid: {key: mask.grid, levels: [2, 4]}\n"


def write_variants(place: Path) -> None:
    """Two recipes that differ from the tiny one in their learning rate."""
    (place / "a.yaml").write_text(RECIPE + "optimizer: {lr: 0.1}\n")
    (place / "b.yaml").write_text(RECIPE + "optimizer: {lr: 0.2}\n")


def with_axis(axis: str) -> str:
    return SWEEP.replace(AXIS, axis)


ROWS = """\
  row:
    levels:
      a: {recipe: a.yaml}
      b: {recipe: b.yaml, mask.grid: 4}
      base: {}
"""


def test_levels_may_be_variants_by_name_with_keys_of_their_own(tmp_path: Path) -> None:
    write_variants(tmp_path)
    made = make_plan(tmp_path, with_axis(ROWS))
    found = [(c.recipe.optimizer.lr, c.recipe.mask.grid) for c in made.cells if c.recipe]

    assert [cell.id for cell in made.cells] == ["row=a", "row=b", "row=base"]
    assert found == [(0.1, 2), (0.2, 4), (0.06, 2)]
    assert made.axes[0].keys == ("recipe", "mask.grid")


def test_the_key_of_an_axis_may_be_the_recipe(tmp_path: Path) -> None:
    write_variants(tmp_path)
    made = make_plan(tmp_path, with_axis("  row: {key: recipe, levels: [a.yaml, mixmask/moco-digits]}\n"))

    assert made.axes[0].labels == ("a.yaml", "mixmask/moco-digits")
    assert [cell.recipe.data.image_size for cell in made.cells if cell.recipe] == [8, 16]


def test_plain_levels_may_have_labels_of_their_own(tmp_path: Path) -> None:
    write_variants(tmp_path)
    made = make_plan(
        tmp_path, with_axis("  row: {key: recipe, levels: {a: a.yaml, tiny: tiny.yaml}}\n  grid: {key: mask.grid, levels: {coarse: 2}}\n")
    )

    assert [cell.id for cell in made.cells] == ["row=a,grid=coarse", "row=tiny,grid=coarse"]
    assert [(c.recipe.optimizer.lr, c.recipe.mask.grid) for c in made.cells if c.recipe] == [(0.1, 2), (0.06, 2)]


def test_a_file_whose_rows_all_name_recipes_needs_none_of_its_own(tmp_path: Path) -> None:
    write_variants(tmp_path)
    text = with_axis(ROWS).replace("recipe: tiny.yaml\n", "")

    assert problems_of(tmp_path, text.replace("      base: {}\n", "")) == []
    assert problems_of(tmp_path, text) == [(1, "the key 'recipe' is missing, and not every cell has a level that names one.")]


def test_when_names_another_recipe_for_a_variant_and_include_for_its_own_cell(tmp_path: Path) -> None:
    write_variants(tmp_path)
    text = with_axis(ROWS) + "when: [{if: {row: a}, recipe: b.yaml}]\ninclude: [{as: {row: c}, recipe: a.yaml}]\n"

    assert [cell.recipe.optimizer.lr for cell in make_plan(tmp_path, text).cells if cell.recipe] == [0.1, 0.2, 0.2, 0.06]


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("recipe: a.yaml", "recipe: mixmask/moco-cifer", 8, "Did you mean 'mixmask/moco-cifar'?"),
        ("recipe: a.yaml", "recipe: 5", 8, "level a of axis 'row' must name its recipe as text"),
        ("recipe: a.yaml", "recipe: [a.yaml]", 8, "must name its recipe as text"),
        ("recipe: b.yaml, mask.grid: 4", "recipe: b.yaml, mask.gird: 4", 9, "mask.gird is not a known key"),
        ("    levels:\n      a: {recipe: a.yaml}", "    levels:\n      a: a.yaml", 7, "has plain levels but no `key`"),
    ],
)
def test_a_bad_variant_is_told_on_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    write_variants(tmp_path)
    problems = problems_of(tmp_path, with_axis(ROWS).replace(old, new))

    assert any(at == line and said in message for at, message in problems), problems


def test_what_a_named_recipe_itself_has_wrong_is_told_where_it_is_named(tmp_path: Path) -> None:
    write_variants(tmp_path)
    (tmp_path / "a.yaml").write_text(RECIPE.replace("batch_size: 16", "batch_size: 1"))

    assert [line for line, _ in problems_of(tmp_path, with_axis(ROWS))] == [8]


def clash(place: Path, first: str, second: str) -> list[tuple[int, str]]:
    return problems_of(place, with_axis(f"  one: {first}\n  two: {second}\n"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{key: mixing, levels: [none, mixmask]}", "{key: mixing.kind, levels: [none, unmix]}"),
        ("{key: mixing.kind, levels: [none, unmix]}", "{key: mixing, levels: [none, mixmask]}"),
        ("{key: method, levels: [moco]}", "{levels: {m: {method: {name: moco}}}}"),
        ("{key: evaluate.knn, levels: [cosine]}", "{key: evaluate.knn.kind, levels: [euclidean, cosine]}"),
        ("{key: recipe, levels: [tiny.yaml]}", "{levels: {x: {recipe: tiny.yaml}}}"),
    ],
)
def test_two_axes_that_set_one_section_in_every_cell_are_refused(tmp_path: Path, first: str, second: str) -> None:
    problems = clash(tmp_path, first, second)

    assert any(line == 7 and "is set by axis 'one' and by axis 'two' in every cell" in message for line, message in problems), problems


def test_axes_on_different_keys_of_one_section_go_together(tmp_path: Path) -> None:
    assert clash(tmp_path, "{key: mixing, levels: [unmix, mixmask]}", "{key: mixing.switch, levels: [true, false]}") == []


def test_a_profile_may_set_a_key_that_only_some_levels_set(tmp_path: Path) -> None:
    axis = "  row: {levels: {fine: {mask.grid: 4}, plain: {}}}\n"
    made = make_plan(tmp_path, with_axis(axis) + "profiles: {big: {set: {mask.grid: 8}}}\n", "big")

    assert [cell.recipe.mask.grid for cell in made.cells if cell.recipe] == [4, 8]
    both = with_axis(axis.replace("plain: {}", "plain: {mask.grid: 2}")) + "profiles: {big: {set: {mask.grid: 8}}}\n"
    assert "axis 'row' sets it in every cell" in problems_of(tmp_path, both)[0][1]


def noted(place: Path, condition: str, axis: str = "{key: mask.grid, levels: [2, 4, 8]}") -> list[str]:
    """The levels whose cells meet a condition."""
    text = with_axis(f"  grid: {axis}\n") + f"when: [{{if: {{grid: {condition}}}, note: yes}}]\n"
    return [cell.levels["grid"] for cell in make_plan(place, text + "include: [{as: {grid: none}}]\n").cells if cell.note]


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ('"< 4"', ["2"]), ('"<= 4"', ["2", "4"]), ('">4"', ["8"]), ('">= 4.0"', ["4", "8"]), ('"!= 4"', ["none", "2", "8"]),
        ('[2, "> 4"]', ["2", "8"]), ('["< 2", "> 8"]', []), ('"!= none"', ["2", "4", "8"]),
    ],
)  # fmt: skip
def test_a_condition_may_compare_with_a_number(tmp_path: Path, condition: str, met: list[str]) -> None:
    assert noted(tmp_path, condition) == met


def test_a_level_that_looks_like_a_comparison_is_met_by_its_name(tmp_path: Path) -> None:
    assert noted(tmp_path, '"< 4"', "{levels: {'< 4': {mask.grid: 2}, large: {mask.grid: 4}}}") == ["< 4"]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ('"< four"', "the comparison '< four' needs a number after <"),
        ('"!= 3"', "axis 'grid' has no level 3"),
        ('"<"', "axis 'grid' has no level <"),
        ("{a: 1}", "when.0.if.grid"),
    ],
)
def test_a_bad_comparison_is_told_on_its_line(tmp_path: Path, condition: str, said: str) -> None:
    problems = problems_of(tmp_path, SWEEP + f"when:\n  - if: {{grid: {condition}}}\n    note: x\n")

    assert any(line == 10 and said in message for line, message in problems), problems


def test_a_comparison_with_levels_of_which_none_is_a_number_is_refused(tmp_path: Path) -> None:
    text = with_axis("  kind: {key: mixing, levels: [none, mixmask]}\n") + 'exclude: [{if: {kind: "> 2"}, reason: x}]\n'

    assert problems_of(tmp_path, text) == [(9, "axis 'kind' has no level that is a number, so '> 2' is never met.")]


def test_while_a_recipe_cannot_be_found_its_changed_keys_are_checked_all_the_same(tmp_path: Path) -> None:
    text = SWEEP.replace("recipe: tiny.yaml", "recipe: mixmask/moco-digit").replace("mask.grid", "mask.gird")
    text += "set: {optimizer.rl: 1, method.queue: 64}\nprofiles: {smoke: {set: {schedule.epochs: many}}}\n"
    found = problems_of(tmp_path, text)

    assert [line for line, _ in found] == [4, 6, 9, 10]
    assert "Did you mean 'mixmask/moco-digits'?" in found[0][1]
    assert found[1][1] == "mask.gird is not a known key. Did you mean 'grid'?"
    assert "optimizer.rl is not a known key" in found[2][1]
    assert "schedule.epochs is the text 'many', but a whole number is needed" in found[3][1]
    assert found[3][1].endswith("(with the recipe mixmask/moco-digits)")


def test_a_key_that_only_another_framework_has_is_no_problem_while_the_recipe_is_unknown(tmp_path: Path) -> None:
    text = SWEEP.replace("recipe: tiny.yaml", "recipe: mixmask/moco-digit") + "set: {method.predictor_hidden: 64}\n"
    nowhere = SWEEP.replace("recipe: tiny.yaml", "recipe: nothing-like-it") + "set: {method.predictor_hidden: 64, mask.gird: 2}\n"

    assert [line for line, _ in problems_of(tmp_path, text)] == [4]
    assert [line for line, _ in problems_of(tmp_path, nowhere)] == [4, 9]


def test_a_recipe_file_that_cannot_be_read_is_read_once_however_many_cells_want_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablatrix import spec

    read, asked = spec.read_recipe, []
    monkeypatch.setattr(spec, "read_recipe", lambda name, *rest, **more: asked.append(name) or read(name, *rest, **more))
    problems_of(tmp_path, SWEEP.replace("[2, 4]", "[1, 2, 3, 4, 5, 6, 7, 8]").replace("recipe: tiny.yaml", "recipe: nothing-like-it"))

    assert asked == ["nothing-like-it"]
