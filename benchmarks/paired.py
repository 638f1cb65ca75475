"""Compare the cost of several ways to do one thing, honestly, on a machine that others use too.

All cases run in one process, in rounds whose order rotates; the figure is the median over rounds of the ratio within a round,
so drift of the clock or the cache hits both sides alike. A bar is passed only by the lower quartile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import psutil

Clock = Callable[[], float]

LOAD_LIMIT = 1.0  # cores that other processes may use
SPREAD_LIMIT = 0.25  # interquartile range of the ratios over their median


@dataclass(frozen=True)
class Ratio:
    """How many times as much `slow` costs as `fast`: median, quartiles and extremes over the rounds."""

    median: float
    lower: float
    upper: float
    worst: float
    best: float

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        return (self.upper - self.lower) / self.median


@dataclass(frozen=True)
class Rounds:
    """The seconds of every case in every round, and how many cores other processes used meanwhile."""

    seconds: dict[str, list[float]]
    other_load: float

    def median_seconds(self, name: str) -> float:
        """The case's median over the rounds."""
        return float(np.median(self.seconds[name]))

    def ratio(self, slow: str, fast: str) -> Ratio:
        """The paired ratios seconds(slow) / seconds(fast)."""
        ratios = np.asarray(self.seconds[slow]) / np.asarray(self.seconds[fast])
        worst, lower, median, upper, best = np.quantile(ratios, [0, 0.25, 0.5, 0.75, 1])
        return Ratio(float(median), float(lower), float(upper), float(worst), float(best))

    def verdict(self, ratio: Ratio, bar: float) -> str:
        """passed or failed, by the lower quartile; inconclusive where the measurement cannot tell."""
        if self.other_load > LOAD_LIMIT:
            return f"inconclusive: others used {self.other_load:.1f} cores"
        if ratio.spread > SPREAD_LIMIT:
            return f"inconclusive: the quartiles lie {ratio.spread:.0%} apart"
        return "passed" if ratio.lower >= bar else "failed"


def paired_ratios(cases: Mapping[str, Callable[[], object]], rounds: int = 9, clock: Clock = time.process_time) -> Rounds:
    """Time every case once a round, in rotating order, after one unmeasured warm-up each.

    clock: seconds; the processor time of this process by default, which single-threaded cases want; `time.perf_counter`
    for threaded ones. Raises ValueError below 5 rounds, where a quartile says nothing.
    """
    if rounds < 5:
        raise ValueError(f"{rounds} rounds are too few for a quartile. Use 5 or more.")
    for case in cases.values():
        case()
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    load = _OtherLoad()
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            cases[name]()
            seconds[name].append(clock() - start)
    return Rounds(seconds, load.cores())


class _OtherLoad:
    """Cores kept busy by processes other than this one and its children, since construction."""

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float:
        """The average so far."""
        wall, busy, own = (now - start for now, start in zip(self._now(), self._start, strict=True))
        return max(0.0, (busy - own) / wall) if wall > 0 else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float]:
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        busy = sum(machine) - idle - getattr(machine, "guest", 0.0) - getattr(machine, "guest_nice", 0.0)
        return time.perf_counter(), busy, own.user + own.system + own.children_user + own.children_system
