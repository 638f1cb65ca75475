"""Means, spreads and paired intervals over seeds, with plain answers for the degenerate cases."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
POWER = 0.8
MAX_SEEDS = 1000  # more than anyone runs
ROUNDING = 1e-6  # of the size of the values: what float32 makes of equal differences; accuracies step by more


@dataclass(frozen=True)
class Summary:
    """`mean` is None without values; `std` is the sample standard deviation (n - 1), None below two values."""

    mean: float | None
    std: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """The mean difference over the `n` common seeds, with its 95 % interval.

    There is none with one seed, and none where all seeds differ alike, as coarse metrics do by chance: nothing then tells the spread.
    `p` belongs to the two-sided paired t test, and `holm` is p corrected for all comparisons of the table (Holm 1979); None without a
    spread. `seeds_needed`: how many seeds would probably (80 %) tell the two apart if mean and spread stay; None where they are told
    apart, where nothing says so, and beyond 1000.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None = None
    holm: float | None = None
    seeds_needed: int | None = None

    @property
    def tied(self) -> bool | None:
        """Whether the two cannot be told apart: the interval contains 0, or there is none in spite of several seeds. None with one."""
        if self.n < 2:
            return None
        return self.low is None or self.high is None or self.low <= 0 <= self.high


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation of finite values; two passes, so large offsets lose nothing."""
    n = len(values)
    if n == 0:
        return Summary(None, None, 0)
    if all(v == values[0] for v in values):  # the mean of equal values is exactly that value
        return Summary(values[0], 0.0 if n > 1 else None, n)
    mean = math.fsum(values) / n
    return Summary(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)), n)


def exactly(values: Sequence[float], size: float) -> list[float]:
    """`values`, or as often their first where they differ by no more than rounding does in numbers of this `size`.

    12.5 - 12.3 and 61.1 - 60.9 are one difference to a reader and two to a computer, whose spread of 1e-15 would prove anything.
    """
    alike = values and max(values) - min(values) <= ROUNDING * size
    return [values[0]] * len(values) if alike else list(values)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % t interval of the mean (Student 1908); None below two values, and where nothing tells the spread."""
    summary = summarise(values)
    if summary.mean is None or not summary.std:
        return None
    half = half_width(summary.std, summary.n)
    return summary.mean - half, summary.mean + half


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """`values - reference` over their common seeds, with the paired 95 % t interval; None where no seed is common.

    Both map seeds to values. Seeds are paired because equal seeds share what chance decides in both cells.
    """
    common = sorted(values.keys() & reference.keys())
    size = max((abs(v) for seed in common for v in (values[seed], reference[seed])), default=0.0)
    differences = exactly([values[seed] - reference[seed] for seed in common], size)
    found = summarise(differences)
    if found.mean is None:
        return None
    interval = mean_interval(differences)
    if interval is None or not found.std:
        return Difference(found.mean, None, None, found.n)
    low, high = interval
    needed = seeds_needed(found.mean, found.std, found.n) if low <= 0 <= high else None
    return Difference(found.mean, low, high, found.n, p_value(found.mean, found.std, found.n), None, needed)


def p_value(mean: float, std: float, n: int) -> float:
    """Of the two-sided t test that `n` values of this mean and spread have the mean 0."""
    from scipy.special import stdtr

    return 2 * float(stdtr(n - 1, -abs(mean) * math.sqrt(n) / std))


def holm(p_values: Sequence[float]) -> list[float]:
    """The same p-values, corrected for all of them together: never below the plain ones, in the same order (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def smallest_p(n: int) -> float:
    """The smallest two-sided p that a sign or signed-rank test of `n` pairs can reach: 2 of the 2^n signs."""
    return min(1.0, 2.0 ** (1 - n))


def half_width(std: float, n: int, tail: float = TAIL, *, power: float | None = None) -> float:
    """Of the t interval of a mean that leaves `tail` on each side; with `power`, what a mean must exceed to be found that often."""
    quantiles = t_quantile(n - 1, tail) + (t_quantile(n - 1, 1 - power) if power else 0.0)
    return quantiles * std / math.sqrt(n)


def seeds_needed(mean: float, std: float, n: int) -> int | None:
    """How many seeds tell `mean` from 0 with a power of 80 %, more than the `n` at hand; None beyond 1000."""
    return first_above(n, lambda more: abs(mean) > half_width(std, more, power=POWER))


def first_above(n: int, settles: Callable[[int], bool]) -> int | None:
    """The smallest number of seeds above `n` that `settles`, which holds for all larger ones too; None beyond 1000."""
    if not settles(MAX_SEEDS):
        return None
    return bisect.bisect_left(range(MAX_SEEDS + 1), True, lo=max(n + 1, 2), key=settles)


@cache
def t_quantile(freedom: int, tail: float = TAIL) -> float:
    """What Student's t with `freedom` degrees of freedom exceeds with probability `tail`."""
    from scipy.special import stdtrit  # scipy.stats would cost half a second more

    return float(stdtrit(freedom, 1 - tail))
