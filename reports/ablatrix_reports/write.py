"""The report's five files, written beside the plan."""

from __future__ import annotations

from pathlib import Path

from ablatrix.records import write_atomically
from ablatrix.store import Store
from ablatrix_reports.collect import collect
from ablatrix_reports.latex import to_latex
from ablatrix_reports.markdown import to_markdown
from ablatrix_reports.report import Report, to_json
from ablatrix_reports.tables import build
from ablatrix_reports.terminal import render_terminal
from ablatrix_reports.trial_rows import to_csv

__all__ = ["read_report", "render_terminal", "write_report"]


def read_report(store: Store, sweep: str, *, curves: bool = False) -> Report:
    """The report of `sweep` as the store stands now, without writing anything. Raises InvalidInput where there is no such sweep."""
    return build(collect(store, sweep, curves=curves))


def write_report(store: Store, sweep: str) -> Path:
    """Write `report.{json,md,html,tex,csv}` into the sweep's `report/` and return that directory.

    May be called at any time, by several processes: each file is replaced in one step, `report.json` last, and the same
    store gives the same bytes.
    """
    from ablatrix_reports.page import to_html  # brings matplotlib, which a table in the terminal can do without

    report, directory = read_report(store, sweep, curves=True), store.sweep(sweep).report
    views = {"csv": to_csv, "tex": to_latex, "md": to_markdown, "html": to_html, "json": to_json}
    for suffix, view in views.items():
        write_atomically(directory / f"report.{suffix}", view(report))
    return directory
