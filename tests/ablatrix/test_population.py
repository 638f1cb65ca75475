"""Population based training as a search: generations, heirs, and what a run that is broken off goes on with."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from ablatrix import plan, population, spec
from ablatrix.cli import main
from ablatrix.errors import InvalidInput, TrialsMissing
from ablatrix.grid import Level
from ablatrix.identity import trial_id
from ablatrix.layers import Change
from ablatrix.population import Member
from ablatrix.records import Report, Result, encode_report
from ablatrix.schema import Scheduler
from ablatrix.search import Search, with_recorded
from ablatrix.space import dimensions
from ablatrix.store import Store
from ablatrix_models.recipe import Recipe
from tiny_sweep import RECIPE, SWEEP, problems_of, tiny_recipe, write_sweep

LONG = RECIPE.replace("epochs: 2", "epochs: 6")
SPACE = """\
    lr: {key: optimizer.lr, low: 1.0e-4, high: 1.0, log: true}
    mixing: {key: mixing, levels: [none, mixmask, unmix]}
    grid: {key: mask.grid, low: 2, high: 8, if: {mixing: mixmask}}
"""
TEXT = SWEEP.replace(
    "axes:\n  grid: {key: mask.grid, levels: [2, 4]}\nseeds: 2\n",
    f"search:\n  algorithm: random\n  trials: 4\n  scheduler: {{name: pbt, interval_epochs: 2}}\n  space:\n{SPACE}",
)
PBT = Scheduler(name="pbt", interval_epochs=2)


def begin(place: Path, text: str = TEXT, store: str = "runs") -> Search:
    made = plan.make(spec.load(write_sweep(place, text, LONG)), None, lambda data: "print")
    kept = Store(place / store)
    return Search(made, kept, kept.sweep("tiny"), lambda data: "print", lambda plan: kept.sweep("tiny").submit(text, plan.as_mapping()))


def score(recipe: dict[str, Any]) -> float:
    """Best at a learning rate of 0.01; a course counts by the sum of its legs."""
    rates = [leg["optimizer"]["lr"] for leg in (*recipe["course"], recipe)]
    return 80 - sum(abs(math.log10(rate) + 2) for rate in rates)


def finish(search: Search, trial: str, outcome: str = "finished") -> None:
    directory = search.store.trial(trial)
    recipe = directory.recipe().recipe
    if outcome == "finished":
        directory.metrics_file.write_text(encode_report(Report(1, 1, 0.0, {"train.loss": 1.0})))
        directory.write_result(Result(trial, {"knn.top1": score(recipe)}, 1, 10.0, 1, "host", "cpu"))
    search.told(trial, outcome)


def drive(search: Search, at_once: int = 4, stop_after: int | None = None, failing: tuple[int, ...] = (), last_first: bool = False) -> int:
    """Run a population, trials of these numbers failing; how many were given."""
    given, running = 0, list[str]()
    while True:
        trial = search.next() if len(running) < at_once and (stop_after is None or given < stop_after) else None
        if trial is not None:
            running.append(trial)
            given += 1
        elif running and (stop_after is None or given < stop_after):
            ended = running.pop(-1 if last_first else 0)
            finish(search, ended, "failed" if any(n in failing for n in search._numbers[ended]) else "finished")
        else:
            return given


def suggested(search: Search) -> list[dict[str, Any]]:
    return [line for line in search.suggestions() if line["event"] == "suggested"]


def recipes(search: Search) -> list[dict[str, Any]]:
    return [search.store.trial(line["trial"]).recipe().recipe for line in suggested(search)]


def test_members_are_trained_in_legs_and_the_worst_goes_on_from_the_best(tmp_path: Path) -> None:
    search = begin(tmp_path)
    drive(search)
    lines, made = suggested(search), recipes(search)

    assert search.exhausted
    assert search.gave_up is None
    assert [line["number"] for line in lines] == list(range(12))
    assert [recipe["schedule"]["until"] for recipe in made] == [2] * 4 + [4] * 4 + [0] * 4
    for generation in (1, 2):
        before = made[4 * generation - 4 : 4 * generation]
        scores = [score(recipe) for recipe in before]
        best, worst = scores.index(max(scores)), scores.index(min(scores))
        parents = [line["parent"] - (4 * generation - 4) for line in lines[4 * generation : 4 * generation + 4]]
        assert parents == [best if member == worst else member for member in range(4)]
        for member, parent in enumerate(parents):
            levels = lines[4 * generation + member]["levels"]
            kept = levels == lines[4 * generation - 4 + parent]["levels"]
            assert kept == (member != worst)
    labels = [str(cell.label) for cell in search.plan.cells]
    assert [label.partition(":")[0] for label in labels] == [str(n) for n in range(12)]
    assert labels[3].endswith(", epochs 1 to 2")
    assert labels[4].endswith(f", epochs 3 to 4, from {lines[4]['parent']}")


def test_each_leg_names_the_trial_that_it_goes_on_from_by_its_recipe_alone(tmp_path: Path) -> None:
    search = begin(tmp_path)
    drive(search)
    lines = suggested(search)
    for line, made in zip(lines[4:], recipes(search)[4:], strict=True):
        parent = Recipe.read(made).parent()
        assert parent is not None
        assert trial_id(parent, 0, "print") == lines[line["parent"]]["trial"]


@pytest.mark.parametrize("stop", [1, 3, 4, 6, 9])
def test_a_population_is_a_function_of_its_seed_however_often_it_is_broken_off_and_whatever_ends_first(tmp_path: Path, stop: int) -> None:
    whole, broken = begin(tmp_path), begin(tmp_path, store="other")
    drive(whole)
    drive(broken, at_once=2, stop_after=stop, last_first=True)
    again = begin(tmp_path, store="other")
    drive(again, at_once=3, last_first=True)
    another = begin(tmp_path, TEXT.replace("trials: 4", "trials: 4\n  seed: 1"), "third")
    drive(another)

    assert [line["trial"] for line in suggested(again)] == [line["trial"] for line in suggested(whole)]
    assert {line["trial"] for line in suggested(another)}.isdisjoint(line["trial"] for line in suggested(whole))
    assert [cell.label for cell in again.plan.cells] == [cell.label for cell in whole.plan.cells]


def test_a_generation_waits_for_all_of_the_one_before(tmp_path: Path) -> None:
    search = begin(tmp_path)
    first = [search.next() for _ in range(4)]
    assert len(set(first)) == 4
    for trial in first[:3]:
        assert search.next() is None
        assert not search.exhausted
        finish(search, str(trial))
    assert search.next() is None
    finish(search, str(first[3]))
    assert search.next() is not None


def test_a_failed_member_is_replaced_wherever_it_stood(tmp_path: Path) -> None:
    search = begin(tmp_path)
    drive(search, failing=(1, 2))
    lines = suggested(search)
    scores = {n: score(recipe) for n, recipe in enumerate(recipes(search)[:4]) if n not in (1, 2)}
    best = max(scores, key=lambda n: scores[n])

    assert [lines[5]["parent"], lines[6]["parent"]] == [best, best]
    assert search.exhausted


def test_a_population_of_which_all_failed_gives_up_and_one_that_was_freed_is_gone_on_from(tmp_path: Path) -> None:
    search = begin(tmp_path)
    drive(search, failing=(0, 1, 2, 3))
    assert isinstance(search.gave_up, TrialsMissing)
    assert "all 4 members of the population failed" in str(search.gave_up)
    assert search.exhausted

    freed = suggested(search)[2]["trial"]
    finish(search, freed)
    again = begin(tmp_path)
    drive(again)

    assert again.gave_up is None
    assert {line["parent"] for line in suggested(again)[4:8]} == {2}


def test_the_plan_shows_what_is_recorded_without_a_study(tmp_path: Path) -> None:
    search = begin(tmp_path)
    drive(search)
    fresh = plan.make(spec.load(write_sweep(tmp_path, TEXT, LONG)), None, lambda data: "print")
    seen = with_recorded(fresh, search.sweep, lambda data: "print")

    assert fresh.suggestions == 12
    assert [trial.id for trial in seen.trials] == [trial.id for trial in search.plan.trials]


def test_another_interval_or_size_is_another_search(tmp_path: Path) -> None:
    drive(begin(tmp_path))
    for changed in (TEXT.replace("interval_epochs: 2", "interval_epochs: 3"), TEXT.replace("trials: 4", "trials: 5")):
        with pytest.raises(InvalidInput, match="was begun with another space"):
            begin(tmp_path, changed)


def member(number: int) -> Member:
    return Member(number, {}, tiny_recipe(), str(number))


@pytest.mark.parametrize(
    ("scores", "quantile", "replaced"),
    [
        ([1.0, 2.0, 3.0, 4.0], 0.25, {0}),
        ([1.0, 2.0, 3.0, 4.0], 0.5, {0, 1}),
        ([5.0, 5.0, 5.0, 5.0], 0.25, {3}),
        ([math.nan, 2.0, 3.0, 4.0], 0.25, {0, 1}),
        ([math.nan, math.nan, math.nan, 4.0], 0.25, {0, 1, 2}),
        ([1.0, 2.0], 0.25, {0}),
    ],
)
def test_who_is_replaced(scores: list[float], quantile: float, replaced: set[int]) -> None:
    settings = PBT.model_copy(update={"quantile": quantile})
    generation = [member(n) for n in range(len(scores))]
    for seed in range(20):
        found = population.heirs(generation, scores, settings, random.Random(seed))
        assert {n for n, heir in enumerate(found) if heir.explores} == replaced
        share = max(1, int(quantile * len(scores)))
        best = sorted((n for n, s in enumerate(scores) if s == s), key=lambda n: -scores[n])[:share]
        assert all(heir.parent.number in best if n in replaced else heir.parent.number == n for n, heir in enumerate(found))
    assert population.heirs(generation, [math.nan] * len(scores), settings, random.Random(0)) == []


def explored(place: Path, space: str, levels: dict[str, Any], settings: Scheduler, count: int = 300) -> dict[str, set[str]]:
    text = TEXT.replace(SPACE, space)
    found = dimensions(spec.load(write_sweep(place, text, LONG)))[0]
    before = {name: Level(str(value), (Change(f"x.{name}", value, 1),)) for name, value in levels.items()}
    seen: dict[str, set[str]] = {}
    for seed in range(count):
        for name, level in population.explore(found, before, settings, random.Random(seed)).items():
            seen.setdefault(name, set()).add(level.label)
    return seen


def test_exploring_moves_to_both_sides_and_stays_within_the_space(tmp_path: Path) -> None:
    space = """\
    lr: {key: optimizer.lr, low: 0.01, high: 0.1, log: true}
    decay: {key: optimizer.weight_decay, low: 0.0, high: 0.5, step: 0.1}
    grid: {key: mask.grid, low: 2, high: 8}
    wide: {key: mask.ratio, low: 0.1, high: 0.9}
    mixing: {key: mixing, levels: [none, mixmask, unmix]}
"""
    moved = PBT.model_copy(update={"resample": 0.0})
    levels = {"lr": 0.09, "decay": 0.5, "grid": 3, "wide": 0.5, "mixing": "none"}
    seen = explored(tmp_path, space, levels, moved)

    assert seen["lr"] == {"0.1", "0.075"}
    assert seen["decay"] == {"0.5", "0.4"}
    assert seen["grid"] == {"2", "4"}
    assert seen["wide"] == {"0.6", "0.416667"}
    assert seen["mixing"] == {"none", "mixmask"}

    anew = explored(tmp_path, space, levels, PBT.model_copy(update={"resample": 1.0}))
    assert anew["grid"] == {str(n) for n in range(2, 9)}
    assert anew["mixing"] == {"none", "mixmask", "unmix"}
    assert anew["decay"] == {"0", "0.1", "0.2", "0.3", "0.4", "0.5"}
    rates = [float(rate) for rate in anew["lr"]]
    assert 0.01 <= min(rates) < 0.012
    assert 0.085 < max(rates) <= 0.1
    assert 0.3 < sum(rate < math.sqrt(0.001) for rate in rates) / len(rates) < 0.7  # even in the logarithm


def test_a_dimension_that_the_parent_has_not_is_drawn(tmp_path: Path) -> None:
    seen = explored(tmp_path, SPACE, {"lr": 0.01, "mixing": "none"}, PBT.model_copy(update={"resample": 0.0}))

    assert seen["mixing"] == {"none", "mixmask"}
    assert seen["grid"] == {str(n) for n in range(2, 9)}


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("interval_epochs: 2", "interval_epochs: 6", 8, "interval_epochs is 6, but members train 6 epochs"),
        (", interval_epochs: 2", "", 8, "pbt needs interval_epochs"),
        ("name: pbt", "name: asha", 8, "interval_epochs belongs to pbt, and the scheduler is asha"),
        (
            "interval_epochs: 2",
            "interval_epochs: 2, grace_epochs: 3",
            8,
            "grace_epochs belongs to asha and median",
        ),
        ("name: pbt, interval_epochs: 2", "name: median, reduction: 3", 8, "reduction belongs to asha, and the scheduler is median"),
        ("trials: 4", "trials: 4\n  population: 8", 9, "with pbt the population is as large as `trials` says"),
        ("algorithm: random", "algorithm: tpe", 8, "so tpe would have no say. Begin with random or quasirandom."),
        ("trials: 4", "trials: 1", 8, "a population of 1 has nobody to learn from"),
        ("optimizer.lr, low: 1.0e-4, high: 1.0, log: true", "schedule.epochs, low: 4, high: 6", 8, "but the space has 4 and 6 epochs"),
        ("optimizer.lr, low: 1.0e-4, high: 1.0, log: true", "method.dim, low: 8, high: 16", 8, "method.dim changes in the course of"),
        ("optimizer.lr, low: 1.0e-4, high: 1.0, log: true", "schedule.batch_size, levels: [8, 16]", 8, "more than a course may change"),
        ("optimizer.lr, low: 1.0e-4, high: 1.0, log: true", "method, levels: [simclr, byol]", 8, "method.name changes in the course of"),
    ],
)
def test_a_population_that_cannot_be_is_told_on_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    problems = problems_of(tmp_path, TEXT.replace(old, new, 1), LONG)

    assert any(at == line and said in message for at, message in problems), problems


def test_a_good_population_is_good_and_a_profile_may_have_a_smaller_one(tmp_path: Path) -> None:
    text = TEXT + "profiles: {smoke: {trials: 2, set: {data.held_out: 16}}}\n"

    assert problems_of(tmp_path, text, LONG) == []
    assert plan.make(spec.load(write_sweep(tmp_path, text, LONG)), "smoke", lambda data: "print").suggestions == 6


def test_check_says_in_what_legs_members_are_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", str(write_sweep(tmp_path, TEXT, LONG))])

    assert ended.value.code in (0, None)
    assert "good. Search: 4 by random over lr, mixing, grid, in legs of 2 epochs." in capsys.readouterr().out


def test_leg_lengths_are_those_of_the_interval_and_the_last_is_what_is_left() -> None:
    assert [population.legs(epochs, PBT) for epochs in (3, 4, 5, 6)] == [2, 2, 3, 3]
    assert dataclasses.asdict(tiny_recipe(schedule__epochs=6).schedule)["until"] == 0


def test_the_record_says_from_whom_a_leg_goes_on(tmp_path: Path) -> None:
    search = begin(tmp_path)
    drive(search)
    lines = [json.loads(line) for line in (search.place / "suggestions.jsonl").read_text().splitlines()]
    legs = [line for line in lines if line["event"] == "suggested"]

    assert ["parent" in line for line in legs] == [False] * 4 + [True] * 8
    assert {line["seed"] for line in legs} == {0}
