"""Kendall's tau with the paper's order, against scipy, and its bootstrap over seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablatrix_reports.trend import taus, trend

coarse = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=8)


@given(coarse)
def test_tau_is_that_of_scipy_with_ties(pairs: list[tuple[int, int]]):
    ours, theirs = np.array(pairs, dtype=float).T
    expected = stats.kendalltau(ours, theirs, variant="b").statistic

    assert taus(ours[None], theirs)[0] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_the_same_order_is_one_and_the_reverse_minus_one():
    values = [{0: 1.0, 1: 1.1}, {0: 2.0, 1: 2.1}, {0: 3.0, 1: 3.1}]

    same, reverse = trend("c", values, [60.0, 61.0, 62.0]), trend("c", values, [62.0, 61.0, 60.0])

    assert same is not None
    assert (same.tau, same.low, same.high, same.n, same.cells) == (1.0, 1.0, 1.0, 2, 3)
    assert reverse is not None
    assert reverse.tau == -1.0


def test_seeds_that_disagree_widen_the_interval():
    noisy = [{0: 1.0, 1: 3.0, 2: 1.0}, {0: 2.0, 1: 2.0, 2: 2.0}, {0: 3.5, 1: 1.0, 2: 3.0}]
    found = trend("c", noisy, [60.0, 61.0, 62.0])

    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert (found.tau, found.low, found.high) == (1.0, -1.0, 1.0)


def test_only_seeds_that_all_cells_have_count():
    found = trend("c", [{0: 1.0, 1: 9.0}, {0: 2.0}, {0: 3.0, 1: 0.0}], [1.0, 2.0, 3.0])

    assert found is not None
    assert (found.tau, found.n, found.low) == (1.0, 1, None)


def test_two_cells_have_no_trend_and_equal_cells_neither():
    assert trend("c", [{0: 1.0}, {0: 2.0}], [1.0, 2.0]) is None
    assert trend("c", [{0: 1.0}] * 3, [1.0, 2.0, 3.0]) is None


def test_more_than_five_seeds_are_drawn_and_equal_each_time():
    values = [{s: k + np.sin(7 * s + k) for s in range(8)} for k in range(4)]

    first, second = trend("c", values, [1.0, 2.0, 3.0, 4.0]), trend("c", values, [1.0, 2.0, 3.0, 4.0])

    assert first is not None
    assert first == second
    assert first.low is not None
    assert first.low <= first.tau
