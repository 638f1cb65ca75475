"""Training curves: the mean over seeds, with the band that all seeds lie in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ablatrix_reports.canvas import CSS, MAX_SERIES, MUTED, SERIES, canvas, inline_svg
from ablatrix_reports.collect import TRAINING_LOSS, Curve
from ablatrix_reports.figures import LABEL_LENGTH, MAX_PANELS, Key, Picture, name_panel, short
from ablatrix_reports.report import Cell, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVE_HEIGHT = 2.6  # inches
DASHES = ("solid", "dashed", "dotted")


def curves(report: Report) -> Picture | None:
    """The metric over epochs; the training loss where the metric was measured once. None without curves."""
    drawn = _drawn_curves(report)
    panels = [c for c in report.columns if c.key in drawn][:MAX_PANELS]
    if not panels:
        return None
    looks = _looks(report, {cell.row for c in panels for cell, _ in drawn[c.key][1]})
    with canvas(len(panels), CURVE_HEIGHT) as (figure, axes):
        for ax, column in zip(axes, panels, strict=True):
            name, found = drawn[column.key]
            _curve_panel(ax, name, found, looks)
            name_panel(ax, column, report)
        svg = inline_svg(figure, "curves", "Training curves: means over seeds, and the band of all seeds")
    names = " and ".join(dict.fromkeys(drawn[c.key][0] for c in panels))
    cut = f" The first {len(panels)} of {len(drawn)} columns." if len(drawn) > len(panels) else ""
    legend = tuple(replace(look, colour=CSS[look.colour]) for look in dict.fromkeys(looks.values()))
    bands = " Lines are means over seeds, bands reach from the lowest seed to the highest." if len(report.seeds) > 1 else ""
    return Picture(svg, f"{names} over epochs.{bands}{cut}", legend)


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

    for row, points in _by_row(found).items():
        look, epochs = looks[row], sorted(points)
        width, order = (0.8, 2) if look.colour == MUTED else (1.4, 3)
        means = [sum(points[epoch]) / len(points[epoch]) for epoch in epochs]
        dot = "o" if len(epochs) == 1 else None  # of one point, as of what was never trained, there is no line
        ax.plot(epochs, means, color=look.colour, linestyle=look.dash, linewidth=width, marker=dot, markersize=4, zorder=order)
        if look.colour != MUTED and any(len(values) > 1 for values in points.values()):
            low, high = [min(points[epoch]) for epoch in epochs], [max(points[epoch]) for epoch in epochs]
            if dot:
                ax.vlines(epochs, low, high, color=look.colour, alpha=0.18, linewidth=8, zorder=1)
            else:
                ax.fill_between(epochs, low, high, color=look.colour, alpha=0.18, linewidth=0, zorder=1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel(short(name, LABEL_LENGTH), parse_math=False)
    ax.grid(visible=True)


def _by_row(found: Sequence[tuple[Cell, Curve]]) -> dict[str, dict[int, list[float]]]:
    """By row and epoch, the values of all seeds; an epoch that some seeds have not reached yet counts for those that have."""
    rows: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell, points in found:
        for epoch, value in points:
            rows[cell.row][epoch].append(value)
    return rows


def _looks(report: Report, drawn: set[str]) -> dict[str, Key]:
    """The look of each drawn row. More rows than colours: the best and the baseline stand out of the rest."""
    rows = [r for r in report.rows if r.key in drawn]
    baselines = {c.baseline for c in report.cells}
    special = {c.row for c in report.cells if c.best or c.id in baselines}
    named = rows if len(rows) <= MAX_SERIES else [r for r in rows if r.key in special][:MAX_SERIES]
    looks = {r.key: Key(SERIES[i], DASHES[i % len(DASHES)], ", ".join(r.labels)) for i, r in enumerate(named)}
    return looks | {r.key: Key(MUTED, "solid", "the others") for r in rows if r.key not in looks}
