r"""The report's table as LaTeX: a `table` float with booktabs rules, ready for \input."""

from __future__ import annotations

import re

from ablatrix_reports.captions import caption, notes
from ablatrix_reports.judgement_wording import claim_numbers, claim_text, paper_notes, protocol_notes, trend_sentence
from ablatrix_reports.report import Line, Report
from ablatrix_reports.wording import JUDGED, CellText, cell_texts, decimals, headings, row_head

_GREEK = {
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "epsilon",
    "λ": "lambda",
    "μ": "mu",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
}
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "✕": r"\ensuremath{\times}",
    "†": r"\ensuremath{\dagger}",
    "−": r"\ensuremath{-}",
    "≤": r"\ensuremath{\le}",
    "≥": r"\ensuremath{\ge}",
    "≠": r"\ensuremath{\neq}",
    "→": r"\ensuremath{\to}",
    "Δ": r"\ensuremath{\Delta}",
    "∞": r"\ensuremath{\infty}",
    "“": "``",
    "”": "''",
    "’": "'",
} | {letter: rf"\ensuremath{{\{name}}}" for letter, name in _GREEK.items()}
_CHARACTER = re.compile("(-(?=-))|.")  # two hyphens in a row would be set as a dash


def to_latex(report: Report) -> str:
    """A complete float. Other characters than ASCII and those known here need LuaLaTeX or XeLaTeX, and the file then says so."""
    table = [*_float_head(report), *_head(report), *_body(report), r"    \bottomrule", r"  \end{tabular}"]
    body = "\n".join([*table, *_judgement(report), r"\end{table}"])
    needs = "\n% Compile with LuaLaTeX or XeLaTeX and a font that has these labels' characters." if not body.isascii() else ""
    return f"% Needs \\usepackage{{booktabs}}. Written by Ablatrix from sweep {_comment(report.name)}.{needs}\n{body}\n"


def escape(text: str) -> str:
    """Text that LaTeX sets as it reads."""
    return _CHARACTER.sub(lambda found: "-{}" if found[1] else _ESCAPES.get(found[0], found[0]), " ".join(text.split()))


def _comment(text: str) -> str:
    return " ".join(text.split()).encode("ascii", "replace").decode()


def _float_head(report: Report) -> list[str]:
    sentences = [f"{report.title.rstrip('.')}.", *caption(report), *(f"{cells}: {text}." for cells, text in notes(report))]
    columns = "l" * len(row_head(report)) + "r" * len(report.columns)
    label = "".join(c if c.isascii() and c.isalnum() else "-" for c in report.name)
    return [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape(' '.join(sentences))}}}",
        rf"  \label{{tab:{label}}}",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
    ]


def _head(report: Report) -> list[str]:
    names, levels = row_head(report), headings(report)
    lines = []
    for depth, level in enumerate(levels):
        last = depth == len(levels) - 1
        left = [escape(name) if last else "" for name in names]
        lines.append(_line([*left, *(rf"\multicolumn{{{h.span}}}{{{'r' if h.span == 1 else 'c'}}}{{{escape(h.label)}}}" for h in level)]))
        lines += [] if last else [_rules(len(names), [h.span for h in level])]
    return [*lines, r"    \midrule"]


def _rules(offset: int, spans: list[int]) -> str:
    rules, start = [], offset + 1
    for span in spans:
        rules += [rf"\cmidrule(lr){{{start}-{start + span - 1}}}"]
        start += span
    return "    " + " ".join(rules)


def _body(report: Report) -> list[str]:
    texts = cell_texts(report)
    rows = [_row(row, [texts.get((row.key, c.key)) for c in report.columns]) for row in report.rows]
    gap = [r"    \addlinespace"] if any(len(row) > 1 for row in rows) else []  # else a difference seems to belong to the row below
    return [line for i, row in enumerate(rows) for line in (*(gap if i else []), *row)]


def _row(row: Line, cells: list[CellText | None]) -> list[str]:
    """The values; below them, smaller, the differences to the baseline where there are any."""
    lines = [_line([*map(escape, row.labels), *(_cell(c) if c else "" for c in cells)])]
    if any(c and c.delta for c in cells):
        lines.append(_line([*[""] * len(row.labels), *(rf"{{\scriptsize {escape(c.delta)}}}" if c and c.delta else "" for c in cells)]))
    if any(c and c.paper for c in cells):
        lines.append(_line([*[""] * len(row.labels), *(_paper(c) if c and c.paper else "" for c in cells)]))
    return lines


def _paper(text: CellText) -> str:
    return rf"{{\scriptsize paper {escape(text.paper)}{f' ({text.verdict})' if text.verdict in JUDGED else ''}}}"


def _judgement(report: Report) -> list[str]:
    """Below the table, small: the trend, the claims and what keeps the paper's numbers apart."""
    digits = decimals(report)[report.metric.name]
    lines = [trend_sentence(report, t) for t in report.trend]
    lines += [f"Claim {c.state}: {claim_text(c)}. {claim_numbers(c, digits)}".rstrip(". ") + "." for c in report.claims]
    lines += [f"{text}." for text in (*protocol_notes(report), *paper_notes(report))]
    if not lines:
        return []
    return [
        r"  \par\medskip",
        r"  \begin{minipage}{\linewidth}\footnotesize",
        *(rf"    {escape(s)}\par" for s in lines),
        r"  \end{minipage}",
    ]


def _cell(text: CellText) -> str:
    value = escape(text.value)
    value = rf"\textbf{{\boldmath {value}}}" if text.best else rf"\underline{{{value}}}" if text.tied else value
    return rf"{value} {{\scriptsize ({escape(text.remark)})}}" if text.remark else value


def _line(cells: list[str]) -> str:
    text = " & ".join(cells)
    guard = "{}" if text.startswith(("[", "*")) else ""  # else the line break before would take it for its own argument
    return f"    {guard}{text} \\\\"
