"""The report's five files, written beside the plan."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from ablatrix.records import encode, write_atomically
from ablatrix.store import Store
from ablatrix.tracking import known_links
from ablatrix_reports.collect import collect
from ablatrix_reports.latex import to_latex
from ablatrix_reports.markdown import to_markdown
from ablatrix_reports.report import SCHEMA, Report, to_json
from ablatrix_reports.samples import read_samples
from ablatrix_reports.tables import build
from ablatrix_reports.terminal import render_terminal
from ablatrix_reports.trial_rows import to_csv

__all__ = ["read_report", "render_terminal", "write_combined", "write_report"]

COMBINED = "combined"
MAX_NAME = 150  # characters


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
    views = {
        "csv": to_csv,
        "tex": to_latex,
        "md": to_markdown,
        "html": partial(to_html, samples=read_samples(store, report), links=known_links(store, sweep)),
        "json": to_json,
    }
    for suffix, view in views.items():
        write_atomically(directory / f"report.{suffix}", view(report))
    return directory


def write_combined(store: Store, sweeps: Sequence[str], directory: Path | None = None) -> Path:
    """One document of several sweeps, into `directory` or else `combined/<sweeps>/` of the store; returns that directory."""
    from ablatrix_reports.page import to_combined_html

    reports = [read_report(store, sweep, curves=True) for sweep in sweeps]
    directory = directory or store.root / COMBINED / _joined([report.name for report in reports])
    parts = [(report, read_samples(store, report), known_links(store, sweep)) for report, sweep in zip(reports, sweeps, strict=True)]
    page = to_combined_html(f"{len(reports)} sweeps", parts)
    texts = {
        "csv": to_csv(*reports),
        "tex": "\n".join(to_latex(report) for report in reports),
        "md": "\n".join(to_markdown(report) for report in reports),
        "html": page,
        "json": encode({"schema": SCHEMA, "sweeps": [asdict(report) for report in reports]}),
    }
    for suffix, text in texts.items():
        write_atomically(directory / f"report.{suffix}", text)
    return directory


def _joined(names: Sequence[str]) -> str:
    """A directory's name, kept short enough for every file system."""
    whole = "+".join(names)
    return whole if len(whole) <= MAX_NAME else f"{whole[:MAX_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
