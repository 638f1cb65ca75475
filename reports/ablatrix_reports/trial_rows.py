"""The trials of a report as CSV: one row each, for pandas, R or a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from ablatrix_reports.collect import Trial
from ablatrix_reports.report import Cell, Report

_FACTS = ("epoch", "epochs", "seconds", "attempt", "threads", "host", "device", "cause", "message", "log")


def to_csv(*reports: Report) -> str:
    """RFC 4180 with line feeds. Axes are `axis.NAME`, all final metrics `metric.NAME`; an empty field is no value."""
    named_axes = [name for r in reports for name in (*(a.name for a in r.axes), *(axis for c in r.cells for axis in c.levels))]
    axes = list(dict.fromkeys(named_axes))
    metrics = sorted({name for r in reports for t in r.trials for name in t.metrics})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    named = [*(f"axis.{a}" for a in axes), "label", "seed", "trial", "state", "metric", "value", "last", "published", "verdict"]
    writer.writerow(["sweep", "cell", *named, *_FACTS, *(f"metric.{m}" for m in metrics)])
    for report in reports:
        cells = {cell.id: cell for cell in report.cells}
        writer.writerows(_row(report.name, cells[t.cell], t, axes, metrics) for t in report.trials)
    return buffer.getvalue()


def _row(sweep: str, cell: Cell, trial: Trial, axes: Iterable[str], metrics: Iterable[str]) -> list[object]:
    levels = [cell.levels.get(axis) for axis in axes]
    measured = [cell.label, trial.seed, trial.id, trial.state, cell.metric.name, trial.value, trial.last]
    measured += [cell.published and cell.published.value, cell.verdict and cell.verdict.kind]
    facts = [getattr(trial, fact) for fact in _FACTS]
    return [sweep, cell.id, *levels, *measured, *facts, *(trial.metrics.get(m) for m in metrics)]
