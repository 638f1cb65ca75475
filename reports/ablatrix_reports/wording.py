"""How every view writes a number, a cell, a heading or a duration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ablatrix_reports.judgement import Published
from ablatrix_reports.plan import Metric
from ablatrix_reports.report import Cell, Report
from ablatrix_reports.statistics import Difference

NO_BREAK = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
MARKS = {"waiting": "–", "running": "…", "failed": "✕", "excluded": "n/a", "stopped": "†"}
JUDGED = ("agrees", "higher", "lower")  # verdicts that say something; the others stand in a caption
WEAK, OTHER_PROTOCOL = "~", "*"  # of published numbers
MEANINGS = {"waiting": "not run", "running": "running", "failed": "failed", "excluded": "excluded", "stopped": "stopped early"}


@dataclass(frozen=True)
class CellText:
    """A cell in words. `remark` is the mark, the differing n, or both; `delta` the difference to the baseline; each may be empty.

    `paper` is the published number with its marks and its own difference to the baseline, `verdict` one word.
    """

    value: str
    remark: str
    delta: str
    best: bool
    tied: bool
    paper: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Heading:
    """One heading of a column axis: its label, and how many columns it spans."""

    label: str
    span: int


def cell_texts(report: Report) -> dict[tuple[str, str], CellText]:
    """The words of every cell, by (row key, column key)."""
    digits = decimals(report)
    return {place: _cell_text(cell, report.n, digits[cell.metric.name]) for place, cell in report.at().items()}


def decimals(report: Report) -> dict[str, int]:
    """Decimals by metric name: one from 10 to 1000, as for percentages, and three significant digits below 10."""
    largest: dict[str, float] = {report.metric.name: 0.0}
    for cell in report.cells:
        largest[cell.metric.name] = max(abs(cell.mean or 0.0), largest.get(cell.metric.name, 0.0))
    return {name: _decimals(value) for name, value in largest.items()}


def published_number(paper: Published) -> str:
    """`68.1`, or `68.1 or 68.4` where the paper contradicts itself."""
    numbers = (f"{value:.1f}" if round(value, 1) == value else f"{value:g}" for value in (paper.value, *paper.rivals))
    return " or ".join(numbers) + ("" if paper.unit == "%" else f" {paper.unit}")


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """`value` with `digits` decimals and a real minus sign; never a negative zero."""
    text = f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", MINUS)


def difference(delta: Difference, digits: int) -> str:
    """`+1.2 [+0.3, +2.1]`, or without its interval where there is none."""
    mean = number(delta.mean, digits, signed=True)
    if delta.low is None or delta.high is None:
        return mean
    return f"{mean} [{number(delta.low, digits, signed=True)},{NO_BREAK}{number(delta.high, digits, signed=True)}]"


def headings(report: Report) -> list[list[Heading]]:
    """The rows of the table's head, outermost column axis first; equal neighbours under one parent share a heading."""
    levels = []
    for depth in range(len(report.columns[0].labels) if report.columns else 0):
        spans: list[tuple[tuple[str, ...], int]] = []
        for column in report.columns:
            prefix = column.labels[: depth + 1]
            if spans and spans[-1][0] == prefix:
                spans[-1] = (prefix, spans[-1][1] + 1)
            else:
                spans.append((prefix, 1))
        levels.append([Heading(prefix[-1], span) for prefix, span in spans])
    return levels


def row_head(report: Report) -> tuple[str, ...]:
    """The names above the row labels: the row axes, or the sweep where there are none."""
    return report.row_axes or ("sweep",)


def cell_name(cell: Cell) -> str:
    """A cell by its levels, with its label where it has one."""
    levels = ", ".join(f"{axis} = {level}" for axis, level in cell.levels.items()) or cell.id
    return f"{cell.label} ({levels})" if cell.label else levels


def measure(metric: Metric) -> str:
    """`knn.top1, higher is better`, and how it was taken where that is not the last value."""
    better = "higher" if metric.goal == "max" else "lower"
    best = ", best report of each trial" if metric.take == "best" else ""
    return f"{metric.name}, {better} is better{best}"


def duration(seconds: float) -> str:
    """`41 s`, `3 min 20 s`, `2 h 5 min` or `4 d 3 h`."""
    units = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")]
    whole = round(seconds)
    index = next((i for i, (size, _) in enumerate(units[:-1]) if whole >= size), len(units) - 1)
    size, unit = units[index]
    head, rest = f"{whole // size} {unit}", whole % size
    if index == len(units) - 1 or not rest // units[index + 1][0]:
        return head
    return f"{head} {rest // units[index + 1][0]} {units[index + 1][1]}"


def _cell_text(cell: Cell, usual: int, digits: int) -> CellText:
    paper, verdict = _paper(cell), cell.verdict.kind if cell.verdict else ""
    if cell.mean is None:
        return CellText(MARKS[cell.state], "", "", False, False, paper, verdict)
    spread = f" ± {_spread(cell.std, digits)}" if cell.std is not None else ""
    delta = difference(cell.delta, digits) if cell.delta else ""
    return CellText(number(cell.mean, digits) + spread, _remark(cell, usual), delta, cell.best, cell.tied, paper, verdict)


def _paper(cell: Cell) -> str:
    if cell.published is None:
        return ""
    marks = WEAK * cell.published.weak + OTHER_PROTOCOL * bool(cell.verdict and cell.verdict.kind == "not comparable")
    delta = "" if cell.published.delta is None or not cell.delta else f", Δ {number(cell.published.delta, 1, signed=True)}"
    return f"{published_number(cell.published)}{marks}{delta}"


def _spread(std: float, digits: int) -> str:
    """A spread is 0 only if it is: one that would round to 0 keeps one significant digit."""
    exponent = int(f"{std:.0e}".partition("e")[2])
    return number(std, digits if std == 0 or round(std, digits) else -exponent)


def _remark(cell: Cell, usual: int) -> str:
    parts = [f"n = {cell.n}"] if cell.n != usual else []
    parts += [MARKS[cell.state]] if cell.state != "finished" else []
    return ", ".join(parts)


def _decimals(largest: float) -> int:
    if largest == 0 or 10 <= largest < 1000:
        return 1
    return min(12, max(0, 2 - math.floor(math.log10(largest))))
