"""A cell beside the paper's number: agrees, higher, lower, or not comparable and why."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats

from ablatrix_reports.report import Cell
from ablatrix_reports.verdicts import verdict
from ablatrix_reports.write import read_report


def cells_of(study: Any) -> dict[str, Cell]:
    return {cell.id: cell for cell in read_report(study.submit(), "masks").cells}


@pytest.fixture
def study(new_study):
    study = new_study({"grid": ["2", "4", "8"]})
    study.plan["table"]["published"] = ["mixmask/table1"]
    for grid in ("2", "4", "8"):
        study.give(f"grid={grid}", mask__grid=int(grid))
    return study


def test_each_cell_finds_its_number_in_the_paper(study):
    cells = cells_of(study)

    assert [c.published.value for c in cells.values()] == [68.1, 67.6, 67.5]
    assert cells["grid=4"].published.places == ("mixmask/table1, grid 4×4, CIFAR-100",)
    assert cells["grid=4"].published.n == 3
    assert all(c.verdict is None for c in cells.values())


def test_a_contradicted_number_is_weak_and_stands_beside_its_rival(study):
    study.finish("grid=2", 68.2, 68.4, 68.6)
    cell = cells_of(study)["grid=2"]

    assert cell.published.weak
    assert cell.published.rivals == (68.4,)
    assert cell.verdict.difference == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("values", "kind"), [((67.3, 67.9, 67.6), "agrees"), ((69.3, 69.9, 69.6), "higher"), ((64.3, 64.9, 64.6), "lower")]
)
def test_under_the_papers_protocol_a_cell_agrees_or_differs(study, values: tuple[float, ...], kind: str):
    study.finish("grid=4", *values)

    assert cells_of(study)["grid=4"].verdict.kind == kind


def test_a_cheaper_protocol_is_not_comparable_and_says_in_what(study):
    study.give("grid=4", mask__grid=4, schedule__epochs=20, backbone__width=0.25, data__train_images=5000)
    study.give("grid=2", schedule__epochs=20)
    study.finish("grid=4", 67.6, 67.6, 67.7)
    found = cells_of(study)["grid=4"].verdict

    assert found.kind == "not comparable"
    assert set(found.because) == {"epochs 20 ≠ 1000", "backbone resnet18 of width 0.25 ≠ resnet18", "training images 5000 ≠ all"}
    assert found.low is None


def test_a_number_on_training_images_held_out_is_not_comparable(study):
    study.give("grid=4", mask__grid=4, data__held_out=5000)
    study.finish("grid=4", 67.6, 67.6, 67.7)

    assert cells_of(study)["grid=4"].verdict.because == ("judged on 5000 training images ≠ the test images",)


def test_another_metric_is_another_protocol(new_study):
    study = new_study({"grid": ["4"]}, metric="linear.top1")
    study.plan["table"]["published"] = ["mixmask/table1"]
    study.give("grid=4", mask__grid=4)
    study.finish("grid=4", 60.0, 61.0, 62.0)
    found = cells_of(study)["grid=4"].verdict

    assert "metric linear.top1 ≠ knn.top1" in found.because
    assert "evaluation linear probe, 100 epochs ≠ k-NN" in found.because


def test_a_setting_of_which_the_paper_has_no_number_has_none(study):
    study.give("grid=8", mask__grid=16)

    assert cells_of(study)["grid=8"].published is None


def test_what_the_sweep_varies_never_borrows_a_number_of_another_level(new_study):
    study = new_study({"mixing": ["none", "mixmask"]})
    study.plan["axes"][0]["keys"] = ["mixing.kind"]
    study.plan["table"]["published"] = ["mixmask/table1"]
    study.give("mixing=none", mixing="none")
    study.give("mixing=mixmask")
    cells = cells_of(study)

    assert cells["mixing=none"].published is None
    assert cells["mixing=mixmask"].published.value == 68.1


def test_what_a_condition_sets_beside_an_axis_is_a_named_difference(new_study):
    study = new_study({"dataset": ["tiny-imagenet"], "grid": ["2", "4"]})
    study.plan["table"]["published"] = ["mixmask/table1"]
    study.plan["axes"][0]["keys"] = ["data.name"]
    common = {"data__name": "tiny-imagenet", "data__image_size": 64}
    study.give("dataset=tiny-imagenet,grid=2", mask__grid=2, mask__kind="discrete", **common)
    study.give("dataset=tiny-imagenet,grid=4", mask__grid=4, mask__kind="blocked", **common)
    study.finish("dataset=tiny-imagenet,grid=2", 46.0, 46.2, 46.9)
    cells = cells_of(study)

    assert [c.published.value for c in cells.values()] == [46.4, 47.4]
    assert cells["dataset=tiny-imagenet,grid=2"].verdict.because == ("mask discrete ≠ blocked",)


def test_a_second_table_answers_where_the_first_has_no_number_and_both_give_the_papers_difference(new_study):
    study = new_study({"mixing": ["none", "mixmask"]}, baseline={"mixing": "none"})
    study.plan["table"]["published"] = ["mixmask/table1", "mixmask/table5"]
    study.give("mixing=none", mixing="none")
    study.give("mixing=mixmask")
    cells = cells_of(study)

    assert cells["mixing=none"].published.value == 65.7
    assert cells["mixing=mixmask"].published.delta == pytest.approx(2.4)


def test_an_untrained_network_is_no_row_of_a_paper(study):
    study.give("grid=8", mask__grid=8, schedule__epochs=0)

    assert cells_of(study)["grid=8"].published is None


def test_a_level_may_name_the_row_of_a_table_where_no_key_does(new_study):
    study = new_study({"row": ["a", "b"]}, metric="finetune.top1")
    study.plan["table"]["published"] = ["siameseim/table3"]
    for row in "ab":
        study.give(f"row={row}", evaluate__finetune__kind="sgd")
    cells = cells_of(study)

    assert [c.published.places[0].split(", ")[0] for c in cells.values()] == ["siameseim/table3"] * 2
    assert cells["row=a"].published.value != cells["row=b"].published.value


def test_seeds_that_are_equal_but_for_rounding_agree_with_nothing():
    found = verdict([68.1, 68.1, 68.1 + 1e-14], [68.2], 3, [])

    assert (found.kind, found.because) == ("undecided", ("all seeds are equal",))


def test_one_seed_agrees_with_nothing():
    found = verdict([68.1], [68.1], 3, [])

    assert (found.kind, found.because) == ("undecided", ("one seed has no spread to judge by",))
    assert found.low is None


def test_the_interval_predicts_the_mean_of_as_many_runs_as_the_paper_has():
    ours = [67.0, 67.5, 68.6]
    found = verdict(ours, [67.0], 3, [])
    half = stats.t.ppf(0.975, 2) * stats.tstd(ours) * math.sqrt(1 / 3 + 1 / 3) + 0.05

    assert (found.low, found.high) == (pytest.approx(0.7 - half), pytest.approx(0.7 + half))


def test_an_unknown_number_of_runs_counts_as_one():
    ours = [67.0, 67.5, 68.6]
    one, unknown = verdict(ours, [67.0], 1, []), verdict(ours, [67.0], None, [])

    assert one == unknown
