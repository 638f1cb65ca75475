"""Numbers, cells and captions as they read."""

from __future__ import annotations

import pytest

from ablatrix_reports.captions import caption, notes, problems, progress
from ablatrix_reports.statistics import Difference
from ablatrix_reports.wording import CellText, cell_texts, difference, duration, number
from ablatrix_reports.write import read_report

GRID = {"grid": ["2", "4"]}


def texts(study) -> dict[str, CellText]:
    report = read_report(study.submit(), "masks")
    found = cell_texts(report)
    return {cell.id: found[cell.row, cell.column] for cell in report.cells}


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [(71.25, 1, False, "71.2"), (-0.4, 1, False, "−0.4"), (-0.04, 1, True, "+0.0"), (1.26, 1, True, "+1.3"), (1234.5, 0, False, "1234")],
)
def test_numbers_have_a_real_minus_and_no_negative_zero(value: float, digits: int, signed: bool, text: str):
    assert number(value, digits, signed=signed) == text


def test_a_difference_carries_its_interval_where_it_has_one():
    assert difference(Difference(1.2, -0.3, 2.7, 3), 1) == "+1.2 [−0.3,\u00a0+2.7]"
    assert difference(Difference(-1.2, None, None, 1), 1) == "−1.2"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (3600, "1 h"), (356400, "4 d 3 h")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((71.0, 71.4, 71.5), "71.3 ± 0.3"),
        ((100.0, 100.0, 100.0), "100.0 ± 0.0"),
        ((71.0, 71.01, 71.02), "71.0 ± 0.01"),
        ((5.123, 5.125, 5.133), "5.13 ± 0.01"),
        ((0.0123, 0.0125, 0.0133), "0.0127 ± 0.0005"),
        ((12345.0, 12346.0, 12350.0), "12347 ± 3"),
    ],
)
def test_a_cell_has_as_many_decimals_as_its_size_asks_for(new_study, values, text: str):
    study = new_study({"grid": ["2"]})
    study.finish("grid=2", *values)

    assert texts(study)["grid=2"].value == text


def test_one_value_has_no_spread(new_study):
    study = new_study(GRID, seeds=(0,))
    study.finish("grid=2", 71.0)

    report = read_report(study.submit(), "masks")

    assert texts(study)["grid=2"] == CellText("71.0", "", "", best=False, tied=False)
    assert "neither a spread nor an interval" in caption(report)[0]


@pytest.mark.parametrize(("state", "mark"), [("running", "…"), ("failed", "✕"), ("stopped", "†"), (None, "–")])
def test_a_cell_without_values_is_its_mark(new_study, state: str | None, mark: str):
    study = new_study(GRID)
    for seed in study.seeds if state else ():
        study.status("grid=2", seed, state)

    assert texts(study)["grid=2"].value == mark


def test_an_excluded_cell_says_so_and_why(new_study):
    study = new_study(GRID)
    study.cell("grid=4").update(excluded="not in the paper", trials=[])

    report = read_report(study.submit(), "masks")

    assert texts(study)["grid=4"].value == "n/a"
    assert notes(report) == [("grid = 4", "excluded: not in the paper")]


def test_n_is_marked_where_it_differs_with_the_reason(new_study):
    study = new_study(GRID)
    study.finish("grid=2", 71.0, 72.0, 73.0)
    study.finish("grid=4", 71.0, 72.0)
    study.status("grid=4", 2, "failed")

    found = texts(study)

    assert found["grid=2"].remark == ""
    assert found["grid=4"].remark == "n = 2, ✕"


def test_a_cell_with_more_seeds_than_the_others_shows_its_n(new_study):
    study = new_study(GRID, seeds=(0, 1))
    study.add({"grid": "none"}, seeds=(0, 1, 2))
    study.seeds = [0, 1, 2]
    study.finish("grid=none", 71.0, 72.0, 73.0)

    assert texts(study)["grid=none"].remark == "n = 3"


def test_the_caption_explains_what_the_table_uses_and_nothing_else(new_study):
    study = new_study(GRID, baseline={"grid": "2"})
    study.finish("grid=2", 71.0, 72.0, 73.0)
    study.finish("grid=4", 71.1, 71.9, 73.2)

    text = " ".join(caption(read_report(study.submit(), "masks")))

    assert "knn.top1, higher is better" in text
    assert "n = 3 seeds" in text
    assert "Bold: the best." in text
    assert "Underlined" in text
    assert "Δ: difference to grid = 2" in text
    assert "All cells are tied" in text
    assert "Marks" not in text


def test_a_partial_table_explains_its_marks_and_its_bold(new_study):
    study = new_study({"grid": ["2", "4", "8", "16"]})
    study.finish("grid=2", 71.0, 72.0, 73.0)
    study.finish("grid=4", 61.0, 62.0, 63.0)
    study.finish("grid=8", 99.0)
    study.status("grid=16", 0, "running")

    report = read_report(study.submit(), "masks")

    assert "Bold: the best, among the cells with all their seeds." in caption(report)
    assert caption(report)[-1] == "Marks: – not run; … running."
    assert progress(report) == "7 of 12 trials finished, 1 running, 4 not run"


def test_the_best_of_reports_is_named_as_such(new_study):
    study = new_study(GRID, take="best", goal="min")

    assert "lower is better, best report of each trial" in caption(read_report(study.submit(), "masks"))[0]


def test_ties_are_said_column_by_column(new_study):
    study = new_study({"grid": ["2", "4"], "dataset": ["a", "b"]}, rows=["grid"])
    for cell, base in {"grid=2,dataset=a": 60, "grid=4,dataset=a": 60, "grid=2,dataset=b": 30, "grid=4,dataset=b": 40}.items():
        study.finish(cell, base, base + 1, base + 2 + (base == 40) / 10)

    text = " ".join(caption(read_report(study.submit(), "masks")))

    assert "All cells of a are tied" in text
    assert "All cells of b" not in text


def test_a_stop_on_request_is_no_problem_but_a_failure_is(new_study):
    study = new_study(GRID)
    study.status("grid=2", 0, "stopped", cause="stopped", message="stopped by request")
    study.status("grid=2", 1, "failed", cause="diverged", message="loss is NaN")

    assert [t.cause for t in problems(read_report(study.submit(), "masks"))] == ["diverged"]
