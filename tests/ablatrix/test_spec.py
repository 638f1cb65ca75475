from __future__ import annotations

from pathlib import Path

import pytest

from ablatrix import shipped, spec
from ablatrix.errors import FileProblem, InvalidInput, SweepFileError
from tiny_sweep import RECIPE, SWEEP, problems_of, write_sweep


def test_a_good_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    loaded = spec.load(write_sweep(tmp_path))

    assert loaded.problems == ()
    assert (loaded.file.sweep, loaded.file.seeds, loaded.file.metric.goal, loaded.file.metric.take) == ("tiny", 2, "max", "last")
    assert loaded.file.resources.cpus == 1


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("schema: 1", "schema: 2", 1, "it should be 1"),
        ("schema: 1", "schema_: 1", 1, "'schema_' is not a known key. Did you mean 'schema'?"),
        ("sweep: tiny", "sweep: Tiny Sweep", 2, "lower-case letters, digits"),
        ("sweep: tiny", "sweep: ../tiny", 2, "since it names a directory"),
        ("sweep: tiny", "swep: tiny", 2, "'swep' is not a known key. Did you mean 'sweep'?"),
        ('"A tiny sweep"', "5", 3, "valid string"),
        ("recipe: tiny.yaml", "recipe:", 4, "the key 'recipe' is missing"),
        (
            "schema: 1",
            "metric: knn.top1\nschema: 1",
            1,
            "metric has the value 'knn.top1' that is refused: it should be keys with values: name, ",
        ),
        ("recipe: tiny.yaml", "recipe: 5", 4, "recipe has the value 5 that is refused"),
        ("recipe: tiny.yaml", "recipe: " + "a" * 300 + ".yaml", 4, "is no shipped recipe"),
        ("recipe: tiny.yaml", "recipe: mixmask/moco-cifer", 4, "Did you mean 'mixmask/moco-cifar'?"),
        ("seeds: 2", "seeds: '2'", 7, "without quotes"),
        ("seeds: 2", "seeds: 0", 7, "greater than or equal to 1"),
        ("seeds: 2", "seeds: 2\nresources: {gpus: 1.5}", 8, "resources.gpus has the value 1.5 that is refused: above one GPU"),
        ("seeds: 2", "seeds: 2\nresources: {gpus: 0.5, workers: 2}", 8, "resources is refused: 2 workers need whole GPUs, not 0.5 each"),
        ("seeds: 2", "seeds: [0, -1]", 7, "seeds.1 has the value -1"),
        ("seeds: 2", "seeds: 1" + "0" * 300, 7, "too large"),
        ("key: mask.grid", "kye: mask.grid", 6, "'kye' is not a known key of axes.grid. Did you mean 'key'?"),
        ("  grid:", "  my grid:", 6, "axes.my grid"),
        ("{name: knn.top1}", "{name: knn.top1, goal: most}", 8, "'max' or 'min'"),
        ("{name: knn.top1}", "{}", 8, "the key 'name' is missing of metric"),
    ],
)
def test_a_wrong_shape_is_told_on_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    problems = problems_of(tmp_path, SWEEP.replace(old, new))

    assert any(at == line and said in message for at, message in problems), problems
    assert all(len(message) < 300 or "Known:" in message for _, message in problems)


def test_of_nested_complaints_only_the_innermost_is_told(tmp_path: Path) -> None:
    assert [line for line, _ in problems_of(tmp_path, SWEEP.replace("seeds: 2", "seeds: [0, -1]"))] == [7]


def test_problems_of_shape_do_not_hide_those_of_meaning(tmp_path: Path) -> None:
    text = SWEEP + "when:\n  - {if: {grid: 2}, sets: {optimizer.lr: 1}}\nset: {mask.gird: 2}\nextra: 1\n"

    assert [line for line, _ in problems_of(tmp_path, text)] == [10, 11, 12]


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("sweep: tiny", "sweep: My Sweep", 2, "lower-case letters"),
        ("schema: 1", "schema: 2", 1, "schema has the value 2"),
        ("metric: {name: knn.top1}", "metric: {nme: knn.top1}", 8, "'nme' is not a known key"),
        ("metric: {name: knn.top1}", "metric: knn.top1", 8, "it should be keys with values"),
        ("metric: {name: knn.top1}", "", None, "the key 'metric' is missing"),
    ],
)
def test_nor_do_those_of_required_keys_which_are_told_once(tmp_path: Path, old: str, new: str, line: int | None, said: str) -> None:
    assert old in SWEEP
    text = SWEEP.replace(old, new) + "set: {mask.gird: 2}\n"
    problems = problems_of(tmp_path, text)

    assert [at for at, message in problems if "mask.gird" in message] == [9]
    assert [message for at, message in problems if said in message and line in (at, None)]
    assert all(stand_in not in str(problems) for stand_in in ("unnamed", "untitled", "train.loss"))


def test_a_recipe_extends_another_and_profiles_lie_over_both(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "optimizer: {lr: 1.0, momentum: 0.5}\nmixing: mixmask\nprofiles: {smoke: {schedule: {epochs: 1}}}\n"
    )
    (tmp_path / "own.yaml").write_text("extends: base.yaml\noptimizer: {lr: 2.0}\nprofiles: {smoke: {optimizer: {lr: 3.0}}, other:}\n")

    plain = spec.read_recipe("own.yaml", None, tmp_path)
    smoke = spec.read_recipe("own.yaml", "smoke", tmp_path)

    assert plain == {"optimizer": {"lr": 2.0, "momentum": 0.5}, "mixing": "mixmask"}
    assert smoke == {"optimizer": {"lr": 3.0, "momentum": 0.5}, "mixing": "mixmask", "schedule": {"epochs": 1}}
    assert spec.read_recipe("own.yaml", "other", tmp_path) == plain


def test_what_a_recipe_extends_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "base.yaml").write_text("mixing: unmix\n")
    (tmp_path / "deep" / "own.yaml").write_text("extends: base.yaml\n")

    assert spec.read_recipe("deep/own.yaml", None, tmp_path) == {"mixing": "unmix"}


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("extends: tiny.yaml\n", "the recipe extends itself"),
        ("extends: ./../{here}/tiny.yaml\n", "the recipe extends itself"),
        ("extends: other.yaml\n", "the recipe extends itself"),
        ("extends: 5\n", "extends must name one recipe"),
        ("extends: [tiny.yaml]\n", "extends must name one recipe"),
        ("extends: none.yaml\n", "is no shipped recipe"),
        ("profiles: 5\n", "profiles must be a mapping"),
        ("profiles: {smoke: 5}\n", "profiles must be a mapping"),
        ("mixing: none\n", "stands here again"),
        ("optimizer: {lr: fast}\n", "optimizer.lr is the text 'fast'"),
        ("nonsense: 1\n", "nonsense is not a known key"),
    ],
)
def test_a_bad_recipe_file_is_told_where_the_sweep_names_it(tmp_path: Path, added: str, said: str) -> None:
    (tmp_path / "other.yaml").write_text("extends: tiny.yaml\n")
    problems = problems_of(tmp_path, SWEEP, RECIPE + added.replace("{here}", tmp_path.name))

    assert [line for line, _ in problems] == [4]
    assert said in problems[0][1]


def test_a_sweep_is_found_by_path_or_shipped_name(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)

    assert shipped.find_sweep(str(path)) == path
    assert shipped.find_sweep("quickstart") == shipped.sweeps()["quickstart"]
    assert "mixmask/moco-digits" in shipped.recipes()


@pytest.mark.parametrize("name", ["quickstarts", "", "a" * 5000, "a" * 300 + ".yaml", "~nobody-of-that-name/x.yaml", "a\0b", "-"])
def test_a_name_that_is_nothing_is_refused_briefly(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec.load(shipped.find_sweep(name))

    assert len(str(caught.value)) < 250


def problems_of_shipped(name: str) -> list[FileProblem]:
    from ablatrix import plan

    try:
        return plan.check(spec.load(shipped.sweeps()[name]))
    except SweepFileError as error:
        return list(error.problems)


@pytest.mark.parametrize("name", [name for name in shipped.sweeps() if not name.endswith("-transfer")])
def test_every_shipped_sweep_is_good(name: str) -> None:
    assert problems_of_shipped(name) == []


@pytest.mark.parametrize("name", [name for name in shipped.sweeps() if name.endswith("-transfer")])
def test_a_table_whose_evaluations_are_not_built_is_refused_by_their_names(name: str) -> None:
    problems = problems_of_shipped(name)

    assert problems != []
    assert [p for p in problems if "an evaluation that Ablatrix does not have yet" not in p.message] == []
