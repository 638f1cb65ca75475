from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablatrix import cost, search_plan
from ablatrix.cli import main, planned
from ablatrix.cost import Measure
from ablatrix.errors import InvalidInput, Refused
from ablatrix.identity import digest
from ablatrix.plan import Plan
from ablatrix.records import Result, Status
from ablatrix.schema import Budget, Resources
from ablatrix.store import Store
from tiny_sweep import RECIPE, SWEEP, make_plan, tiny_recipe, write_sweep


def finish(store: Store, made: Plan, number: int, seconds: float, device: str = "cpu") -> None:
    trial = made.trials[number]
    store.trial(trial.id).create(trial.record())
    store.trial(trial.id).write_result(Result(trial.id, {"knn.top1": 50.0}, 1, seconds, 1, "host", device))


def status(store: Store, made: Plan, number: int, state: str, **changes: Any) -> None:
    trial, now = made.trials[number], time.time()
    store.trial(trial.id).create(trial.record())
    store.trial(trial.id).write_status(replace(Status(trial.id, state, 1, "node7", 1, 1, now, now, 5.0, 1, 4), **changes))  # type: ignore[arg-type]


def submit(store: Store, made: Plan, name: str) -> None:
    store.sweep(name).submit("", made.as_mapping())


def test_trials_in_order_fill_the_places_as_they_become_free() -> None:
    assert cost.wall_seconds([4, 1, 1, 1, 5], 2) == 8
    assert cost.wall_seconds([4, 1], 8) == 4
    assert cost.wall_seconds([], 2) == 0


def test_finished_seeds_of_a_cell_foretell_the_others(tmp_path: Path) -> None:
    store, made = Store(tmp_path / "runs"), make_plan(tmp_path, SWEEP.replace("seeds: 2", "seeds: 3\nresources: {cpus: 2}"))
    finish(store, made, 0, 100.0)
    finish(store, made, 2, 300.0)
    rows = planned.listed(made, store)
    expected = planned.foreseen(made, rows, cost.measures(made, store), cpus=4)

    assert (expected.to_run, expected.known, expected.at_once) == (4, 1, 2)
    assert expected.cpu_hours == pytest.approx(200 * 2 / 3600)
    assert expected.gpu_hours == 0
    assert expected.sources == ("2 finished",)


def test_trials_of_the_same_recipe_in_other_sweeps_foretell_too_and_those_on_another_device_do_not(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    other = make_plan(tmp_path, SWEEP.replace("seeds: 2", "seeds: [7, 8]"))
    finish(store, other, 0, 60.0)
    finish(store, other, 1, 60.0, device="NVIDIA H100")
    known = cost.measures(make_plan(tmp_path), store)

    assert set(known) == {"grid=2"}
    assert known["grid=2"].source == "1 finished in other sweeps"


def test_a_gpu_sweep_counts_gpu_hours_by_its_share(tmp_path: Path) -> None:
    store, made = Store(tmp_path / "runs"), make_plan(tmp_path, SWEEP + "resources: {cpus: 1, gpus: 0.25}\n")
    finish(store, made, 0, 7200.0, device="NVIDIA H100")
    finish(store, made, 1, 7200.0, device="cpu")
    expected = planned.foreseen(made, planned.listed(made, store), cost.measures(made, store), cpus=4)

    assert (expected.known, expected.gpu_hours) == (1, 0.5)


def test_a_stopped_trial_costs_what_is_left_of_it(tmp_path: Path) -> None:
    store, made = Store(tmp_path / "runs"), make_plan(tmp_path)
    finish(store, made, 0, 100.0)
    status(store, made, 2, "stopped")  # at epoch 1 of 4
    expected = planned.foreseen(made, planned.listed(made, store), cost.measures(made, store), cpus=1)

    assert expected.wall_hours == pytest.approx(75 / 3600)


def test_every_trial_is_listed_with_where_it_stands_and_why(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    made = make_plan(tmp_path, SWEEP.replace("[2, 4]", "[2, 4, 8]") + "exclude: [{if: {grid: 8}, reason: too fine}]\n")
    submit(store, made, "another")
    finish(store, made, 0, 1.0)
    status(store, made, 1, "running")
    status(store, made, 2, "failed", cause="diverged")
    rows = [(row["plan"], row["cell"], row["seed"], row["why"]) for row in planned.listed(made, store)]

    assert rows == [
        ("in store", "grid=2", 0, "of another"),
        ("running elsewhere", "grid=4", 0, "on node7, epoch 1/4, of another"),
        ("to run", "grid=2", 1, "failed before (diverged)"),
        ("to run", "grid=4", 1, None),
        ("excluded", "grid=8", None, "too fine"),
    ]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(trials=3), "4 trials are to run, but the budget is 3"),
        (Budget(gpu_hours=1.0), "2.00 GPU-hours are expected, but the budget is 1"),
        (Budget(gpu_hours=3.0), "the cost of 2 of 4 trials is unknown"),
    ],
)
def test_more_than_the_budget_is_refused(tmp_path: Path, budget: Budget, said: str) -> None:
    made = make_plan(tmp_path, SWEEP + "resources: {gpus: 1}\n")
    known = {"grid=2": Measure(3600.0, 1e6, None, None, "a test")}
    expected = cost.forecast(made, [(trial.cell, 1.0) for trial in made.trials], known, 1)

    with pytest.raises(Refused, match=said):
        cost.hold_to(budget, expected)
    cost.hold_to(Budget(trials=4), expected)


def test_the_command_lines_budget_stands_above_the_profiles_and_that_above_the_files(tmp_path: Path) -> None:
    text = SWEEP + "budget: {trials: 9, gpu_hours: 1}\nprofiles: {smoke: {budget: {trials: 5}}}\n"

    assert planned.limits(make_plan(tmp_path, text), None, None) == Budget(trials=9, gpu_hours=1)
    assert planned.limits(make_plan(tmp_path, text, "smoke"), None, None) == Budget(trials=5)
    assert planned.limits(make_plan(tmp_path, text), 2, 0.5) == Budget(trials=2, gpu_hours=0.5)


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_over_budget_is_exit_code_five_before_anything_runs(tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(tmp_path, SWEEP)
    with pytest.raises(SystemExit) as ended:
        main([verb, str(path), "--store", str(tmp_path / "runs"), "--max-trials", "3"])

    assert ended.value.code == 5
    assert "over budget: 4 trials are to run, but the budget is 3" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_doubts_are_told_once_and_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(tmp_path, SWEEP.replace("[2, 4]", "[3, 4]"), RECIPE.replace("queue: 64", "queue: 128"))
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(path), "--store", str(tmp_path / "runs"), "--json"])
    warnings = json.loads(capsys.readouterr().out)["warnings"]

    assert ended.value.code == 0
    assert len(warnings) == 2
    assert any("mask.grid is 3, which does not divide 8 pixels" in warning and "(grid=3)" in warning for warning in warnings)
    assert any("method.queue is 128" in warning and "and 1 more cells" in warning for warning in warnings)


def test_a_probe_runs_real_steps_and_is_remembered(tmp_path: Path) -> None:
    from ablatrix.probe import probe

    store, made = Store(tmp_path / "runs"), make_plan(tmp_path)
    recipe = made.cells[0].recipe
    assert recipe
    found = probe(recipe, Resources())
    cost.write_probe(store, digest(recipe.identity()), made.resources, found)

    assert found.seconds > 0
    assert found.size > 10_000
    assert (found.memory_mb or 0) > 100
    assert found.without == ()
    assert cost.measures(made, store) == {"grid=2": found}


def test_a_probe_that_cannot_run_says_why_in_one_line(tmp_path: Path) -> None:
    from ablatrix.probe import probe

    with pytest.raises(InvalidInput, match=r"the probe failed: .*nowhere"):
        probe(tiny_recipe(data__name="folder", data__path=str(tmp_path / "nowhere")), Resources())


def test_a_trial_that_cells_share_is_listed_and_paid_once(tmp_path: Path) -> None:
    shared = SWEEP.replace("  grid:", "  metric: {levels: {knn.top1: {}, train.loss: {}}}\n  grid:").replace(
        "metric: {name: knn.top1}", "metric: {name: knn.top1, by: {metric: {train.loss: train.loss}}}"
    )
    store, made = Store(tmp_path / "runs"), make_plan(tmp_path, shared)

    rows = planned.listed(made, store)

    assert (len(made.trials), len(rows)) == (8, 4)
    assert [row["also"] for row in rows[:1]] == [["metric=train.loss,grid=2"]]
    assert planned.foreseen(made, rows, {}, cpus=1).to_run == 4


def test_every_worker_of_a_trial_is_paid(tmp_path: Path) -> None:
    store, made = (
        Store(tmp_path / "runs"),
        make_plan(tmp_path, SWEEP.replace("seeds: 2", "seeds: 2\nresources: {cpus: 2, gpus: 1, workers: 4}")),
    )
    finish(store, made, 0, 3600.0, device="H100")
    cost.write_probe(store, digest(made.cells[1].recipe.identity()), made.resources, Measure(7200.0, 1.0, None, None, "a probe"))  # type: ignore[union-attr]
    expected = planned.foreseen(made, planned.listed(made, store), cost.measures(made, store), cpus=8)

    assert expected.known == expected.to_run == 3
    assert expected.gpu_hours == pytest.approx(4 * 1.0 + 2 * 2.0)
    assert expected.cpu_hours == pytest.approx(2 * expected.gpu_hours)


def test_suggestions_to_come_cost_what_a_probe_of_one_or_the_others_say(tmp_path: Path) -> None:
    search = "search: {algorithm: random, trials: 5, space: {lr: {key: optimizer.lr, low: 0.01, high: 1.0}}}\nresources: {gpus: 1}\n"
    text = SWEEP.replace("axes:\n  grid: {key: mask.grid, levels: [2, 4]}\nseeds: 2\n", search)
    store, made = Store(tmp_path / "runs"), make_plan(tmp_path, text)
    budget = Budget(gpu_hours=6)
    with pytest.raises(Refused, match="the cost of 5 of 5 trials is unknown"):
        planned.refuse_over_budget(made, store, budget, 1)
    example = search_plan.example(made.spec, None, ())
    assert example is not None
    cost.write_probe(store, digest(example.identity()), made.resources, Measure(3600.0, 1.0, None, None, "a probe of a few steps"))
    planned.refuse_over_budget(made, store, budget, 1)
    expected = planned.foreseen(made, planned.listed(made, store), cost.measures(made, store), 1)

    assert (expected.known, expected.gpu_hours) == (5, pytest.approx(5.0))
    with pytest.raises(Refused, match=r"5\.00 GPU-hours are expected"):
        planned.refuse_over_budget(made, store, Budget(gpu_hours=4), 1)


def test_a_probe_of_a_search_measures_one_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = "search: {algorithm: random, trials: 5, space: {lr: {key: optimizer.lr, low: 0.01, high: 1.0}}}\n"
    made = make_plan(tmp_path, SWEEP.replace("axes:\n  grid: {key: mask.grid, levels: [2, 4]}\nseeds: 2\n", search))
    asked = []
    monkeypatch.setattr("ablatrix.probe.probe", lambda recipe, resources: asked.append(recipe) or Measure(10.0, 1.0, None, None, "a probe"))
    found = planned.probed(made, Store(tmp_path / "runs"), {f"suggestion={number}" for number in range(5)})

    assert len(asked) == 1
    assert {cell: measure.seconds for cell, measure in found.items()} == {f"suggestion={number}": 10.0 for number in range(5)}
