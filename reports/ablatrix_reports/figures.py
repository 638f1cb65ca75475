"""The metric of every cell in a picture: seeds, means, intervals, and the paper's numbers beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablatrix_reports.canvas import ACCENT, INK, SERIES, canvas, inline_svg
from ablatrix_reports.report import Cell, Line, Report
from ablatrix_reports.statistics import mean_interval
from ablatrix_reports.wording import MARKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ROWS, MAX_PANELS = 40, 6
ROW_HEIGHT, PANEL_MARGIN = 0.32, 0.75  # inches
LABEL_LENGTH, TITLE_LENGTH = 28, 60  # characters
PAPER_AXIS = "the paper"
Interval = tuple[float, float]


@dataclass(frozen=True)
class Key:
    """A line of a picture's key: CSS colour, CSS border style, label."""

    colour: str
    dash: str
    label: str


@dataclass(frozen=True)
class Picture:
    """Inline SVG, a sentence or two to read it by, and its key."""

    svg: str
    caption: str
    legend: tuple[Key, ...] = ()


def levels(report: Report) -> Picture | None:
    """The metric of every cell: seeds as points, the mean as a bar, its 95 % t interval as a line. None without values."""
    at = report.at()
    filled = {c.column for c in report.cells if c.values}
    columns = [c for c in report.columns if c.key in filled]
    rows, panels = report.rows[:MAX_ROWS], columns[:MAX_PANELS]
    if not panels:
        return None
    with canvas(len(panels), len(rows) * ROW_HEIGHT + PANEL_MARGIN) as (figure, axes):
        for ax, column in zip(axes, panels, strict=True):
            _level_panel(ax, report, column, [at.get((r.key, column.key)) for r in rows])
            name_panel(ax, column, report)
            ax.set_xlabel(short(_metrics(report, column), TITLE_LENGTH), parse_math=False)
        svg = inline_svg(figure, "levels", "The metric of every cell of the table, seed by seed")
    return Picture(svg, _level_caption(report, len(columns)))


def _level_panel(ax: Axes, report: Report, column: Line, cells: list[Cell | None]) -> None:
    rows = report.rows[:MAX_ROWS]
    limits = _limits([v for c in cells if c for v in c.values.values()])
    ax.set_xlim(*limits)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(range(len(rows)), labels=[short(", ".join(r.labels), LABEL_LENGTH) for r in rows], parse_math=False)
    ax.tick_params(axis="y", length=0, pad=7)  # leaves room for an arrow head
    ax.grid(visible=True, axis="x")
    for place, cell in enumerate(cells):
        if cell is not None:
            _draw_cell(ax, place, cell, limits)
    _draw_paper(ax, cells, limits)
    baseline = _baseline(report, column)
    if baseline is not None and baseline.mean is not None:
        ax.axvline(baseline.mean, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)


def _draw_paper(ax: Axes, cells: list[Cell | None], limits: Interval) -> None:
    """The paper's numbers as diamonds; on an axis of their own, at the top, where they lie beyond the picture."""
    paper = [(cell.published.value, place) for place, cell in enumerate(cells) if cell and cell.published]
    if not paper:
        return
    values = [value for value, _ in paper]
    away = min(values) < limits[0] or max(values) > limits[1]
    axis = ax.twiny() if away else ax
    if away:
        axis.set_xlim(*_limits(values))
        axis.set_xlabel(PAPER_AXIS)
        axis.spines["top"].set_visible(True)
    axis.plot(values, [place for _, place in paper], color=SERIES[1], linewidth=0.8, linestyle="dotted", zorder=1)
    axis.scatter(values, [place for _, place in paper], s=34, marker="D", facecolors="none", edgecolors=SERIES[1], zorder=3)


def _baseline(report: Report, column: Line) -> Cell | None:
    """The baseline of a column, where all its cells share one."""
    found = {c.baseline for c in report.cells if c.column == column.key and c.delta}
    return next((c for c in report.cells if found == {c.id} and c.column == column.key), None)


def _draw_cell(ax: Axes, place: int, cell: Cell, limits: Interval) -> None:
    if cell.mean is None:
        ax.text(0.01, place, MARKS[cell.state], transform=ax.get_yaxis_transform(), va="center", parse_math=False)
        return
    colour = ACCENT if cell.best else INK
    if interval := mean_interval(list(cell.values.values())):
        _draw_interval(ax, place, interval, limits, colour)
    values, last = [v for _, v in sorted(cell.values.items())], max(1, cell.n - 1)
    heights = [place + 0.18 * (2 * i / last - 1) if cell.n > 1 else place for i in range(cell.n)]  # seeds in order, top to bottom
    ax.scatter(values, heights, s=22, facecolors="none", edgecolors=colour, linewidths=1.1, zorder=3)
    ax.plot([cell.mean] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2.4, zorder=4)


def _draw_interval(ax: Axes, place: int, interval: Interval, limits: Interval, colour: str) -> None:
    """An end beyond the picture is drawn as an arrow head, never as if it ended there."""
    ax.plot(interval, [place] * 2, color=colour, linewidth=1.2, zorder=2)
    beyond = interval[0] < limits[0], interval[1] > limits[1]
    for end, limit, arrow, cut in zip(interval, limits, "<>", beyond, strict=True):
        ax.plot([limit if cut else end], [place], marker=arrow if cut else "|", markersize=6, color=colour, clip_on=False, zorder=2)


def _limits(values: list[float]) -> Interval:
    """All points, and half as much again on each side: two seeds' intervals alone would flatten all else."""
    low, high = min(values), max(values)
    room = 0.5 * (high - low) or max(0.01 * abs(high), 1e-6)
    return low - room, high + room


def _level_caption(report: Report, columns: int) -> str:
    parts = ["Circles are seeds, bars their means."]
    if any(c.n > 1 for c in report.cells):
        parts += ["Lines are the 95 % t interval of each mean, with an arrow where it leaves the picture."]
        parts += ["Differences are judged by the paired intervals of the table."]
    parts += (
        ["Diamonds are the paper's numbers, on the axis at the top where there is one."] if any(c.published for c in report.cells) else []
    )
    parts += ["The best is coloured."] if any(c.best for c in report.cells) else []
    parts += [f"Dashed: {report.baseline}."] if any(_baseline(report, c) for c in report.columns[:MAX_PANELS]) else []
    parts += ["The axis need not start at zero" + (", and each panel has its own." if columns > 1 else ".")]
    parts += [f"The first {MAX_ROWS} of {len(report.rows)} rows."] if len(report.rows) > MAX_ROWS else []
    parts += [f"The first {MAX_PANELS} of {columns} columns."] if columns > MAX_PANELS else []
    return " ".join(parts)


def name_panel(ax: Axes, column: Line, report: Report) -> None:
    """A heading, where there is more than one column."""
    if len(report.columns) > 1:
        ax.set_title(short(", ".join(column.labels), TITLE_LENGTH), parse_math=False)


def _metrics(report: Report, column: Line) -> str:
    return " / ".join(dict.fromkeys(c.metric.name for c in report.cells if c.column == column.key))


def short(text: str, length: int) -> str:
    """`text`, cut to `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
