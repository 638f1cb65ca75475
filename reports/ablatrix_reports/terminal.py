"""The report in a terminal: the table, its caption, and what failed."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ablatrix_reports.captions import caption, notes, problems, progress, reason
from ablatrix_reports.judgement_wording import claim_numbers, claim_text, paper_notes, protocol_notes, trend_sentence
from ablatrix_reports.report import Report
from ablatrix_reports.wording import JUDGED, CellText, cell_texts, decimals, row_head

MAX_PROBLEMS = 10
STYLES = {"holds": "green", "fails": "red", "undecided": "yellow", "not asked": "dim"}


def render_terminal(report: Report) -> RenderableType:
    """A rich renderable. Texts of the sweep file are never read as rich markup; colours follow NO_COLOR."""
    parts: list[RenderableType] = [Text(report.title, style="bold")]
    parts += [Text(report.question, style="italic")] if report.question else []
    parts += [Text(progress(report) + "."), _table(report), *(Text(s, style="dim") for s in caption(report))]
    parts += [Text(trend_sentence(report, trend)) for trend in report.trend]
    digits = decimals(report)[report.metric.name]
    parts += [Text(f"Claim {c.state}: {claim_text(c)}. {claim_numbers(c, digits)}", style=STYLES[c.state]) for c in report.claims]
    parts += [Text(f"{cells}: {text}", style="dim") for cells, text in notes(report)]
    parts += [Text(text, style="dim") for text in (*protocol_notes(report), *paper_notes(report))]
    return Group(*parts, *_problems(report))


def _table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in row_head(report):
        table.add_column(Text(name), overflow="fold")
    for column in report.columns:
        table.add_column(Text(", ".join(column.labels)), justify="right", overflow="fold")
    texts = cell_texts(report)
    for row in report.rows:
        cells = [texts.get((row.key, c.key)) for c in report.columns]
        table.add_row(*map(Text, row.labels), *(_cell(c) if c else Text() for c in cells))
    return table


def _cell(text: CellText) -> Text:
    cell = Text(text.value, style="bold" if text.best else "underline" if text.tied else "")
    parts = [cell, Text(f" ({text.remark})", style="not bold not underline dim")] if text.remark else [cell]
    parts += [Text(f"\nΔ {text.delta}", style="dim")] if text.delta else []
    verdict = f" {text.verdict}" if text.verdict in JUDGED else ""
    parts += [Text(f"\npaper {text.paper}{verdict}", style="not bold not underline dim")] if text.paper else []
    return Text().join(parts)


def _problems(report: Report) -> list[RenderableType]:
    found = problems(report)
    shown: list[RenderableType] = []
    for trial in found[:MAX_PROBLEMS]:
        where = f"  {trial.log}" if trial.log else ""
        shown.append(Text.assemble((f"{trial.cell}, seed {trial.seed}: ", "red"), f"{reason(trial)}{where}"))
    rest = len(found) - len(shown)
    return [*shown, Text(f"and {rest} more, in the report's pages")] if rest > 0 else shown
