"""The margin of a claim: written out as max and min of sums, estimated, and with an honest interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablatrix.claim import Call, CellRef, Number, Sum, parse
from ablatrix_reports import margin

NAMES = "abcd"
REFS = {name: CellRef((("x", name),)) for name in NAMES}


def read(text: str, **values: list[float]) -> margin.Sampled | None:
    """The margin of a claim over cells a, b, …, each with a value for each seed."""
    comparison = parse(text.replace("@", "cell(x=").replace(";", ")")).comparisons[0]
    return margin.sample(margin.margin_of(comparison), {REFS[name]: dict(enumerate(v)) for name, v in values.items()})


def literal(term: object, means: dict[CellRef, float]) -> float:
    """A term by its plain meaning."""
    if isinstance(term, Number):
        return term.value
    if isinstance(term, CellRef):
        return means[term]
    if isinstance(term, Sum):
        return sum(sign * literal(inner, means) for sign, inner in term.terms)
    assert isinstance(term, Call)
    values = [literal(argument, means) for argument in term.arguments]
    return {"max": max, "min": min, "mean": np.mean, "abs": lambda v: abs(v[0])}[term.name](values)


cells = st.sampled_from(NAMES).map(lambda name: f"cell(x={name})")
terms = st.recursive(
    cells | st.integers(0, 9).map(str),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda a: f"max({', '.join(a)})")
        | st.lists(inner, min_size=1, max_size=3).map(lambda a: f"min({', '.join(a)})")
        | st.lists(inner, min_size=1, max_size=3).map(lambda a: f"mean({', '.join(a)})")
        | inner.map(lambda a: f"abs({a})")
        | st.tuples(inner, inner).map(lambda a: f"({a[0]} - {a[1]})")
    ),
    max_leaves=5,
)


@given(terms, cells, st.tuples(*[st.floats(-9, 9)] * 4))
def test_written_out_a_claim_means_what_it_says(left: str, right: str, means: tuple[float, ...]):
    comparison = parse(f"{left} > {right}").comparisons[0]
    by_ref = dict(zip(REFS.values(), means, strict=True))

    form = margin.sample(margin.margin_of(comparison), {ref: {0: value} for ref, value in by_ref.items()})

    assert form is not None
    expected = literal(comparison.larger, by_ref) - literal(comparison.smaller, by_ref)
    assert margin.estimate(form) == pytest.approx(expected, abs=1e-9)


def test_a_difference_has_the_paired_interval_of_scipy():
    a, b = [71.2, 70.8, 71.9, 70.1], [69.0, 69.9, 70.2, 69.4]
    form = read("@a; - 1 > @b;", a=a, b=b)
    expected = stats.ttest_rel([v - 1 for v in a], b).confidence_interval()

    assert form is not None
    assert margin.interval(form) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_what_seeds_share_cancels_out():
    shared = [0.0, 50.0, -50.0]
    form = read("@a; > @b;", a=[1 + s for s in shared], b=[0.1 + s for s in (0.01, 50.0, -50.02)])

    assert form is not None
    assert margin.interval(form)[0] > 0.8


def test_the_lower_bound_of_a_maximum_pays_for_each_part_and_its_upper_bound_does_not():
    a, b = [1.0, 1.2, 0.9, 1.1], [2.0, 2.2, 2.1, 1.8]
    form = read("max(@a;, @b;) > 0", a=a, b=b)
    best = stats.ttest_1samp(b, 0.0)

    assert form is not None
    low, high = margin.interval(form)
    assert low == pytest.approx(best.confidence_interval(1 - 0.025).low, rel=1e-9)
    assert high == pytest.approx(best.confidence_interval(0.95).high, rel=1e-9)


def test_one_seed_bounds_nothing():
    form = read("@a; > @b;", a=[2.0], b=[1.0])

    assert form is not None
    assert margin.interval(form) == (-math.inf, math.inf)
    assert margin.estimate(form) == 1.0


def test_seeds_that_all_give_one_difference_bound_nothing():
    form = read("@a; > @b;", a=[2.0, 3.0], b=[1.0, 2.0])

    assert form is not None
    assert margin.interval(form) == (-math.inf, math.inf)


def test_cells_without_a_common_seed_have_no_margin():
    comparison = parse("cell(x=a) > cell(x=b)").comparisons[0]

    assert margin.sample(margin.margin_of(comparison), {REFS["a"]: {0: 1.0}, REFS["b"]: {1: 1.0}}) is None


def test_the_seeds_needed_for_a_difference_are_those_of_the_noncentral_t():
    differences = [1.5, -0.5, 0.8, 0.2]
    form = read("@a; > 0", a=differences)
    effect = np.mean(differences) / np.std(differences, ddof=1)

    def power(n: int) -> float:
        return 1 - stats.nct.cdf(stats.t.ppf(0.975, n - 1), n - 1, effect * math.sqrt(n))

    exact = next(n for n in range(2, 1000) if power(n) >= 0.8)
    assert form is not None
    assert abs((margin.seeds_needed(form) or 0) - exact) <= 1


def test_no_number_of_seeds_settles_what_is_equal():
    form = read("@a; > 0", a=[1.0, -1.0])

    assert form is not None
    assert margin.seeds_needed(form) is None
