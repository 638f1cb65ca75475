"""Whether our numbers stand in the paper's order: Kendall's tau-b (Kendall 1945), with an interval by bootstrap over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ablatrix_reports.judgement import Trend
from ablatrix_reports.report import Cell
from ablatrix_reports.statistics import LEVEL

MIN_CELLS = 3  # two cells have one order, which half of all coin tosses get right
ALL_RESAMPLES = 5  # seeds; up to here every one of the n^n resamples is taken, so that nothing is drawn
DRAWS = 2000


def trends(cells: Sequence[Cell]) -> tuple[Trend, ...]:
    """The trend of every column that has at least three cells with a value and a published number of one metric."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.mean is not None and cell.published is not None:
            groups.setdefault((cell.column, cell.metric.name), []).append(cell)
    found = [trend(column, [c.values for c in group], [_paper(c) for c in group]) for (column, _), group in groups.items()]
    return tuple(t for t in found if t is not None)


def trend(column: str, values: Sequence[Mapping[int, float]], paper: Sequence[float]) -> Trend | None:
    """values: by seed, one mapping for each cell. None below three cells, and where all cells are equal, ours or the paper's."""
    seeds = sorted(set.intersection(*map(set, values)))
    if len(values) < MIN_CELLS or not seeds:
        return None
    ours, theirs = np.array([[cell[seed] for cell in values] for seed in seeds]), np.array(paper)
    tau = taus(ours.mean(axis=0, keepdims=True), theirs)[0]
    if not np.isfinite(tau):
        return None
    low, high = _interval(ours, theirs) if len(seeds) > 1 else (None, None)
    return Trend(column, float(tau), low, high, len(seeds), len(values))


def taus(ours: NDArray, theirs: NDArray) -> NDArray:
    """Tau-b of each row of `ours` (samples, cells) with `theirs` (cells,): (samples,), NaN where all cells of a side are equal."""
    first, second = np.triu_indices(len(theirs), 1)
    a, b = np.sign(ours[:, first] - ours[:, second]), np.sign(theirs[first] - theirs[second])
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum())
    return np.divide((a * b).sum(axis=1), scale, out=np.full(len(ours), np.nan), where=scale > 0)


def _interval(ours: NDArray, theirs: NDArray) -> tuple[float, float]:
    """The percentile interval; the same seeds are drawn for all cells, since they are paired."""
    n = len(ours)
    if n <= ALL_RESAMPLES:
        rows = np.array(list(itertools.product(range(n), repeat=n)))
    else:
        rows = np.random.default_rng(0).integers(0, n, (DRAWS, n))
    found = taus(ours[rows].mean(axis=1), theirs)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(found, [tail, 100 - tail], method="nearest")
    return float(low), float(high)


def _paper(cell: Cell) -> float:
    assert cell.published is not None
    return cell.published.value
