"""The report as Markdown: the table with its caption, readable as text and on a forge."""

from __future__ import annotations

import re

from ablatrix_reports.captions import caption, commands, environment, notes, problems, progress, reason, source
from ablatrix_reports.collect import Trial
from ablatrix_reports.judgement_wording import (
    case_words,
    claim_numbers,
    claim_text,
    comparisons,
    paper_notes,
    protocol_notes,
    trend_sentence,
)
from ablatrix_reports.report import Line, Report
from ablatrix_reports.wording import JUDGED, CellText, cell_texts, decimals, duration, row_head

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")


def to_markdown(report: Report) -> str:
    """The whole page. Labels are escaped, so that no text of a sweep file becomes markup."""
    parts = [f"# {escape(report.title)}"]
    parts += [f"*{escape(report.question)}*"] if report.question else []
    parts += [escape(progress(report)) + ".", _table(report), "  \n".join(escape(s) for s in caption(report))]
    parts += [
        _list(
            "Beside the paper",
            [escape(s) for s in (*(trend_sentence(report, t) for t in report.trend), *protocol_notes(report), *paper_notes(report))],
        )
    ]
    parts += [_list("Claims", _claims(report))]
    parts += [_list("Notes", [f"{escape(cells)}: {escape(text)}" for cells, text in notes(report)])]
    parts += [_list("Comparisons", [escape(f"{cell} to {other}: {words}") for cell, other, words in comparisons(report)])]
    parts += [_list("Failures and warnings", [_problem(t) for t in problems(report)])]
    parts += [_list("Source", [*_pairs(source(report)), *_pairs(_cost(report)), *_pairs(environment(report))])]
    parts += [_command("\n".join(commands(report)))]
    return "\n\n".join(p for p in parts if p) + "\n"


def escape(text: str) -> str:
    """Text that reads as itself in Markdown, inside and outside of a table."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _table(report: Report) -> str:
    texts, with_delta = cell_texts(report), {c.column for c in report.cells if c.delta}
    with_paper = {c.column for c in report.cells if c.published}
    head = [escape(name) for name in row_head(report)]
    rule = ["---"] * len(head)
    for column in report.columns:
        head += [escape(", ".join(column.labels)), *([f"Δ to {escape(report.baseline or '')}"] if column.key in with_delta else [])]
        head += ["paper"] if column.key in with_paper else []
        rule += ["---:"] * (1 + (column.key in with_delta) + (column.key in with_paper))
    body = [[*map(escape, row.labels), *_cells(row, report, texts, with_delta, with_paper)] for row in report.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def _cells(row: Line, report: Report, texts: dict[tuple[str, str], CellText], with_delta: set[str], with_paper: set[str]) -> list[str]:
    cells = []
    for column in report.columns:
        text = texts.get((row.key, column.key))
        cells.append(_cell(text) if text else "")
        cells += [text.delta if text else ""] if column.key in with_delta else []
        cells += [_paper(text) if text else ""] if column.key in with_paper else []
    return cells


def _paper(text: CellText) -> str:
    return escape(text.paper) + (f" ({text.verdict})" if text.verdict in JUDGED else "")


def _claims(report: Report) -> list[str]:
    digits = decimals(report)[report.metric.name]
    lines = []
    for claim in report.claims:
        lines.append(f"**{claim.state}**: {escape(claim_text(claim))} {_code(claim.check)}. {escape(claim_numbers(claim, digits))}")
        lines += [f"  - {case.state}: {escape(case_words(case, digits))}" for case in claim.cases]
    return lines


def _cell(text: CellText) -> str:
    value = f"**{text.value}**" if text.best else f"<ins>{text.value}</ins>" if text.tied else text.value
    return f"{value} ({text.remark})" if text.remark else value


def _list(title: str, lines: list[str]) -> str:
    return "\n".join([f"## {title}", "", *(line if line.startswith("  - ") else f"- {line}" for line in lines)]) if lines else ""


def _pairs(pairs: list[tuple[str, str]]) -> list[str]:
    return [f"{escape(name)}: {escape(value)}" for name, value in pairs]


def _cost(report: Report) -> list[tuple[str, str]]:
    spent = [("Cost", f"{duration(report.cost.finished_seconds)} of finished trials")]
    rest = report.cost.unfinished_seconds
    return [*spent, ("Spent on unfinished trials", duration(rest))] if rest else spent


def _problem(trial: Trial) -> str:
    log = f". Log: {trial.log}" if trial.log else ""
    return escape(f"{trial.cell}, seed {trial.seed} (trial {trial.id}): {reason(trial)}{log}")


def _code(text: str) -> str:
    """A code span, fenced by more backticks in a row than the text has."""
    fence = _fence(text, 1)
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def _command(command: str) -> str:
    fence = _fence(command, 3)
    return f"{fence}\n{command}\n{fence}"


def _fence(text: str, least: int) -> str:
    return "`" * max(least, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
