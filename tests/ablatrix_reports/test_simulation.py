"""Simulated tables whose truth is known: how often the report is wrong. Seeds are fixed, so that no run differs from another."""

from __future__ import annotations

import numpy as np
import pytest

from ablatrix.claim import CellRef, parse
from ablatrix_reports import margin
from ablatrix_reports.statistics import holm, mean_interval, paired_difference, seeds_needed
from ablatrix_reports.trend import trend
from ablatrix_reports.verdicts import verdict

TABLES = 4000  # a rate of 5 % is then known to ± 0.7 points
SPREAD, SHARED = 0.4, 1.5  # of a seed's own chance, and of what all cells of a seed share, in points


def tables(means: list[float], seeds: int, count: int = TABLES) -> np.ndarray:
    """(tables, seeds, cells): each value is the cell's mean, what its seed shares, and chance."""
    draw = np.random.default_rng(20261124)
    shared = draw.normal(0, SHARED, (count, seeds, 1))
    return np.array(means) + shared + draw.normal(0, SPREAD, (count, seeds, len(means)))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_95_percent_intervals_hold_the_true_difference_in_93_to_97_percent(seeds: int):
    found = tables([60.0, 61.2], seeds)
    differences = [paired_difference(dict(enumerate(t[:, 1])), dict(enumerate(t[:, 0]))) for t in found]
    covered = np.mean([d is not None and d.low is not None and d.high is not None and d.low <= 1.2 <= d.high for d in differences])

    assert 0.93 <= covered <= 0.97


def test_95_percent_intervals_of_a_mean_hold_it_in_93_to_97_percent():
    found = [mean_interval(list(t[:, 0])) for t in tables([60.0], 3)]
    covered = np.mean([i is not None and i[0] <= 60.0 <= i[1] for i in found])

    assert 0.93 <= covered <= 0.97


NAMES = "abcd"
FALSE = [  # claims that are just not true of these means: the hardest truth to be wrong about
    ("cell(x=a) > cell(x=b)", [60.0, 60.0, 0.0, 0.0]),
    ("cell(x=a) > max(cell(x=b), cell(x=c), cell(x=d))", [60.0, 60.0, 55.0, 55.0]),
    ("cell(x=a) < max(cell(x=b), cell(x=c), cell(x=d))", [60.0, 60.0, 60.0, 60.0]),
    ("cell(x=a) > mean(cell(x=b), cell(x=c)) + 1", [61.0, 59.0, 61.0, 0.0]),
    ("abs(cell(x=a) - cell(x=b)) < 1", [60.0, 61.0, 0.0, 0.0]),
    ("abs(cell(x=a) - cell(x=b)) > 1", [60.0, 61.0, 0.0, 0.0]),
    ("cell(x=a) > cell(x=b) and cell(x=c) > cell(x=d)", [60.0, 60.0, 60.0, 60.0]),
    ("max(cell(x=a), cell(x=b)) > min(cell(x=c), cell(x=d))", [60.0, 60.0, 60.0, 60.0]),
]


def margins(check: str, means: list[float], seeds: int, count: int = TABLES) -> np.ndarray:
    """(tables, 2): the interval of the claim's margin in each table."""
    read, refs = parse(check), [CellRef((("x", name),)) for name in NAMES]
    forms = [margin.margin_of(comparison) for comparison in read.comparisons]
    found = []
    for table in tables(means, seeds, count):
        values = {ref: dict(enumerate(table[:, i])) for i, ref in enumerate(refs)}
        parts = [part for form in forms if (part := margin.sample(form, values)) is not None]
        found.append(margin.interval(margin.smallest(parts)))
    return np.array(found)


@pytest.mark.parametrize(("check", "means"), FALSE, ids=[check for check, _ in FALSE])
def test_a_claim_that_is_not_true_holds_in_less_than_5_percent(check: str, means: list[float]):
    bounds = margins(check, means, seeds=3)

    assert np.mean(bounds[:, 0] > 0) < 0.05


@pytest.mark.parametrize(("check", "means"), FALSE, ids=[check for check, _ in FALSE])
def test_a_claim_that_is_not_false_fails_in_less_than_5_percent(check: str, means: list[float]):
    bounds = margins(check, means, seeds=3)

    assert np.mean(bounds[:, 1] < 0) < 0.05


def test_a_claim_that_is_clearly_true_holds_in_most_tables():
    bounds = margins("cell(x=a) < max(cell(x=b), cell(x=c))", [60.0, 64.0, 64.0, 0.0], seeds=3)

    assert np.mean(bounds[:, 0] > 0) > 0.8


def test_a_table_of_several_claims_of_which_one_is_not_true_is_reproduced_in_less_than_5_percent():
    all_hold = np.ones(TABLES, dtype=bool)
    for check in ("cell(x=a) > cell(x=b)", "cell(x=b) > cell(x=c)", "cell(x=c) > cell(x=d)"):
        all_hold &= margins(check, [70.0, 66.0, 62.0, 62.0], seeds=3)[:, 0] > 0

    assert np.mean(all_hold) < 0.05


def test_cells_that_equal_the_paper_are_told_from_it_in_5_percent():
    draw = np.random.default_rng(1)
    kinds = [verdict(list(row[:3]), [row[3:].mean()], 3, []).kind for row in draw.normal(68.0, 1.0, (TABLES, 6))]

    assert np.mean([kind != "agrees" for kind in kinds]) == pytest.approx(0.05, abs=0.015)


def test_a_paper_of_one_run_is_judged_by_the_spread_of_one_run():
    draw = np.random.default_rng(2)
    kinds = [verdict(list(row[:4]), [row[4]], None, []).kind for row in draw.normal(68.0, 1.0, (TABLES, 5))]

    assert np.mean([kind != "agrees" for kind in kinds]) == pytest.approx(0.05, abs=0.015)


def test_holm_finds_a_difference_that_is_none_in_less_than_5_percent_of_tables():
    found = tables([60.0] * 6, seeds=4, count=1500)
    wrong = []
    for table in found:
        cells = [dict(enumerate(table[:, i])) for i in range(6)]
        differences = [paired_difference(cell, cells[0]) for cell in cells[1:]]
        wrong.append(min(holm([d.p for d in differences if d is not None and d.p is not None])) < 0.05)

    assert np.mean(wrong) < 0.055


def test_as_many_seeds_as_are_said_to_be_needed_find_the_difference_in_about_80_percent():
    needed = seeds_needed(0.5, SPREAD * np.sqrt(2), 2)
    assert needed is not None
    found = tables([60.0, 60.5], needed, count=1500)
    differences = [paired_difference(dict(enumerate(t[:, 1])), dict(enumerate(t[:, 0]))) for t in found]

    assert np.mean([d is not None and d.low is not None and d.low > 0 for d in differences]) == pytest.approx(0.8, abs=0.05)


def test_a_trend_that_is_not_there_is_said_to_be_there_in_less_than_5_percent():
    draw = np.random.default_rng(3)
    found = []
    for table in draw.normal(60.0, 1.0, (800, 5, 6)):
        t = trend("c", [dict(enumerate(table[:, i])) for i in range(6)], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        found.append(t is not None and t.low is not None and t.low > 0)

    assert np.mean(found) < 0.05
