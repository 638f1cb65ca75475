"""What the store shows of every trial, and that one damaged trial harms no other."""

from __future__ import annotations

import pytest

from ablatrix.errors import InvalidInput
from ablatrix.store import Store
from ablatrix_reports.collect import MAX_POINTS, Trial, collect

GRID = {"grid": ["2", "4"]}


def trials(store: Store, cell: str) -> tuple[Trial, ...]:
    return collect(store, "masks").trials[cell]


def test_every_state_is_told_from_the_files(new_study):
    study = new_study(GRID, seeds=range(5))
    study.finish("grid=2", 71.0)
    study.status("grid=2", 1, "running")
    study.status("grid=2", 2, "failed", cause="out of memory", message="RuntimeError: too much")
    study.status("grid=2", 3, "stopped")

    found = trials(study.submit(), "grid=2")

    assert [t.state for t in found] == ["finished", "running", "failed", "stopped", "waiting"]
    assert found[0].value == 71.0
    assert (found[2].cause, found[2].message) == ("out of memory", "RuntimeError: too much")
    assert all(t.value is None for t in found[1:])


def test_the_result_outweighs_an_older_status(new_study):
    study = new_study(GRID)
    study.status("grid=2", 0, "failed", cause="out of memory", message="first attempt")
    study.finish("grid=2", 71.0, seconds=42.0)

    trial = trials(study.submit(), "grid=2")[0]

    assert (trial.state, trial.value, trial.cause, trial.message, trial.seconds) == ("finished", 71.0, None, None, 42.0)


@pytest.mark.parametrize(("goal", "best"), [("max", 75.0), ("min", 60.0)])
def test_best_takes_the_best_of_reports_and_result(new_study, goal: str, best: float):
    study = new_study(GRID, goal=goal, take="best")
    study.reports("grid=2", 0, 60.0, 75.0, 72.0)
    study.finish("grid=2", 71.0)

    assert trials(study.submit(), "grid=2")[0].value == best


def test_last_takes_the_result_whatever_was_reported(new_study):
    study = new_study(GRID)
    study.reports("grid=2", 0, 60.0, 75.0)
    study.finish("grid=2", 71.0)

    assert trials(study.submit(), "grid=2")[0].value == 71.0


def test_a_result_without_a_finite_metric_is_a_failed_measurement(new_study):
    study = new_study(GRID)
    study.reports("grid=2", 0, 60.0, float("nan"))
    study.finish("grid=2", 71.0, 72.0)
    for seed, text in enumerate(['{"linear.top1": 3.0}', '{"knn.top1": NaN}']):
        path = study.directory("grid=2", seed).path / "result.json"
        value = '{\n  "knn.top1": 71.0\n }' if seed == 0 else '{\n  "knn.top1": 72.0\n }'
        assert value in path.read_text()
        path.write_text(path.read_text().replace(value, text))

    found = trials(study.submit(), "grid=2")

    assert [(t.state, t.cause, t.value) for t in found[:2]] == [("failed", "measurement", None)] * 2
    assert "knn.top1" in (found[0].message or "")


@pytest.mark.parametrize(("reported", "state", "value"), [((5.0, 3.0), "finished", 3.0), ((5.0, float("nan")), "failed", None)])
def test_a_metric_of_training_itself_is_final_in_its_last_report(new_study, reported, state: str, value: float | None):
    study = new_study(GRID, metric="train.loss", goal="min")
    study.reports("grid=2", 0, *reported, name="train.loss")
    study.finish("grid=2", 0.0)
    path = study.directory("grid=2", 0).path / "result.json"
    path.write_text(path.read_text().replace("train.loss", "knn.top1"))

    trial = collect(study.submit(), "masks", curves=False).trials["grid=2"][0]

    assert (trial.state, trial.value) == (state, value)


@pytest.mark.parametrize("name", ["status.json", "result.json"])
@pytest.mark.parametrize("text", ["", '{"trial": "', "[]", "null", '{"state": "running"}', "\udcff"])
def test_a_torn_file_fails_its_own_trial_with_a_reason(new_study, name: str, text: str):
    study = new_study(GRID)
    study.finish("grid=2", 71.0, 72.0, 73.0)
    (study.directory("grid=2", 1).path / name).write_bytes(text.encode("utf-8", "surrogateescape"))

    found = trials(study.submit(), "grid=2")

    assert [t.state for t in found] == ["finished", "failed", "finished"]
    assert (found[1].cause, found[1].value) == ("unreadable", None)
    assert "cannot be read" in (found[1].message or "")


def test_a_finished_status_without_a_result_is_a_failure(new_study):
    study = new_study(GRID)
    study.status("grid=2", 0, "finished")

    trial = trials(study.submit(), "grid=2")[0]

    assert (trial.state, trial.cause) == ("failed", "result")


@pytest.mark.parametrize(("take", "state"), [("last", "finished"), ("best", "failed")])
def test_a_torn_curve_matters_only_where_the_value_needs_it(new_study, take: str, state: str):
    study = new_study(GRID, take=take)
    study.reports("grid=2", 0, 60.0, 75.0)
    study.finish("grid=2", 71.0)
    metrics = study.directory("grid=2", 0).metrics_file
    metrics.write_text('{"epoch": 1, "st\n' + metrics.read_text())

    trial = trials(study.submit(), "grid=2")[0]

    assert trial.state == state
    assert "metrics.jsonl" in (trial.message or "")


def test_an_unfinished_last_line_is_left_out(new_study):
    study = new_study(GRID)
    study.reports("grid=2", 0, 60.0, 65.0)
    study.status("grid=2", 0, "running")
    with study.directory("grid=2", 0).metrics_file.open("a") as file:
        file.write('{"epoch": 2, "step": 20, "ti')

    trial = trials(study.submit(), "grid=2")[0]

    assert (trial.state, trial.last, trial.message) == ("running", 65.0, None)
    assert trial.curves["knn.top1"] == ((0, 60.0), (1, 65.0))


def test_an_epoch_reported_twice_counts_once(new_study):
    study = new_study(GRID)
    study.reports("grid=2", 0, 60.0, 65.0)
    study.reports("grid=2", 0, 60.0, 66.0, 70.0)
    study.status("grid=2", 0, "running")

    assert trials(study.submit(), "grid=2")[0].curves["knn.top1"] == ((0, 60.0), (1, 66.0), (2, 70.0))


def test_a_long_curve_is_thinned_and_keeps_its_end(new_study):
    study = new_study(GRID)
    study.reports("grid=2", 0, *(float(i) for i in range(1000)))
    study.status("grid=2", 0, "running")

    curve = trials(study.submit(), "grid=2")[0].curves["knn.top1"]

    assert len(curve) <= MAX_POINTS
    assert curve[-1] == (999, 999.0)


def test_curves_can_be_left_out(new_study):
    study = new_study(GRID)
    study.reports("grid=2", 0, 60.0, 65.0)
    study.finish("grid=2", 71.0)

    trial = collect(study.submit(), "masks", curves=False).trials["grid=2"][0]

    assert (trial.curves, trial.value) == ({}, 71.0)


def test_an_impossible_trial_id_fails_its_own_trial(new_study):
    study = new_study(GRID)
    study.finish("grid=2", 71.0, 72.0, 73.0)
    study.cell("grid=2")["trials"][0]["trial"] = "../../etc/passwd"

    found = trials(study.submit(), "grid=2")

    assert [t.state for t in found] == ["failed", "finished", "finished"]


def test_a_log_is_named_relative_to_the_store(new_study):
    study = new_study(GRID)
    trial = study.status("grid=2", 0, "failed").id

    assert trials(study.submit(), "grid=2")[0].log == f"trials/{trial}/log.txt"


def test_a_sweep_that_was_never_run_is_named_with_the_next_step(tmp_path):
    with pytest.raises(InvalidInput, match=r"no sweep 'masks'.*ablatrix run"):
        collect(Store(tmp_path), "masks")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda plan: plan.pop("cells"), "lists no cells"),
        (lambda plan: plan.update(schema=99), "has schema 99"),
        (lambda plan: plan["metric"].update(goal="up"), "goal 'up'"),
        (lambda plan: plan["cells"].append(plan["cells"][0]), "two cells share an id"),
        (lambda plan: plan.update(cells=[3]), "unexpected shape"),
    ],
)
def test_an_unusable_plan_says_what_is_wrong_and_what_to_do(new_study, damage, words: str):
    study = new_study(GRID)
    damage(study.plan)

    with pytest.raises(InvalidInput, match=rf"plan.json of sweep 'masks' .*{words}.*ablatrix run"):
        collect(study.submit(), "masks")


def test_a_torn_plan_says_so(new_study):
    store = new_study(GRID).submit()
    (store.sweep("masks").path / "plan.json").write_text('{"schema": 1')

    with pytest.raises(InvalidInput, match=r"cannot be read .*ablatrix run"):
        collect(store, "masks")
