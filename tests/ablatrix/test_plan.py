from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablatrix import plan, spec
from ablatrix.errors import InvalidInput, SweepFileError
from ablatrix.layers import Change
from ablatrix.plan import Plan
from ablatrix_models.recipe import Recipe
from tiny_sweep import RECIPE, SWEEP, make_plan, plain_recipe, problems_of, write_sweep


def grids(made: Plan) -> list[int]:
    return [cell.recipe.mask.grid for cell in made.cells if cell.recipe]


def lrs(made: Plan) -> list[float]:
    return [cell.recipe.optimizer.lr for cell in made.cells if cell.recipe]


def test_seeds_run_outermost_so_that_a_whole_table_exists_early(tmp_path: Path) -> None:
    made = make_plan(tmp_path)

    assert [(trial.seed, trial.cell) for trial in made.trials] == [(0, "grid=2"), (0, "grid=4"), (1, "grid=2"), (1, "grid=4")]
    assert len({trial.id for trial in made.trials}) == 4


def test_more_seeds_keep_the_trials_that_were_there(tmp_path: Path) -> None:
    two = [trial.id for trial in make_plan(tmp_path).trials]
    five = [trial.id for trial in make_plan(tmp_path, SWEEP.replace("seeds: 2", "seeds: 5")).trials]
    listed = [trial.id for trial in make_plan(tmp_path, SWEEP.replace("seeds: 2", "seeds: [1, 0, 1]")).trials]

    assert five[: len(two)] == two
    assert len(set(five)) == 10
    assert listed == two[2:] + two[:2]


def test_another_level_or_title_keeps_the_trials_that_were_there(tmp_path: Path) -> None:
    before = {trial.id for trial in make_plan(tmp_path).trials}
    text = SWEEP.replace("[2, 4]", "[8, 4, 2]").replace("sweep: tiny", "sweep: other").replace("A tiny", "Another")
    after = {trial.id for trial in make_plan(tmp_path, text).trials}

    assert before < after


def test_a_record_holds_the_whole_recipe(tmp_path: Path) -> None:
    trial = make_plan(tmp_path).trials[1]
    record = trial.record()

    assert (record.trial, record.seed, record.data) == (trial.id, 0, "print of digits")
    assert Recipe.read(record.recipe) == trial.recipe


def test_the_fingerprint_is_asked_once_for_each_dataset(tmp_path: Path) -> None:
    asked: list[str] = []

    def fingerprint(data: Any) -> str:
        asked.append(data.name)
        return data.name

    text = SWEEP.replace("{key: mask.grid, levels: [2, 4]}", "{key: data.name, levels: [digits, cifar10]}")
    plan.make(spec.load(write_sweep(tmp_path, text)), None, fingerprint)

    assert asked == ["digits", "cifar10"]


def test_when_changes_the_cells_that_it_names_and_the_last_note_holds(tmp_path: Path) -> None:
    when = (
        "when:\n  - {if: {grid: 2}, set: {optimizer.lr: 0.5, optimizer.momentum: 0.5}, note: first}\n"
        "  - {if: {grid: [2, 8]}, set: {optimizer.lr: 0.25}, note: second}\n  - {if: {grid: 2}, set: {mixing.switch: false}}\n"
    )
    two, four, eight = make_plan(tmp_path, SWEEP.replace("[2, 4]", "[2, 4, 8]") + when).cells
    assert two.recipe
    assert four.recipe
    assert eight.recipe

    assert (two.recipe.optimizer.lr, two.recipe.optimizer.momentum, two.recipe.mixing.switch, two.note) == (0.25, 0.5, False, "second")
    assert (four.recipe.optimizer.lr, four.note) == (0.06, None)
    assert (eight.recipe.optimizer.lr, eight.recipe.optimizer.momentum, eight.note) == (0.25, 0.9, "second")


def test_when_may_choose_another_recipe(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(RECIPE + "optimizer: {lr: 0.125}\n")

    assert lrs(make_plan(tmp_path, SWEEP + "when: [{if: {grid: 4}, recipe: other.yaml}]\n")) == [0.06, 0.125]


def test_an_excluded_cell_keeps_its_place_and_reason_and_has_no_trial(tmp_path: Path) -> None:
    made = make_plan(tmp_path, SWEEP.replace("[2, 4]", "[2, 64]") + "exclude: [{if: {grid: 64}, reason: too fine}]\n")

    assert [(cell.id, cell.excluded) for cell in made.cells] == [("grid=2", None), ("grid=64", "too fine")]
    assert {trial.cell for trial in made.trials} == {"grid=2"}


def test_an_included_cell_comes_first_and_is_laid_over_everything(tmp_path: Path) -> None:
    include = "include: [{as: {grid: none}, label: MoCo, set: {mixing: none, optimizer.lr: 0.25}, note: clean}]\n"
    made = make_plan(tmp_path, SWEEP + "set: {optimizer.lr: 0.5}\n" + include)
    first = made.cells[0]
    assert first.recipe

    assert (first.id, first.label, first.note, first.included) == ("grid=none", "MoCo", "clean", True)
    assert (first.recipe.mixing.kind, first.recipe.optimizer.lr) == ("none", 0.25)
    assert lrs(made) == [0.25, 0.5, 0.5]


TWO_AXES = SWEEP.replace("seeds: 2", "  epochs: {key: schedule.epochs, levels: [1, 2]}\nseeds: 1")


def test_an_included_cell_is_crossed_with_the_axes_that_it_names(tmp_path: Path) -> None:
    made = make_plan(tmp_path, TWO_AXES + "include: [{as: {grid: none}, set: {mixing: none}, cross: [epochs]}]\n")

    assert [cell.id for cell in made.cells[:2]] == ["grid=none,epochs=1", "grid=none,epochs=2"]
    assert [cell.recipe.schedule.epochs for cell in made.cells[:2] if cell.recipe] == [1, 2]
    assert len(made.cells) == 6


def test_an_included_cell_that_is_not_crossed_has_a_dash_there(tmp_path: Path) -> None:
    made = make_plan(tmp_path, TWO_AXES + "include: [{as: {grid: none}, set: {mixing: none}}]\n")

    assert made.cells[0].levels == {"grid": "none", "epochs": "–"}


def test_the_order_of_precedence_is_recipe_set_when_profile_command_line_level_include(tmp_path: Path) -> None:
    keys = ["lr: 0.1", "lr: 0.2", "lr: 0.3", "lr: 0.4"]
    recipe = RECIPE + f"optimizer: {{{keys[0]}}}\n"
    layers = [
        "",
        f"set: {{optimizer.{keys[1]}}}\n",
        f"when: [{{if: {{grid: [2, 4]}}, set: {{optimizer.{keys[2]}}}}}]\n",
        f"profiles: {{fast: {{set: {{optimizer.{keys[3]}}}}}}}\n",
    ]
    seen = [lrs(make_plan(tmp_path, SWEEP + "".join(layers[: i + 1]), "fast" if i == 3 else None, recipe)) for i in range(4)]
    overridden = make_plan(tmp_path, SWEEP + "".join(layers), "fast", recipe, overrides=[Change("optimizer.lr", 0.5, 0)])
    included = SWEEP + "".join(layers) + "include: [{as: {grid: none}, set: {optimizer.lr: 0.6}}]\n"
    last = make_plan(tmp_path, included, "fast", recipe, overrides=[Change("optimizer.lr", 0.5, 0)])

    assert seen == [[0.1] * 2, [0.2] * 2, [0.3] * 2, [0.4] * 2]
    assert lrs(overridden) == [0.5, 0.5]
    assert lrs(last) == [0.6, 0.5, 0.5]


PROFILES = SWEEP + (
    "profiles:\n  smoke: {set: {schedule.epochs: 1}, seeds: 1, axes: {grid: {levels: [4]}}, resources: {cpus: 3}}\n  plain: {}\n"
)


def test_a_profile_changes_keys_seeds_levels_and_resources(tmp_path: Path) -> None:
    made = make_plan(tmp_path, PROFILES, "smoke")
    whole = make_plan(tmp_path, PROFILES)

    assert (made.name, whole.name) == ("tiny@smoke", "tiny")
    assert (grids(made), grids(whole)) == ([4], [2, 4])
    assert (made.seeds, whole.seeds) == ((0,), (0, 1))
    assert (made.resources.cpus, whole.resources.cpus) == (3, 1)
    assert {trial.recipe.schedule.epochs for trial in made.trials} == {1}


def test_a_profile_that_changes_nothing_asks_for_the_same_trials(tmp_path: Path) -> None:
    plain, whole, paper = (make_plan(tmp_path, PROFILES, profile) for profile in ("plain", None, "paper"))

    assert [t.id for t in plain.trials] == [t.id for t in whole.trials] == [t.id for t in paper.trials]
    assert (plain.name, paper.name) == ("tiny@plain", "tiny")


def test_an_unknown_profile_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no profile 'smok'\. Did you mean 'smoke'\?"):
        make_plan(tmp_path, PROFILES, "smok")


def test_a_recipes_own_profile_holds_below_the_sweep(tmp_path: Path) -> None:
    recipe = RECIPE + "profiles: {smoke: {optimizer: {lr: 0.25}}}\n"

    assert lrs(make_plan(tmp_path, PROFILES, "smoke", recipe)) == [0.25]
    assert lrs(make_plan(tmp_path, PROFILES, None, recipe)) == [0.06, 0.06]


def test_a_profile_may_take_another_profile_of_the_recipes_and_says_so_where_they_have_none(tmp_path: Path) -> None:
    recipe = RECIPE + "profiles: {smoke: {optimizer: {lr: 0.25}}}\n"
    sweep = SWEEP + "profiles:\n  longer: {recipes: smoke, set: {schedule.epochs: 7}}\n"

    made = make_plan(tmp_path, sweep, "longer", recipe)

    assert lrs(made) == [0.25] * len(made.cells)
    assert {cell.recipe.schedule.epochs for cell in made.cells if cell.recipe} == {7}
    assert any(
        "has no profile 'smok'" in str(problem) for problem in problems_of(tmp_path, sweep.replace("recipes: smoke", "recipes: smok"))
    )


def test_a_condition_may_name_a_level_that_a_profile_dropped(tmp_path: Path) -> None:
    assert problems_of(tmp_path, PROFILES + "exclude: [{if: {grid: 2}, reason: never}]\n") == []


def test_the_table_defaults_to_the_first_axis_in_rows(tmp_path: Path) -> None:
    assert plan.table_of(make_plan(tmp_path, TWO_AXES)) == {"rows": ["grid"], "columns": ["epochs"], "baseline": None, "published": []}


def test_the_plan_as_stored_names_every_cell_and_trial(tmp_path: Path) -> None:
    made = make_plan(tmp_path, SWEEP + "table: {rows: grid, baseline: {grid: 2}}\nexclude: [{if: {grid: 4}, reason: no}]\n")
    stored = made.as_mapping()

    assert (stored["sweep"], stored["profile"], stored["seeds"], stored["file"]) == ("tiny", None, [0, 1], "sweep.yaml")
    assert stored["axes"] == [{"name": "grid", "keys": ["mask.grid"], "levels": ["2", "4"]}]
    assert stored["table"]["baseline"] == {"grid": "2"}
    assert [(cell["id"], cell["excluded"], len(cell["trials"])) for cell in stored["cells"]] == [("grid=2", None, 2), ("grid=4", "no", 0)]
    assert stored["cells"][0]["trials"] == [{"trial": t.id, "seed": t.seed} for t in made.trials]


@pytest.mark.parametrize(
    ("added", "line", "said"),
    [
        ("when: [{if: {gird: 2}, set: {optimizer.lr: 1}}]\n", 9, "'gird' is no axis of this sweep. Did you mean 'grid'?"),
        ("when:\n  - {if: {grid: 3}, set: {optimizer.lr: 1}}\n", 10, "axis 'grid' has no level 3"),
        ("when: [{if: {grid: 2}, recipe: none.yaml}]\n", 9, "no shipped recipe"),
        ("when: [{if: {grid: 2}, set: {optimizer.rl: 1}}]\n", 9, "optimizer.rl is not a known key"),
        ("exclude: [{if: {grid: [2, 3]}, reason: no}]\n", 9, "axis 'grid' has no level 3"),
        ("exclude: [{if: {grid: 2}}]\n", 9, "the key 'reason' is missing"),
        ("include: [{as: {gird: 2}}]\n", 9, "'gird' is no axis"),
        ("include: [{as: {grid: none}, cross: [gird]}]\n", 9, "'gird' is no axis"),
        ("include:\n  - {as: {grid: a}}\n  - {as: {grid: a}}\n", 11, "the cell grid=a stands twice"),
        ("include:\n  - {as: {grid: 2}}\n", 10, "the cell grid=2 stands twice"),
        ("include: [{as: {grid: a}, recipe: none.yaml}]\n", 9, "no shipped recipe"),
        ("set: {mask.grid: 2}\nprofiles:\n  fast: {set: {mask.grid: 2}}\n", 11, "axis 'grid' sets it in every cell"),
        ("table: {rows: gird}\n", 9, "the table names 'gird', which is no axis"),
        ("table: {rows: grid, columns: grid}\n", 9, "stands 2 times in rows and columns"),
        ("table: {rows: []}\n", 9, "stands 0 times in rows and columns"),
        ("table: {rows: grid, baseline: {grid: 7}}\n", 9, "axis 'grid' has no level 7"),
        ("set:\n  mixing: none\n  backbone: vit-tiny\n", 11, "is vit-tiny, but moco is built on a ResNet here. Use resnet18"),
        ("seeds: [0, -1]\n", 9, "stands here again"),
        ("resources: {cpus: 0}\n", 9, "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_a_problem_is_told_on_its_line(tmp_path: Path, added: str, line: int, said: str) -> None:
    problems = problems_of(tmp_path, SWEEP + added)

    assert any(at == line and said in message for at, message in problems), problems


def test_the_metric_must_be_measured(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, SWEEP.replace("knn.top1", "knn.top5"))

    assert problems == [(8, "no protocol of the recipe measures 'knn.top5'. Did you mean 'knn.top1'?")]
    assert problems_of(tmp_path, SWEEP.replace("knn.top1", "train.loss")) == []


BY = "set: {evaluate.linear: {kind: lbfgs, weight_decay: 1.0e-3}}\nmetric: {name: knn.top1, by: {grid: {4: linear.top1}}}\n"


def test_the_metric_may_depend_on_a_level(tmp_path: Path) -> None:
    stored = make_plan(tmp_path, SWEEP.replace("metric: {name: knn.top1}\n", BY)).as_mapping()
    smaller = BY.replace("4: linear.top1", "4: {name: train.loss, goal: min}")
    other = make_plan(tmp_path, SWEEP.replace("metric: {name: knn.top1}\n", smaller)).as_mapping()

    assert stored["metric"] == stored["cells"][0]["metric"] == {"name": "knn.top1", "goal": "max", "take": "last"}
    assert stored["cells"][1]["metric"] == {"name": "linear.top1", "goal": "max", "take": "last"}
    assert other["cells"][1]["metric"] == {"name": "train.loss", "goal": "min", "take": "last"}


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("4: linear.top1", "4: linear.top5", 9, "no protocol of the recipe measures 'linear.top5'. Did you mean 'linear.top1'?"),
        ("4: linear.top1", "16: linear.top1", 9, "axis 'grid' has no level 16"),
        ("by: {grid:", "by: {gird:", 9, "'gird' is no axis of this sweep. Did you mean 'grid'?"),
        ("{evaluate.linear: {kind: lbfgs, weight_decay: 1.0e-3}}", "{}", 9, "no protocol of the recipe measures 'linear.top1'"),
        ("by: {grid: {4: linear.top1}", "by: {grid: {4: linear.top1}, other: {}", 9, "at most 1"),
    ],
)
def test_a_metric_that_depends_on_what_is_not_there_is_told(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    problems = problems_of(tmp_path, SWEEP.replace("metric: {name: knn.top1}\n", BY).replace(old, new))

    assert any(at == line and said in message for at, message in problems), problems


def test_a_cell_that_does_not_measure_the_metric_is_named(tmp_path: Path) -> None:
    off = "when: [{if: {grid: 4}, set: {evaluate: {knn: {kind: 'off'}, linear: {kind: lbfgs, weight_decay: 1.0e-3}}}}]\n"

    assert problems_of(tmp_path, SWEEP + off) == [
        (8, "no protocol of the recipe of the cell grid=4 measures 'knn.top1'. Did you mean 'linear.top1'?")
    ]


def test_problems_of_every_part_and_profile_are_told_at_once(tmp_path: Path) -> None:
    text = SWEEP.replace("[2, 4]", "[2, 1]") + ("set: {mask.gird: 2}\nprofiles: {fast: {set: {schedule.epoch: 1}}}\nset: {}\nextra: 1\n")

    assert {line for line, _ in problems_of(tmp_path, text)} >= {6, 9, 10, 11, 12}


def test_a_plan_with_problems_is_refused_whole(tmp_path: Path) -> None:
    with pytest.raises(SweepFileError, match=r"sweep\.yaml:6: mask\.grid is 1"):
        make_plan(tmp_path, SWEEP.replace("[2, 4]", "[1, 4]"))


def test_planning_leaves_the_recipe_file_values_alone(tmp_path: Path) -> None:
    loaded = spec.load(write_sweep(tmp_path, SWEEP + "set: {optimizer.lr: 0.5, mixing.switch: false}\n"))
    for _ in range(2):
        plan.make(loaded, None, lambda data: data.name)

    assert loaded.recipe("tiny.yaml", None) == plain_recipe()
