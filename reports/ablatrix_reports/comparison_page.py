"""Two stores side by side as one HTML file: for each sweep the table of its cells, then their differences in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from ablatrix.store import Store
from ablatrix_reports import frame
from ablatrix_reports.canvas import ACCENT, INK, canvas, inline_svg, prefixed
from ablatrix_reports.figures import LABEL_LENGTH, MAX_PANELS, MAX_ROWS, PANEL_MARGIN, ROW_HEIGHT, Picture, short
from ablatrix_reports.store_comparison import ComparedCell, ComparedSweep, caption, lacking, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LISTED = 1000  # cells of a sweep in the page; comparison.json has all of them


def to_html(sweeps: Sequence[ComparedSweep], first: Store, second: Store) -> str:
    """The whole page. Everything that comes from a sweep, a trial or a path is escaped."""
    title = f"{first.root} beside {second.root}"
    return frame.page(title, [_page(sweeps, first, second)])


def differences(sweep: ComparedSweep) -> Picture | None:
    """The second store less the first, cell by cell, with intervals; a panel for each metric. None where no seed is common."""
    known = [cell for cell in sweep.cells if cell.difference is not None]
    metrics = list(dict.fromkeys(cell.metric for cell in known))[:MAX_PANELS]
    panels = [[cell for cell in known if cell.metric == metric][:MAX_ROWS] for metric in metrics]
    if not panels:
        return None
    with canvas(len(panels), max(map(len, panels)) * ROW_HEIGHT + PANEL_MARGIN) as (figure, axes):
        for ax, metric, cells in zip(axes, metrics, panels, strict=True):
            _panel(ax, cells)
            ax.set_xlabel(short(f"{metric}, second less first", 2 * LABEL_LENGTH), parse_math=False)
        svg = inline_svg(figure, "differences", "The second store less the first, cell by cell")
    shown = sum(map(len, panels))
    cut = f" {shown} of {len(known)} cells." if shown < len(known) else ""
    intervals = "Circles are the mean differences over common seeds, lines their paired 95 % t intervals, not corrected."
    return Picture(svg, f"{intervals} Coloured: told apart after correction (Holm).{cut}")


def _panel(ax: Axes, cells: Sequence[ComparedCell]) -> None:
    ax.set_ylim(len(cells) - 0.5, -0.5)
    ax.set_yticks(range(len(cells)), labels=[short(cell.name, LABEL_LENGTH) for cell in cells], parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=True, axis="x")
    ax.axvline(0.0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    for place, cell in enumerate(cells):
        found, colour = cell.difference, ACCENT if cell.differs else INK
        if found is not None:
            if found.low is not None and found.high is not None:
                ax.plot([found.low, found.high], [place] * 2, color=colour, linewidth=1.2, marker="|", markersize=6, zorder=2)
            ax.scatter([found.mean], [place], s=26, facecolors=colour, edgecolors=colour, zorder=3)
    ax.margins(x=0.08)


def _page(sweeps: Sequence[ComparedSweep], first: Store, second: Store) -> Markup:
    return frame.body(
        "comparison.html",
        first=first.root,
        second=second.root,
        sweeps=[_sweep(sweep, f"s{i}-") for i, sweep in enumerate(sweeps, 1)],
    )


def _sweep(sweep: ComparedSweep, prefix: str) -> dict[str, object]:
    picture = differences(sweep)
    return {
        "prefix": prefix,
        "sweep": sweep,
        "summary": summary(sweep),
        "caption": caption(sweep),
        "lacking": lacking(sweep),
        "several": len({cell.metric for cell in sweep.cells}) > 1,
        "cells": sweep.cells[:MAX_LISTED],
        "rest": max(0, len(sweep.cells) - MAX_LISTED),
        "picture": picture and Picture(prefixed(picture.svg, prefix), picture.caption),
    }
