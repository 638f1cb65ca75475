"""The table model: places, what is best, what cannot be told from it, and the difference to the baseline."""

from __future__ import annotations

import pytest
from scipy import stats

from ablatrix_reports.report import Cell, Report
from ablatrix_reports.write import read_report

GRID = {"grid": ["2", "4", "8"]}


def by_id(report: Report) -> dict[str, Cell]:
    return {cell.id: cell for cell in report.cells}


def test_a_cell_has_mean_spread_and_its_values_by_seed(new_study):
    study = new_study(GRID, seeds=(3, 5))
    study.finish("grid=2", 70.0, 72.0)

    cell = by_id(read_report(study.submit(), "masks"))["grid=2"]

    assert (cell.mean, cell.std, cell.n, cell.planned) == (71.0, pytest.approx(2**0.5), 2, 2)
    assert cell.values == {3: 70.0, 5: 72.0}
    assert cell.state == "finished"


def test_no_column_axis_makes_one_column_named_by_the_metric(new_study):
    report = read_report(new_study(GRID).submit(), "masks")

    assert [(c.key, c.labels) for c in report.columns] == [("knn.top1", ("knn.top1",))]
    assert [r.labels for r in report.rows] == [("2",), ("4",), ("8",)]


def test_three_axes_make_nested_rows_and_columns_in_the_order_of_their_levels(new_study):
    axes = {"dataset": ["a", "b"], "grid": ["2", "4"], "views": ["1", "2"]}
    study = new_study(axes, rows=["grid", "dataset"], columns=["views"])

    report = read_report(study.submit(), "masks")

    assert [r.labels for r in report.rows] == [("2", "a"), ("2", "b"), ("4", "a"), ("4", "b")]
    assert [c.labels for c in report.columns] == [("1",), ("2",)]
    assert len(report.at()) == 8


def test_an_axis_that_the_table_forgets_becomes_a_row_axis(new_study):
    study = new_study({"grid": ["2", "4"], "views": ["1", "2"]}, rows=["grid"], columns=[])

    report = read_report(study.submit(), "masks")

    assert report.row_axes == ("grid", "views")
    assert len(report.at()) == 4


def test_a_label_stands_for_the_level_that_include_added(new_study):
    study = new_study({"dataset": ["a", "b"], "grid": ["2", "4"]}, rows=["dataset", "grid"])
    study.add({"dataset": "a", "grid": "none"}, label="MoCo", included=True)

    report = read_report(study.submit(), "masks")

    assert [r.labels for r in report.rows] == [("a", "2"), ("a", "4"), ("a", "MoCo"), ("b", "2"), ("b", "4")]


def test_cells_that_no_axis_tells_apart_get_rows_of_their_own(new_study):
    study = new_study({"grid": ["2"]})
    study.add({"grid": "none"}, id="moco", label="MoCo")
    study.add({"grid": "none"}, id="simclr", label="SimCLR")

    report = read_report(study.submit(), "masks")

    assert [r.labels for r in report.rows] == [("2",), ("MoCo",), ("SimCLR",)]
    assert len(report.at()) == 3


def test_a_cell_that_leaves_a_column_axis_open_stands_last(new_study):
    study = new_study({"grid": ["2"], "dataset": ["a", "b"]}, rows=["grid"])
    study.plan["cells"].insert(0, study.plan["cells"].pop())
    study.add({"grid": "none", "dataset": "–"}, label="MoCo")
    study.plan["cells"].insert(0, study.plan["cells"].pop())

    report = read_report(study.submit(), "masks")

    assert [c.labels for c in report.columns] == [("b",), ("a",), ("–",)]


def test_a_sweep_without_axes_is_one_cell(new_study):
    study = new_study({}, seeds=(0, 1))
    study.finish("", 70.0, 72.0)

    report = read_report(study.submit(), "masks")

    assert [r.labels for r in report.rows] == [("Mask grid",)]
    assert report.at()["all", "knn.top1"].mean == 71.0


@pytest.mark.parametrize(("goal", "best"), [("max", "grid=8"), ("min", "grid=2")])
def test_the_best_follows_the_goal(new_study, goal: str, best: str):
    study = new_study(GRID, goal=goal)
    for i, cell in enumerate(("grid=2", "grid=4", "grid=8")):
        study.finish(cell, *(50.0 + 10 * i + 0.1 * s + 0.05 * i * (s % 2) for s in range(3)))

    report = read_report(study.submit(), "masks")

    assert [c.id for c in report.cells if c.best] == [best]
    assert not any(c.tied for c in report.cells)
    assert report.tied == ()


def test_tied_is_what_a_paired_t_test_cannot_tell_from_the_best(new_study):
    study = new_study(GRID)
    values = {"grid=2": [70.0, 71.0, 72.0], "grid=4": [71.0, 71.1, 71.3], "grid=8": [68.0, 69.2, 70.1]}
    for cell, found in values.items():
        study.finish(cell, *found)

    cells = by_id(read_report(study.submit(), "masks"))
    p = {cell: stats.ttest_rel(values["grid=4"], found).pvalue for cell, found in values.items() if cell != "grid=4"}

    assert cells["grid=4"].best
    assert {cell: cells[cell].tied for cell in p} == {cell: bool(p[cell] > 0.05) for cell in p}
    assert cells["grid=2"].to_best is not None
    assert cells["grid=2"].to_best.mean == pytest.approx(-2 / 15)


def test_each_column_has_its_own_best(new_study):
    study = new_study({"grid": ["2", "4"], "dataset": ["a", "b"]}, rows=["grid"])
    for cell, base in {"grid=2,dataset=a": 70, "grid=4,dataset=a": 60, "grid=2,dataset=b": 30, "grid=4,dataset=b": 40}.items():
        study.finish(cell, base, base + 0.1, base + 0.2)

    report = read_report(study.submit(), "masks")

    assert {c.id for c in report.cells if c.best} == {"grid=2,dataset=a", "grid=4,dataset=b"}


def test_a_cell_with_fewer_seeds_than_planned_is_never_the_best(new_study):
    study = new_study(GRID)
    study.finish("grid=2", 99.0, 99.1)
    study.finish("grid=4", 60.0, 61.0, 62.0)
    study.finish("grid=8", 50.0, 51.0, 52.0)

    cells = by_id(read_report(study.submit(), "masks"))

    assert (cells["grid=2"].best, cells["grid=4"].best) == (False, True)
    assert (cells["grid=2"].n, cells["grid=2"].planned, cells["grid=2"].state) == (2, 3, "waiting")


def test_equal_to_the_best_is_not_best_while_seeds_are_missing(new_study):
    study = new_study(GRID)
    study.finish("grid=2", 61.0, 61.0)
    study.finish("grid=4", 60.0, 61.0, 62.0)
    study.finish("grid=8", 50.0, 51.0, 52.0)

    cells = by_id(read_report(study.submit(), "masks"))

    assert [c.best for c in cells.values()] == [False, True, False]
    assert cells["grid=2"].tied


def test_a_lonely_cell_is_no_best(new_study):
    study = new_study(GRID)
    study.finish("grid=2", 60.0, 61.0, 62.0)
    study.finish("grid=4", 70.0)

    assert not any(c.best or c.tied for c in read_report(study.submit(), "masks").cells)


def test_all_tied_is_said(new_study):
    study = new_study(GRID)
    for cell in ("grid=2", "grid=4", "grid=8"):
        study.finish(cell, 60.0, 61.0, 62.0)

    report = read_report(study.submit(), "masks")

    assert report.tied == ("knn.top1",)
    assert all(c.best for c in report.cells)


def test_one_seed_gives_a_best_but_no_interval(new_study):
    study = new_study(GRID, seeds=(0,), baseline={"grid": "2"})
    study.finish("grid=2", 60.0)
    study.finish("grid=4", 60.1)

    cells = by_id(read_report(study.submit(), "masks"))

    assert cells["grid=4"].best
    assert not cells["grid=2"].tied
    assert cells["grid=4"].delta is not None
    assert (cells["grid=4"].delta.low, cells["grid=4"].delta.n) == (None, 1)


def test_cells_of_different_metrics_are_not_compared(new_study):
    study = new_study({"grid": ["2", "4"]}, baseline={"grid": "2"})
    study.cell("grid=4")["metric"] = {"name": "linear.top1", "goal": "max", "take": "last"}
    study.finish("grid=2", 60.0, 61.0, 62.0)
    study.finish("grid=4", 0.0, 0.0, 0.0, **{"linear.top1": 70.0})

    cells = by_id(read_report(study.submit(), "masks"))

    assert cells["grid=4"].mean == 70.0
    assert not cells["grid=4"].best
    assert cells["grid=4"].delta is None


def test_the_difference_to_the_baseline_is_taken_within_the_other_levels(new_study):
    study = new_study({"grid": ["2", "4"], "dataset": ["a", "b"]}, rows=["grid"], baseline={"grid": "2"})
    for cell, base in {"grid=2,dataset=a": 60, "grid=4,dataset=a": 61, "grid=2,dataset=b": 30, "grid=4,dataset=b": 27}.items():
        study.finish(cell, base, base + 1, base + 2)

    cells = by_id(read_report(study.submit(), "masks"))

    assert {c.id: c.delta and c.delta.mean for c in cells.values()} == {
        "grid=2,dataset=a": None,
        "grid=4,dataset=a": 1.0,
        "grid=2,dataset=b": None,
        "grid=4,dataset=b": -3.0,
    }


def test_a_baseline_that_leaves_an_axis_open_serves_all_its_levels(new_study):
    study = new_study({"grid": ["2"], "dataset": ["a", "b"]}, rows=["grid"], baseline={"grid": "none"})
    study.add({"grid": "none", "dataset": "–"}, label="MoCo")
    study.finish("grid=2,dataset=a", 61.0, 62.0, 63.0)
    study.finish("grid=2,dataset=b", 62.0, 63.0, 64.0)
    study.finish("grid=none,dataset=–", 60.0, 61.0, 62.0)

    report = read_report(study.submit(), "masks")

    assert [c.delta and c.delta.mean for c in report.cells] == [1.0, 2.0, None]
    assert report.baseline == "MoCo"


def test_a_baseline_that_is_no_cell_leaves_no_difference(new_study):
    study = new_study(GRID, baseline={"grid": "99"})
    study.finish("grid=2", 60.0, 61.0, 62.0)

    report = read_report(study.submit(), "masks")

    assert report.baseline is None
    assert all(c.delta is None for c in report.cells)


def test_the_most_pressing_state_is_the_cells(new_study):
    study = new_study(GRID)
    study.finish("grid=2", 60.0)
    study.status("grid=2", 1, "failed")
    study.status("grid=2", 2, "running")
    study.status("grid=4", 0, "stopped")
    study.cell("grid=8").update(excluded="too fine", trials=[])

    report = read_report(study.submit(), "masks")

    assert [c.state for c in report.cells] == ["running", "stopped", "excluded"]
    assert (report.coverage.finished, report.coverage.planned, report.coverage.excluded_cells) == (1, 6, 1)


def test_a_trial_that_stands_in_two_cells_costs_once(new_study):
    study = new_study({"grid": ["2", "4"]}, seeds=(0,))
    study.finish("grid=2", 60.0, seconds=100.0)
    study.status("grid=4", 0, "running")
    study.add({"grid": "same"}, trials=study.cell("grid=2")["trials"])

    report = read_report(study.submit(), "masks")

    assert (report.cost.finished_seconds, report.cost.unfinished_seconds) == (100.0, 30.0)
    assert by_id(report)["grid=same"].mean == 60.0


def test_versions_that_differ_stand_side_by_side(new_study):
    study = new_study({"grid": ["2"]}, seeds=(0, 1))
    study.finish("grid=2", 60.0, 61.0)
    path = study.directory("grid=2", 1).path / "result.json"
    path.write_text(path.read_text().replace('"torch": "2.11.0"', '"torch": "2.15.0"'))

    report = read_report(study.submit(), "masks")

    assert report.environment.versions["torch"] == ("2.11.0", "2.15.0")
