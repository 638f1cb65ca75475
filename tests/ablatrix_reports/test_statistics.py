"""Means and paired intervals, against scipy, by hand, and where they degenerate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablatrix_reports.statistics import Difference, holm, mean_interval, paired_difference, smallest_p, summarise, t_quantile

accuracies = st.floats(0, 100).map(lambda x: round(x, 3))


def test_the_spread_is_the_sample_standard_deviation_by_hand():
    summary = summarise([70.0, 71.0, 73.0])

    assert summary.mean == pytest.approx(71.3333333333, abs=1e-9)
    assert summary.std == pytest.approx(math.sqrt((16 + 1 + 25) / 9 / 2), rel=1e-12)
    assert summary.n == 3


@given(st.lists(accuracies, min_size=2, max_size=12))
def test_mean_and_spread_agree_with_numpy(values: list[float]):
    summary = summarise(values)

    assert summary.mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-12)
    assert summary.std == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-12)


def test_a_large_offset_costs_the_spread_nothing():
    near, far = summarise([0.0, 1.0, 2.0]), summarise([1e12, 1e12 + 1, 1e12 + 2])

    assert far.std == near.std == 1.0


@pytest.mark.parametrize("values", [[], [71.3]])
def test_below_two_values_there_is_neither_spread_nor_interval(values: list[float]):
    summary = summarise(values)

    assert summary.mean == (values[0] if values else None)
    assert summary.std is None
    assert mean_interval(values) is None


def test_equal_values_have_exactly_no_spread_and_exactly_their_mean():
    summary = summarise([0.1, 0.1, 0.1])

    assert (summary.mean, summary.std) == (0.1, 0.0)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (1000, 1.962)])
def test_the_t_quantiles_are_those_of_printed_tables(freedom: int, quantile: float):
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5e-4)


def test_the_paired_interval_is_that_of_scipy():
    a, b = [71.2, 70.8, 71.9, 70.1], [69.0, 69.9, 70.2, 69.4]

    found = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)

    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.mean == pytest.approx(np.mean(np.subtract(a, b)), rel=1e-12)


@given(st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=8))
def test_the_interval_contains_zero_exactly_where_the_t_test_cannot_tell(pairs: list[tuple[float, float]]):
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    spread = float(np.std(a - b, ddof=1))
    if spread < 1e-6:  # both would divide rounding errors
        return

    found = paired_difference(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
    p = 2 * stats.t.sf(abs(np.mean(a - b)) / (spread / math.sqrt(len(a))), len(a) - 1)

    assert found is not None
    if abs(p - 0.05) > 1e-9:
        assert found.tied == (p > 0.05)


@given(st.dictionaries(st.integers(0, 9), accuracies, min_size=2), st.dictionaries(st.integers(0, 9), accuracies, min_size=2))
def test_swapping_the_two_mirrors_the_interval(a: dict[int, float], b: dict[int, float]):
    one, other = paired_difference(a, b), paired_difference(b, a)

    if one is None or other is None:
        assert one is other
    else:
        assert one.mean == pytest.approx(-other.mean)
        assert one.n == other.n == len(a.keys() & b.keys())
        assert one.tied == other.tied


def test_what_seeds_share_cancels():
    base = {0: 60.0, 1: 70.0, 2: 80.0}

    found = paired_difference({s: v + 1 + 0.1 * s for s, v in base.items()}, base)

    assert found is not None
    assert found.mean == pytest.approx(1.1)
    assert found.low == pytest.approx(1.1 - 4.3027 * 0.1 / math.sqrt(3), abs=1e-4)
    assert found.tied is False


@pytest.mark.parametrize(
    ("values", "reference"),
    [
        ({0: 61.0, 1: 71.0, 2: 81.0}, {0: 60.0, 1: 70.0, 2: 80.0}),
        ({0: 12.5, 1: 61.1, 2: 30.4}, {0: 12.3, 1: 60.9, 2: 30.2}),  # equal to a reader; 3e-15 apart to a computer
        ({0: float(np.float32(0.1253)), 1: float(np.float32(0.6113))}, {0: float(np.float32(0.1251)), 1: float(np.float32(0.6111))}),
    ],
    ids=["exactly", "but for rounding", "but for rounding in float32"],
)
def test_seeds_that_all_differ_alike_tell_no_spread_so_there_is_no_interval_and_nothing_is_told_apart(values, reference):
    found = paired_difference(values, reference)

    assert found is not None
    assert found.mean == pytest.approx(values[0] - reference[0], rel=1e-2)
    assert (found.low, found.high, found.p, found.tied) == (None, None, None, True)


def test_a_small_difference_of_real_seeds_is_no_rounding():
    found = paired_difference({0: 61.11, 1: 70.52, 2: 68.31}, {0: 61.0, 1: 70.4, 2: 68.2})

    assert found is not None
    assert found.low is not None
    assert found.low > 0


def test_only_common_seeds_are_paired():
    found = paired_difference({0: 71.0, 1: 73.0, 5: 99.0}, {0: 70.0, 1: 70.0, 7: 1.0})

    assert found is not None
    assert (found.mean, found.n) == (2.0, 2)


def test_one_common_seed_gives_a_difference_without_an_interval():
    found = paired_difference({0: 71.0, 1: 73.0}, {0: 70.0})

    assert found == Difference(1.0, None, None, 1)
    assert Difference(1.0, None, None, 1).tied is None


def test_without_a_common_seed_there_is_no_difference():
    assert paired_difference({0: 71.0}, {1: 70.0}) is None


def test_equal_cells_cannot_be_told_apart():
    found = paired_difference({0: 71.0, 1: 72.0}, {0: 71.0, 1: 72.0})

    assert found == Difference(0.0, None, None, 2)
    assert Difference(0.0, None, None, 2).tied


def test_p_is_that_of_the_paired_t_test_of_scipy():
    a, b = [71.2, 70.8, 71.9, 70.1], [69.0, 69.9, 70.2, 69.4]
    difference = paired_difference(dict(enumerate(a)), dict(enumerate(b)))

    assert difference is not None
    assert difference.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_makes_a_p_smaller_nor_changes_their_order(p_values: list[float]):
    corrected = holm(p_values)

    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    assert np.argsort(p_values, kind="stable").tolist() == sorted(range(len(p_values)), key=lambda i: (corrected[i], p_values[i], i))


@pytest.mark.parametrize(("n", "p"), [(1, 1.0), (3, 0.25), (6, 0.03125)])
def test_the_smallest_p_of_a_rank_test_is_that_of_scipys(n: int, p: float):
    assert smallest_p(n) == p
    assert n == 1 or stats.wilcoxon(np.arange(1.0, n + 1), method="exact").pvalue == pytest.approx(p)
