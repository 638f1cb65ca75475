"""What each cell costs: the mean time of its trials."""

from __future__ import annotations

from ablatrix_reports.canvas import INK, SERIES, canvas, inline_svg
from ablatrix_reports.figures import LABEL_LENGTH, MAX_ROWS, PANEL_MARGIN, ROW_HEIGHT, Picture, short
from ablatrix_reports.report import Report
from ablatrix_reports.wording import duration

UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def costs(report: Report) -> Picture | None:
    """Bars of the mean seconds of a cell's finished trials, in the order of the table. None where nothing finished."""
    seconds: dict[str, list[float]] = {}
    for trial in report.trials:
        if trial.state == "finished" and trial.seconds is not None:
            seconds.setdefault(trial.cell, []).append(trial.seconds)
    means = {cell: sum(times) / len(times) for cell, times in seconds.items()}
    shown = [cell for cell in report.cells if cell.id in means][:MAX_ROWS]
    if not shown:
        return None
    lines = {line.key: ", ".join(line.labels) for line in (*report.rows, *report.columns)}
    several = len(report.columns) > 1
    names = {cell.id: lines[cell.row] + (f", {lines[cell.column]}" if several else "") for cell in shown}
    size, unit = next((size, unit) for size, unit in UNITS if max(means.values()) >= size or size == 1.0)
    with canvas(1, len(shown) * ROW_HEIGHT + PANEL_MARGIN) as (figure, (ax,)):
        ax.barh(range(len(shown)), [means[cell.id] / size for cell in shown], height=0.6, color=SERIES[0], alpha=0.75)
        for place, cell in enumerate(shown):
            ax.text(means[cell.id] / size, place, f" {duration(means[cell.id])}", va="center", color=INK, fontsize=8)
        ax.set_yticks(range(len(shown)), labels=[short(names[cell.id], LABEL_LENGTH) for cell in shown], parse_math=False)
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.margins(x=0.15)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel(f"{unit} a trial")
        svg = inline_svg(figure, "costs", "Mean time of a trial, cell by cell")
    cut = f" The first {MAX_ROWS} of {len(means)} cells." if len(means) > MAX_ROWS else ""
    return Picture(svg, f"Mean time of a finished trial, training and evaluation of all its attempts.{cut}")
