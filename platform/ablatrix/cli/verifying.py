"""`ablatrix verify`: is the paper's table reproduced? Cells beside the paper, trend, claims; the exit code says it too."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from ablatrix.cli import output
from ablatrix.cli.stored import command_of
from ablatrix.errors import NotReproduced, TrialsMissing
from ablatrix.store import Store, SweepDirectory

if TYPE_CHECKING:
    from ablatrix_reports.report import Report

COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow", "not asked": "dim"}


def verify(store: Store, sweep: SweepDirectory, as_json: bool) -> None:
    """Print what is decided; NotReproduced where a claim fails, else TrialsMissing where cells are missing."""
    from ablatrix_reports import judgement_wording as wording
    from ablatrix_reports.write import read_report

    report = read_report(store, sweep.name)
    if as_json:
        output.print_json(_mapping(report))
    else:
        _print(report)
    failed = [wording.claim_text(claim) for claim in report.claims if claim.state == "fails"]
    if failed:
        raise NotReproduced(f"{len(failed)} of {len(report.claims)} claims {'fails' if len(failed) == 1 else 'fail'}: {'; '.join(failed)}.")
    if missing := wording.missing(report):
        what = "cell is" if len(missing) == 1 else "cells are"
        named = "; ".join(cell.id for cell in missing[:10])
        raise TrialsMissing(f"{len(missing)} {what} not complete: {named}. `{command_of(sweep)}` goes on.")


def _mapping(report: Report) -> dict[str, Any]:
    from ablatrix_reports import judgement_wording as wording

    cells = [
        {
            "id": cell.id, "row": cell.row, "column": cell.column, "mean": cell.mean, "n": cell.n, "planned": cell.planned,
            "published": cell.published and asdict(cell.published), "verdict": cell.verdict and asdict(cell.verdict),
        }
        for cell in report.cells
    ]  # fmt: skip
    return {
        "schema": 1, "sweep": report.sweep, "profile": report.profile, "outcome": wording.outcome(report), "cells": cells,
        "trend": [asdict(trend) for trend in report.trend], "claims": [asdict(claim) for claim in report.claims],
        "missing": [cell.id for cell in wording.missing(report)],
    }  # fmt: skip


def _print(report: Report) -> None:
    from ablatrix_reports import judgement_wording as wording
    from ablatrix_reports.wording import decimals

    console, digits = output.data(), decimals(report)
    console.print(Text(report.title, style="bold"))
    if any(cell.published for cell in report.cells):
        console.print(_cells(report))
        for text in wording.paper_caption(report):
            console.print(Text(text, style="dim"))
    for trend in report.trend:
        console.print(Text(wording.trend_sentence(report, trend)))
    for claim in report.claims:
        places = digits[report.metric.name]
        said = f"{wording.claim_text(claim)} [{claim.check}] {wording.claim_numbers(claim, places)}"
        console.print(Text(f"{claim.state}: ", style=COLOURS[claim.state]) + Text(said))
        for case in claim.cases:
            console.print(Text(f"    {case.state}: {wording.case_words(case, places)}", style="dim"))
    output.notes().print(Text(f"{report.name}: {wording.conclusion(report)}"))


def _cells(report: Report) -> Table:
    from ablatrix_reports import judgement_wording as wording
    from ablatrix_reports.wording import cell_texts, decimals, published_number

    table, texts, digits = Table(box=None, pad_edge=False, header_style="bold"), cell_texts(report), decimals(report)
    for name in ("cell", "ours", "paper", "verdict"):
        table.add_column(name)
    for cell in report.cells:
        if cell.published:
            weak = " ~" if cell.published.weak else ""
            said = wording.verdict_words(cell, digits[cell.metric.name])
            ours = texts[cell.row, cell.column].value
            table.add_row(Text(cell.id), Text(ours), Text(published_number(cell.published) + weak), Text(said))
    return table
