"""Claims judged on a stored sweep."""

from __future__ import annotations

from typing import Any

import pytest

from ablatrix_reports.judgement import ClaimVerdict
from ablatrix_reports.write import read_report


def judged(study: Any, *claims: dict[str, Any]) -> list[ClaimVerdict]:
    study.plan["claims"] = [{"text": "a sentence", "for": {}} | claim for claim in claims]
    return list(read_report(study.submit(), "masks").claims)


@pytest.fixture
def study(new_study):
    study = new_study({"data": ["a", "b"], "grid": ["2", "4", "8"]}, rows=["grid"])
    study.finish("data=a,grid=2", 60.0, 61.0, 62.0)
    study.finish("data=a,grid=4", 65.1, 66.0, 66.9)
    study.finish("data=a,grid=8", 63.0, 61.5, 66.0)
    study.finish("data=b,grid=2", 50.0, 51.0, 52.0)
    study.finish("data=b,grid=4", 55.0, 56.1, 57.0)
    study.finish("data=b,grid=8", 49.0, 49.9, 51.2)
    return study


def test_a_clear_difference_holds_and_its_opposite_fails(study):
    holds, fails = judged(study, {"check": "cell(grid=4) > cell(grid=2) + 2"}, {"check": "cell(grid=4) < cell(grid=2)"})

    assert (holds.state, fails.state) == ("holds", "fails")
    assert holds.low is not None
    assert 2.5 < holds.low < 3.0
    assert (holds.margin, holds.n) == (pytest.approx(3.0, abs=0.05), 3)
    assert [case.levels for case in holds.cases] == [{"data": "a"}, {"data": "b"}]
    assert holds.cases[0].means == {"cell(grid=4)": pytest.approx(66.0), "cell(grid=2)": pytest.approx(61.0)}


def test_a_claim_fails_as_a_whole_where_one_case_clearly_fails(study):
    verdict, close, only_a = judged(
        study,
        {"check": "cell(grid=8) > cell(grid=2) + 1"},
        {"check": "cell(grid=8) > cell(grid=2) - 0.5"},
        {"check": "cell(grid=8) > cell(grid=2)", "for": {"data": "a"}},
    )

    assert [case.state for case in verdict.cases] == [case.state for case in close.cases] == ["undecided", "fails"]
    assert verdict.state == "fails"
    assert close.state == "undecided"  # two cases are two chances to fail, and each pays for it
    assert [case.levels for case in only_a.cases] == [{"data": "a"}]


def test_an_undecided_claim_says_how_many_seeds_would_settle_it(study):
    (verdict,) = judged(study, {"check": "cell(grid=8) > cell(grid=2)", "for": {"data": "a"}})

    assert verdict.state == "undecided"
    assert verdict.seeds_needed is not None
    assert verdict.seeds_needed > 3
    assert verdict.reason == f"the interval contains 0; about {verdict.seeds_needed} seeds would settle it"


def test_one_seed_decides_nothing_but_is_read_as_a_point(new_study):
    study = new_study({"grid": ["2", "4"]}, seeds=(0,))
    study.finish("grid=2", 60.0)
    study.finish("grid=4", 65.0)
    above, below = judged(study, {"check": "cell(grid=4) > cell(grid=2)"}, {"check": "cell(grid=4) < cell(grid=2)"})

    assert (above.state, above.reason) == ("undecided", "one seed; read as a point it holds")
    assert (below.state, below.reason) == ("undecided", "one seed; read as a point it does not hold")
    assert (above.margin, above.low, above.high) == (5.0, None, None)


def test_missing_trials_leave_a_claim_open_whatever_the_rest_says(new_study):
    study = new_study({"grid": ["2", "4"]})
    study.finish("grid=2", 60.0, 60.1, 60.2)
    study.finish("grid=4", 90.0, 90.2)
    (verdict,) = judged(study, {"check": "cell(grid=4) > cell(grid=2)"})

    assert verdict.state == "undecided"
    assert verdict.reason == "cells are missing: 2 of 3 trials of grid=4"
    assert verdict.margin is None


def test_a_claim_over_cells_that_a_profile_dropped_is_not_asked(study):
    (verdict,) = judged(study, {"check": "cell(grid=16) < cell(grid=2)"})

    assert verdict.state == "not asked"
    assert verdict.reason == "no such cell here: cell(grid=16)"


@pytest.mark.parametrize("values", [((60.0, 61.0), (60.5, 61.5)), ((12.3, 60.9), (12.5, 61.1))], ids=["exactly", "but for rounding"])
def test_an_equal_difference_of_all_seeds_is_no_proof(new_study, values):
    study = new_study({"grid": ["2", "4"]}, seeds=(0, 1))
    study.finish("grid=2", *values[0])
    study.finish("grid=4", *values[1])
    (verdict,) = judged(study, {"check": "cell(grid=4) > cell(grid=2)"})

    assert (verdict.state, verdict.reason) == ("undecided", "all seeds give the same difference, so nothing tells its spread")


def test_a_claim_of_which_one_part_tells_no_spread_says_so_instead_of_asking_for_seeds(study):
    study.finish("data=a,grid=8", 60.5, 61.5, 62.5)
    (verdict,) = judged(study, {"check": "cell(grid=4) > cell(grid=2) and cell(grid=8) > cell(grid=2)", "for": {"data": "a"}})

    assert (verdict.state, verdict.seeds_needed) == ("undecided", None)
    assert verdict.reason == "all seeds give the same difference, so nothing tells its spread"
