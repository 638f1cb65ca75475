"""`ablatrix report`: one sweep, several in one document, or two stores side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ablatrix.cli import output
from ablatrix.errors import InvalidInput
from ablatrix.records import write_atomically
from ablatrix.store import Store, SweepDirectory


def write(store: Store, sweeps: Sequence[SweepDirectory], directory: Path | None, as_json: bool) -> None:
    """Write the documents, then print the tables, or report.json."""
    from ablatrix_reports.terminal import render_terminal
    from ablatrix_reports.write import read_report, write_combined, write_report

    if len(sweeps) == 1 and directory is None:
        written = write_report(store, sweeps[0].name)
    else:
        written = write_combined(store, [sweep.name for sweep in sweeps], directory)
    if as_json:
        sys.stdout.write((written / "report.json").read_text())
        return
    for sweep in sweeps:
        output.data().print(render_terminal(read_report(store, sweep.name)))
    output.notes().print(f"Report: {written / 'report.html'} (and .json, .md, .tex, .csv)")


def compare(stores: Sequence[str], directory: Path | None, as_json: bool) -> None:
    """Print the sweeps that two stores share, cell by cell; with a directory, write comparison.{html,md,json} there too."""
    from ablatrix.records import encode
    from ablatrix_reports import store_comparison

    if len(stores) != 2:
        raise InvalidInput(f"--compare needs two stores, but {len(stores)} were given: ablatrix report --compare STORE1 STORE2.")
    for given in stores:
        if not Path(given).is_dir():
            raise InvalidInput(f"the store {given!r} is no directory.")
    first, second = (Store.at(given) for given in stores)
    found = store_comparison.compare_stores(first, second)
    if directory:
        from ablatrix_reports.comparison_page import to_html

        write_atomically(directory / "comparison.md", store_comparison.to_markdown(found, first, second))
        write_atomically(directory / "comparison.html", to_html(found, first, second))
        write_atomically(directory / "comparison.json", encode(store_comparison.as_mapping(found)))
    if as_json:
        output.print_json(store_comparison.as_mapping(found))
        return
    output.data().print(store_comparison.render_terminal(found))
    written = f"Comparison: {directory / 'comparison.html'} (and .md, .json)" if directory else "With --output DIR this is a page, too."
    output.notes().print(written)
