from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ablatrix import plan, spec
from ablatrix.cli.planned import sense
from ablatrix.errors import DamagedRecord, InvalidInput
from ablatrix.records import Report, Result, encode_report
from ablatrix.search import Search
from ablatrix.store import Store
from tiny_sweep import SWEEP, problems_of, write_sweep

SPACE = """\
    lr: {key: optimizer.lr, low: 1.0e-4, high: 1.0, log: true}
    mixing: {key: mixing, levels: [none, mixmask, unmix]}
    grid: {key: mask.grid, low: 2, high: 8, if: {mixing: mixmask}}
"""
SEARCH = SWEEP.replace(
    "axes:\n  grid: {key: mask.grid, levels: [2, 4]}\nseeds: 2\n", f"search:\n  algorithm: random\n  trials: 12\n  space:\n{SPACE}"
)
TWO = "  objectives: [{name: knn.top1}, {name: seconds, goal: min}]\n"
ALGORITHMS = ["random", "quasirandom", "tpe", "gp", "cmaes", "nsgaii"]


def text_for(algorithm: str, trials: int = 12, more: str = "") -> str:
    two = TWO if algorithm == "nsgaii" else ""
    text = SEARCH.replace("trials: 12", f"trials: {trials}").replace("algorithm: random", f"algorithm: {algorithm}\n  startup: 4")
    return text.replace("  space:\n", f"{two}{more}  space:\n")


def begin(place: Path, text: str = SEARCH, store: str = "runs") -> Search:
    """A search as a run begins or resumes it."""
    made = plan.make(spec.load(write_sweep(place, text)), None, lambda data: "print")
    kept = Store(place / store)
    return Search(made, kept, kept.sweep("tiny"), lambda data: "print", lambda plan: kept.sweep("tiny").submit(text, plan.as_mapping()))


def score(recipe: dict[str, Any]) -> float:
    """Best at a learning rate of 0.01 with MixMask on a fine grid."""
    distance = abs(math.log10(recipe["optimizer"]["lr"]) + 2)
    return 80 - 10 * distance + (recipe["mask"]["grid"] if recipe["mixing"]["kind"] == "mixmask" else 0)


def finish(search: Search, trial: str, outcome: str = "finished") -> None:
    directory = search.store.trial(trial)
    value = score(directory.recipe().recipe)
    lines = [encode_report(Report(epoch, epoch, 0.0, {"knn.top1": value - 2 + epoch, "train.loss": 1.0 / epoch})) for epoch in (1, 2)]
    directory.metrics_file.write_text("".join(lines[: 1 if outcome == "pruned" else 2]))
    if outcome == "finished":
        directory.write_result(Result(trial, {"knn.top1": value}, 1, 10.0 + value / 10, 1, "host", "cpu"))
    search.told(trial, outcome)


def drive(search: Search, at_once: int = 1, stop_after: int | None = None, outcomes: tuple[str, ...] = ("finished",)) -> list[str]:
    """Run a search as Tune would, `at_once` trials side by side; those still open when it stops stay so. The trials, as they were given."""
    given: list[str] = []
    running: list[str] = []
    while stop_after is None or len(given) < stop_after:
        trial = search.next()
        if trial is not None:
            given.append(trial)
            running.append(trial)
        if running and (trial is None or len(running) == at_once):
            finish(search, running[0], outcomes[len(given) % len(outcomes)])
            running.pop(0)
        if trial is None and not running:
            break
    return given


def record(search: Search, event: str = "suggested") -> list[dict[str, Any]]:
    return [line for line in search.suggestions() if line["event"] == event]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_gives_ordinary_trials_and_records_each_of_them(tmp_path: Path, algorithm: str) -> None:
    search = begin(tmp_path, text_for(algorithm))
    given = drive(search, at_once=2)
    lines, told = record(search), record(search, "told")

    assert search.exhausted
    assert set(given) == {line["trial"] for line in lines}
    assert [line["number"] for line in lines] == sorted(line["number"] for line in told) == list(range(12))
    assert {line["state"] for line in told} == {"complete"}
    for line in lines:
        recipe = search.store.trial(line["trial"]).recipe().recipe
        assert recipe["optimizer"]["lr"] == line["set"]["optimizer.lr"]
        assert ("grid" in line["levels"]) == (line["levels"]["mixing"] == "mixmask")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_search_goes_on_where_it_was_and_never_repeats_its_first_draws(tmp_path: Path, algorithm: str) -> None:
    first = begin(tmp_path, text_for(algorithm))
    given = drive(first, at_once=2, stop_after=7)
    resumed = begin(tmp_path, text_for(algorithm))
    more = drive(resumed)
    lines = record(resumed)
    rates = [line["set"]["optimizer.lr"] for line in lines]

    # One of the seven was still open: it is given again, and then the other five.
    assert more[0] == given[-1]
    assert algorithm == "nsgaii" or len(more) == 6  # its children may equal a trial that is known
    assert rates[7:] != rates[:5]
    assert algorithm == "nsgaii" or len(set(rates)) == 12  # children of NSGA-II share values with their parents
    assert [cell.id for cell in resumed.plan.cells] == [f"suggestion={n}" for n in range(12)]
    assert resumed.exhausted


@pytest.mark.parametrize("algorithm", ["random", "quasirandom"])
def test_what_is_reproducible_is_so_whatever_ends_first_and_however_often_it_is_resumed(tmp_path: Path, algorithm: str) -> None:
    whole = begin(tmp_path, text_for(algorithm))
    drive(whole)
    for stop in (3, 5, None):
        broken = begin(tmp_path, text_for(algorithm), "other")
        drive(broken, at_once=3, stop_after=stop)
    other_seed = begin(tmp_path, text_for(algorithm, more="  seed: 1\n"), "third")
    drive(other_seed)

    assert [line["trial"] for line in record(broken)] == [line["trial"] for line in record(whole)]
    assert not {line["trial"] for line in record(other_seed)} & {line["trial"] for line in record(whole)}


def test_tpe_learns_from_what_it_is_told(tmp_path: Path) -> None:
    best = {}
    for algorithm in ("random", "tpe"):
        search = begin(tmp_path, text_for(algorithm, trials=40), algorithm)
        drive(search)
        scores = [score(search.store.trial(line["trial"]).recipe().recipe) for line in record(search)]
        best[algorithm] = sum(scores[20:]) / 20

    assert best["tpe"] > best["random"] + 3


def test_failed_pruned_and_stopped_trials_are_told_as_they_are(tmp_path: Path) -> None:
    search = begin(tmp_path, text_for("tpe"))
    for outcome in ("failed", "pruned", "stopped", "finished"):
        trial = search.next()
        assert trial
        finish(search, trial, outcome)
    states = search._study.states()
    pruned = search._study._trial(1)

    assert [states[n] for n in range(4)] == ["FAIL", "PRUNED", "RUNNING", "COMPLETE"]
    assert set(pruned.intermediate_values) == {1}
    assert [line["state"] for line in record(search, "told")] == ["fail", "pruned", "complete"]


def test_a_finished_trial_without_a_finite_objective_is_a_failure(tmp_path: Path) -> None:
    search = begin(tmp_path)
    trial = search.next()
    assert trial
    search.store.trial(trial).write_result(Result(trial, {}, 1, 1.0, 1, "host", "cpu"))
    search.told(trial, "finished")

    assert record(search, "told")[0]["state"] == "fail"


SMALL = SEARCH.replace(SPACE, "    mixing: {key: mixing, levels: [none, unmix]}\n").replace("trials: 12", "trials: 6")


def test_a_small_space_suggests_a_trial_again_and_runs_it_once(tmp_path: Path) -> None:
    search = begin(tmp_path, SMALL)
    given = drive(search, at_once=2)

    assert len(given) == len(set(given)) <= 2
    assert len(record(search)) == 6
    assert [line["state"] for line in record(search, "told")] == ["complete"] * 6


def test_more_trials_may_be_asked_for_later_and_another_algorithm_may_go_on(tmp_path: Path) -> None:
    drive(begin(tmp_path, text_for("random", trials=4)))
    search = begin(tmp_path, text_for("tpe", trials=7))

    assert len(drive(search)) == 3
    assert [line["algorithm"] for line in record(search)] == ["random"] * 4 + ["tpe"] * 3


@pytest.mark.parametrize(
    ("old", "new"), [("high: 1.0", "high: 0.5"), ("[none, mixmask, unmix]", "[none, mixmask]"), ("recipe: tiny.yaml", "recipe: other.yaml")]
)
def test_another_space_or_recipe_is_refused_with_what_to_do(tmp_path: Path, old: str, new: str) -> None:
    from tiny_sweep import RECIPE

    (tmp_path / "other.yaml").write_text(RECIPE.replace("batch_size: 16", "batch_size: 32"))
    drive(begin(tmp_path), stop_after=2)

    with pytest.raises(InvalidInput, match=r"was begun with another space, objective or recipe\. Give the sweep another name"):
        begin(tmp_path, SEARCH.replace(old, new))


def test_torn_last_lines_of_a_killed_driver_cost_one_suggestion_at_most(tmp_path: Path) -> None:
    search = begin(tmp_path)
    drive(search, stop_after=5)
    for name in ("study.jsonl", "suggestions.jsonl"):
        with (search.place / name).open("a") as file:
            file.write('{"half')
    resumed = begin(tmp_path)
    drive(resumed)

    assert len(record(resumed)) == 12


def test_a_suggestion_that_was_never_written_down_is_told_as_failed_and_made_up_for(tmp_path: Path) -> None:
    search = begin(tmp_path)
    drive(search, stop_after=3)
    search._study.ask()  # and the driver dies
    resumed = begin(tmp_path)
    drive(resumed)

    assert resumed._study.states()[3] == "FAIL"
    assert len(record(resumed)) == 12


UNUSABLE = SEARCH.replace(SPACE, "    queue: {key: method.queue, low: 16, high: 64}\n").replace("trials: 12", "trials: 3")


def test_a_suggestion_that_makes_no_recipe_is_recorded_with_its_reason_and_costs_no_trial(tmp_path: Path) -> None:
    search = begin(tmp_path, UNUSABLE.replace("trials: 3", "trials: 2"))
    given = drive(search)
    reasons = [line["message"] for line in record(search, "told") if line["state"] == "fail"]

    assert len(given) in (1, 2)  # the same queue may be suggested twice
    assert len([line for line in record(search) if line["trial"]]) == 2
    assert all(search.store.trial(trial).recipe().recipe["method"]["queue"] % 16 == 0 for trial in given)
    assert reasons
    assert all("no multiple of the 16 keys" in reason for reason in reasons)


def test_included_cells_run_first_and_the_plan_has_a_row_for_each_suggestion(tmp_path: Path) -> None:
    text = SEARCH + "include: [{as: {suggestion: baseline}, label: MoCo, set: {mixing: none}}]\n"
    search = begin(tmp_path, text)
    given = drive(search, stop_after=3)
    stored = search.sweep.plan()

    assert given[0] == stored["cells"][0]["trials"][0]["trial"]
    assert [cell["id"] for cell in stored["cells"]] == ["suggestion=baseline", "suggestion=0", "suggestion=1"]
    assert stored["cells"][1]["label"].startswith("lr ")
    assert stored["axes"][0]["levels"] == ["0", "1"]
    assert {"optimizer.lr", "mixing"} <= set(stored["axes"][0]["keys"])
    assert stored["table"] == {"rows": ["suggestion"], "columns": [], "baseline": None, "published": []}


def test_a_condition_of_the_file_holds_for_suggestions_too(tmp_path: Path) -> None:
    search = begin(tmp_path, SEARCH + 'when: [{if: {mixing: mixmask, grid: "> 0"}, set: {optimizer.momentum: 0.5}}]\n')
    drive(search)
    found = {
        (line["levels"]["mixing"], search.store.trial(line["trial"]).recipe().recipe["optimizer"]["momentum"]) for line in record(search)
    }

    assert found == {("mixmask", 0.5), ("none", 0.9), ("unmix", 0.9)}


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("low: 1.0e-4", "low: 2.0", 9, "lr runs from 2 to 1. Write the smaller bound as `low`"),
        ("low: 1.0e-4", "low: 0", 9, "even in the logarithm, but begins at 0"),
        ("low: 1.0e-4", "low: '1e-4'", 9, "without quotes"),
        ("log: true", "log: true, step: 0.1", 9, "both `log` and `step`"),
        ("key: optimizer.lr", "key: optimizer.rl", 9, "optimizer.rl is not a known key"),
        ("[none, mixmask, unmix]", "[none, mixmask, maskmix]", 10, "none of none, mixmask"),
        ("low: 2, high: 8", "low: 2, high: 16", 11, "images are 8 pixels wide"),
        ("if: {mixing: mixmask}", "if: {mixin: mixmask}", 11, "depends on 'mixin', which is no dimension above it"),
        ("if: {mixing: mixmask}", "if: {mixing: maskmix}", 11, "axis 'mixing' has no level maskmix"),
        ("algorithm: random", "algorithm: best", 6, "'tpe'"),
        ("algorithm: random", "algorithm: nsgaii", 6, "nsgaii weighs two objectives"),
        ("algorithm: random", "algorithm: gp\n" + TWO.rstrip(), 7, "gp takes one objective"),
        ("algorithm: random", "algorithm: tpe\n" + TWO.rstrip().replace("seconds", "second"), 7, "not every suggestion measures 'second'"),
        ("algorithm: random", "algorithm: tpe\n  scheduler: {name: asha}", 7, "knn.top1 is not reported while trials train"),
        ("metric:", "seeds: 2\nmetric:", 12, "a search tries each suggestion with one seed"),
        ("metric:", "table: {rows: lr}\nmetric:", 12, "table cannot stand beside search"),
        ("metric:", "axes: {}\nmetric:", 12, "axes cannot stand beside search"),
        ("metric:", "when: [{if: {grit: 2}, note: x}]\nmetric:", 12, "'grit' is no dimension of the space. Did you mean 'grid'?"),
        ("metric:", "include: [{as: {lr: 2}}]\nmetric:", 12, "a cell is included by its name alone"),
    ],
)  # fmt: skip
def test_a_bad_search_is_told_on_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    problems = problems_of(tmp_path, SEARCH.replace(old, new, 1))

    assert any(at == line and said in message for at, message in problems), problems


def test_a_good_search_and_one_with_a_scheduler_are_good(tmp_path: Path) -> None:
    scheduled = text_for("tpe", more="  scheduler: {name: asha, grace_epochs: 1, reduction: 2}\n") + "set: {evaluate.every: 1}\n"

    assert problems_of(tmp_path, SEARCH) == problems_of(tmp_path, scheduled) == problems_of(tmp_path, text_for("nsgaii")) == []


@pytest.mark.parametrize(
    ("more", "doubted"),
    [("", True), ("set: {data.held_out: 16}\n", False), ("profiles: {smoke: {set: {data.held_out: 16}}}\n", True)],
)
def test_a_plan_doubts_a_search_that_chooses_by_the_test_images(tmp_path: Path, more: str, doubted: bool) -> None:
    made = plan.make(spec.load(write_sweep(tmp_path, SEARCH + more)), None, lambda data: "print")

    assert [warning.split(",")[0] for warning in sense(made)] == ["search chooses by the test images"] * doubted


def test_a_search_for_the_lowest_training_loss_reads_no_test_image(tmp_path: Path) -> None:
    made = plan.make(
        spec.load(write_sweep(tmp_path, SEARCH.replace("{name: knn.top1}", "{name: train.loss, goal: min}"))), None, lambda data: "p"
    )

    assert sense(made) == []


def test_a_profile_makes_a_search_shorter(tmp_path: Path) -> None:
    loaded = spec.load(write_sweep(tmp_path, SEARCH + "profiles: {smoke: {trials: 3, set: {schedule.epochs: 1}}}\n"))
    made = plan.make(loaded, "smoke", lambda data: "print")

    assert (made.suggestions, made.name) == (3, "tiny@smoke")
    assert problems_of(tmp_path, SWEEP + "profiles:\n  smoke: {trials: 3}\n") == [
        (10, "trials belongs to a search, and this sweep has none. Change the seeds or the axes.")
    ]


def test_records_are_strict_json(tmp_path: Path) -> None:
    search = begin(tmp_path)
    drive(search, stop_after=2)
    lines = (search.place / "suggestions.jsonl").read_text().splitlines()

    assert all("NaN" not in line and json.loads(line)["number"] >= 0 for line in lines)


@pytest.mark.parametrize("name", ["study.jsonl", "suggestions.jsonl"])
@pytest.mark.parametrize("damage", ["{half", '{"event": "suggested"}', "[]"])
def test_a_line_that_was_spoilt_is_told_with_its_file_and_what_to_do(tmp_path: Path, name: str, damage: str) -> None:
    search = begin(tmp_path)
    drive(search, stop_after=3)
    lines = (search.place / name).read_text().splitlines()
    (search.place / name).write_text("\n".join([lines[0], damage, *lines[2:]]) + "\n")

    with pytest.raises(DamagedRecord, match=rf"{name} is damaged .* Move the directory away to begin the search anew"):
        begin(tmp_path)
