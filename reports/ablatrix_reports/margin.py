"""The margin of a claim: max and min of linear combinations of cells, with an interval over the seeds that the cells share.

A claim holds where its margin is positive. `a > max(b, c)` is min(a - b, a - c) > 0, and `a < max(b, c)` is max(b - a, c - a) > 0.
Each combination is taken seed by seed, so what equal seeds share cancels out. The interval of a maximum is [the largest lower
bound at tail/k, the largest upper bound at tail] over its k parts (union and intersection-union tests, Berger 1982), so that the
whole interval misses the truth with at most the probability of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ablatrix.claim import Call, CellRef, Comparison, Number, Sum, Term
from ablatrix_reports.statistics import POWER, TAIL, exactly, first_above, half_width, summarise

Values = Mapping[int, float]  # by seed


@dataclass(frozen=True)
class Linear:
    """A constant, and a weight for each cell."""

    constant: float
    weights: dict[CellRef, float]


@dataclass(frozen=True)
class Extreme:
    """The largest or the smallest of its parts."""

    kind: Literal["max", "min"]
    parts: tuple[Form, ...]


@dataclass(frozen=True)
class Sample:
    """A linear combination over the seeds that its cells share. `std` is None where nothing tells the spread: below two seeds, or
    where all seeds give exactly the same number, as coarse metrics do by chance."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class SampledExtreme:
    """`Extreme`, of samples."""

    kind: Literal["max", "min"]
    parts: tuple[Sampled, ...]


Form = Linear | Extreme
Sampled = Sample | SampledExtreme
EXACT = 0  # the `n` of a constant, which has no spread


def margin_of(comparison: Comparison) -> Form:
    """What must be positive: the larger side less the smaller one."""
    return _add(_form(comparison.larger, 1.0), _form(comparison.smaller, -1.0))


def smallest(parts: Sequence[Sampled]) -> Sampled:
    """The margin of several comparisons that must all hold."""
    return parts[0] if len(parts) == 1 else SampledExtreme("min", tuple(parts))


def sample(form: Form, values: Mapping[CellRef, Values]) -> Sampled | None:
    """`form` over its cells' values; None where some combination has no seed in common."""
    if isinstance(form, Linear):
        return _sample(form, values)
    parts = [sample(part, values) for part in form.parts]
    known = tuple(part for part in parts if part is not None)
    return SampledExtreme(form.kind, known) if len(known) == len(parts) else None


def estimate(form: Sampled) -> float:
    """The margin at the means."""
    if isinstance(form, Sample):
        return form.mean
    return (max if form.kind == "max" else min)(map(estimate, form.parts))


def interval(form: Sampled) -> tuple[float, float]:
    """The 95 % interval of the margin; infinite on the sides of which nothing can be said."""
    return _low(form, TAIL, None, None), -_low(_negative(form), TAIL, None, None)


def common_seeds(form: Sampled) -> int:
    """The smallest number of seeds behind any part of it."""
    if isinstance(form, Sample):
        return form.n
    return min((n for n in map(common_seeds, form.parts) if n != EXACT), default=EXACT)


def seeds_needed(form: Sampled) -> int | None:
    """How many seeds would settle the sign of the margin with a power of about 80 %, if means and spreads stay; None beyond 1000."""
    signed = form if estimate(form) > 0 else _negative(form)
    return first_above(common_seeds(form), lambda n: _low(signed, TAIL, n, POWER) > 0)


def _low(form: Sampled, tail: float, n: int | None, power: float | None) -> float:
    """The lower bound; as if there were `n` seeds where that is given."""
    if isinstance(form, SampledExtreme):
        largest = form.kind == "max"
        return (max if largest else min)(_low(part, tail / len(form.parts) if largest else tail, n, power) for part in form.parts)
    if form.n == EXACT:
        return form.mean
    return -math.inf if form.std is None else form.mean - half_width(form.std, n or form.n, tail, power=power)


def _negative(form: Sampled) -> Sampled:
    if isinstance(form, Sample):
        return Sample(-form.mean, form.std, form.n)
    return SampledExtreme("min" if form.kind == "max" else "max", tuple(map(_negative, form.parts)))


def _sample(form: Linear, values: Mapping[CellRef, Values]) -> Sample | None:
    weights = {ref: weight for ref, weight in form.weights.items() if weight}
    if not weights:
        return Sample(form.constant, 0.0, EXACT)
    seeds = sorted(set.intersection(*(set(values[ref]) for ref in weights)))
    size = max((abs(weight * values[ref][seed]) for ref, weight in weights.items() for seed in seeds), default=0.0)
    sums = [form.constant + math.fsum(weight * values[ref][seed] for ref, weight in weights.items()) for seed in seeds]
    found = summarise(exactly(sums, size))
    return None if found.mean is None else Sample(found.mean, found.std or None, found.n)


def _form(term: Term, scale: float) -> Form:
    """`scale` times `term`, its sums pushed into the extremes."""
    if isinstance(term, Number):
        return Linear(scale * term.value, {})
    if isinstance(term, CellRef):
        return Linear(0.0, {term: scale})
    if isinstance(term, Sum):
        return _total([_form(inner, sign * scale) for sign, inner in term.terms])
    return _called(term, scale)


def _called(call: Call, scale: float) -> Form:
    if call.name == "mean":
        return _total([_form(argument, scale / len(call.arguments)) for argument in call.arguments])
    if call.name == "abs":
        return Extreme("max" if scale > 0 else "min", (_form(call.arguments[0], scale), _form(call.arguments[0], -scale)))
    largest = (call.name == "max") == (scale > 0)
    return Extreme("max" if largest else "min", tuple(_form(argument, scale) for argument in call.arguments))


def _total(forms: Sequence[Form]) -> Form:
    total = forms[0]
    for form in forms[1:]:
        total = _add(total, form)
    return total


def _add(left: Form, right: Form) -> Form:
    if isinstance(left, Extreme):
        return Extreme(left.kind, tuple(_add(part, right) for part in left.parts))
    if isinstance(right, Extreme):
        return Extreme(right.kind, tuple(_add(left, part) for part in right.parts))
    weights = {ref: left.weights.get(ref, 0.0) + right.weights.get(ref, 0.0) for ref in (*left.weights, *right.weights)}
    return Linear(left.constant + right.constant, weights)
