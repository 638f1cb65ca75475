"""The two pictures of a report: the metric by level, and the training curves."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ablatrix_reports.canvas import ACCENT, CSS, INK, MAX_SERIES, MUTED, SERIES, canvas, inline_svg
from ablatrix_reports.collect import TRAINING_LOSS, Curve
from ablatrix_reports.report import Cell, Line, Report
from ablatrix_reports.statistics import mean_interval
from ablatrix_reports.wording import MARKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ROWS, MAX_PANELS = 40, 6
ROW_HEIGHT, PANEL_MARGIN, CURVE_HEIGHT = 0.32, 0.75, 2.6  # inches
LABEL_LENGTH, TITLE_LENGTH = 28, 60  # characters
DASHES = ("solid", "dashed", "dotted")
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
            _name(ax, column, report)
            ax.set_xlabel(_short(_metrics(report, column), TITLE_LENGTH), parse_math=False)
        svg = inline_svg(figure, "levels", "The metric of every cell of the table, seed by seed")
    return Picture(svg, _level_caption(report, len(columns)))


def curves(report: Report) -> Picture | None:
    """The metric over epochs, seed by seed; the training loss where the metric was measured once. None without curves."""
    drawn = _drawn_curves(report)
    panels = [c for c in report.columns if c.key in drawn][:MAX_PANELS]
    if not panels:
        return None
    looks = _looks(report, {cell.row for c in panels for cell, _ in drawn[c.key][1]})
    with canvas(len(panels), CURVE_HEIGHT) as (figure, axes):
        for ax, column in zip(axes, panels, strict=True):
            name, found = drawn[column.key]
            _curve_panel(ax, name, found, looks)
            _name(ax, column, report)
        svg = inline_svg(figure, "curves", "Training curves, one line for each seed")
    names = " and ".join(dict.fromkeys(drawn[c.key][0] for c in panels))
    cut = f" The first {len(panels)} of {len(drawn)} columns." if len(drawn) > len(panels) else ""
    legend = tuple(replace(look, colour=CSS[look.colour]) for look in dict.fromkeys(looks.values()))
    return Picture(svg, f"{names} over epochs, one line for each seed.{cut}", legend)


def _level_panel(ax: Axes, report: Report, column: Line, cells: list[Cell | None]) -> None:
    rows = report.rows[:MAX_ROWS]
    limits = _limits([v for c in cells if c for v in c.values.values()])
    ax.set_xlim(*limits)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(range(len(rows)), labels=[_short(", ".join(r.labels), LABEL_LENGTH) for r in rows], parse_math=False)
    ax.tick_params(axis="y", length=0, pad=7)  # leaves room for an arrow head
    ax.grid(visible=True, axis="x")
    for place, cell in enumerate(cells):
        if cell is not None:
            _draw_cell(ax, place, cell, limits)
    baseline = _baseline(report, column)
    if baseline is not None and baseline.mean is not None:
        ax.axvline(baseline.mean, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)


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
    parts += ["The best is coloured."] if any(c.best for c in report.cells) else []
    parts += [f"Dashed: {report.baseline}."] if any(_baseline(report, c) for c in report.columns[:MAX_PANELS]) else []
    parts += ["The axis need not start at zero" + (", and each panel has its own." if columns > 1 else ".")]
    parts += [f"The first {MAX_ROWS} of {len(report.rows)} rows."] if len(report.rows) > MAX_ROWS else []
    parts += [f"The first {MAX_PANELS} of {columns} columns."] if columns > MAX_PANELS else []
    return " ".join(parts)


def _drawn_curves(report: Report) -> dict[str, tuple[str, list[tuple[Cell, Curve]]]]:
    """By column key: the name of the first metric that some trial reported twice, and every trial's curve of it."""
    cells = {c.id: c for c in report.cells}
    by_name: dict[str, dict[str, list[tuple[Cell, Curve]]]] = defaultdict(lambda: defaultdict(list))
    for trial in report.trials:
        cell = cells[trial.cell]
        for name in (cell.metric.name, TRAINING_LOSS):
            if name in trial.curves:
                by_name[cell.column][name].append((cell, trial.curves[name]))
    firsts = {key: next((n for n, c in found.items() if any(len(points) > 1 for _, points in c)), None) for key, found in by_name.items()}
    return {key: (name, by_name[key][name]) for key, name in firsts.items() if name}


def _curve_panel(ax: Axes, name: str, found: list[tuple[Cell, Curve]], looks: dict[str, Key]) -> None:
    from matplotlib.ticker import MaxNLocator

    for cell, points in found:
        look = looks[cell.row]
        width, order = (0.8, 2) if look.colour == MUTED else (1.4, 3)
        ax.plot(*zip(*points, strict=True), color=look.colour, linestyle=look.dash, linewidth=width, zorder=order)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel(_short(name, LABEL_LENGTH), parse_math=False)
    ax.grid(visible=True)


def _looks(report: Report, drawn: set[str]) -> dict[str, Key]:
    """The look of each drawn row. More rows than colours: the best and the baseline stand out of the rest."""
    rows = [r for r in report.rows if r.key in drawn]
    baselines = {c.baseline for c in report.cells}
    special = {c.row for c in report.cells if c.best or c.id in baselines}
    named = rows if len(rows) <= MAX_SERIES else [r for r in rows if r.key in special][:MAX_SERIES]
    looks = {r.key: Key(SERIES[i], DASHES[i % len(DASHES)], ", ".join(r.labels)) for i, r in enumerate(named)}
    return looks | {r.key: Key(MUTED, "solid", "the others") for r in rows if r.key not in looks}


def _name(ax: Axes, column: Line, report: Report) -> None:
    if len(report.columns) > 1:
        ax.set_title(_short(", ".join(column.labels), TITLE_LENGTH), parse_math=False)


def _metrics(report: Report, column: Line) -> str:
    return " / ".join(dict.fromkeys(c.metric.name for c in report.cells if c.column == column.key))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
