"""Means, spreads and paired intervals over seeds, with plain answers for the degenerate cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """`mean` is None without values; `std` is the sample standard deviation (n - 1), None below two values."""

    mean: float | None
    std: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """The mean difference over the `n` common seeds, with its 95 % interval: None below two seeds, where there is none."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def contains_zero(self) -> bool | None:
        """Whether the two cannot be told apart; None where no interval says so."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation of finite values; two passes, so large offsets lose nothing."""
    n = len(values)
    if n == 0:
        return Summary(None, None, 0)
    if all(v == values[0] for v in values):  # the mean of equal values is exactly that value
        return Summary(values[0], 0.0 if n > 1 else None, n)
    mean = math.fsum(values) / n
    return Summary(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)), n)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % t interval of the mean (Student 1908); None below two values."""
    summary = summarise(values)
    if summary.mean is None or summary.std is None:
        return None
    half = t_quantile(summary.n - 1) * summary.std / math.sqrt(summary.n)
    return summary.mean - half, summary.mean + half


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """`values - reference` over their common seeds, with the paired 95 % t interval; None where no seed is common.

    Both map seeds to values. Seeds are paired because equal seeds share what chance decides in both cells. Differences
    that are all equal give an interval of no width.
    """
    differences = [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())]
    mean = summarise(differences).mean
    if mean is None:
        return None
    low, high = mean_interval(differences) or (None, None)
    return Difference(mean, low, high, len(differences))


@cache
def t_quantile(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t with `freedom` degrees of freedom."""
    from scipy.special import stdtrit  # scipy.stats would cost half a second more

    return float(stdtrit(freedom, 0.5 + LEVEL / 2))
