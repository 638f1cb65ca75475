"""The report as one HTML file that needs no network: table, pictures, failures, coverage, cost, command, environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from ablatrix_reports import figures, frame
from ablatrix_reports.canvas import prefixed
from ablatrix_reports.captions import caption, commands, environment, notes, problems, progress, source
from ablatrix_reports.collect import Trial
from ablatrix_reports.cost_figure import costs
from ablatrix_reports.curve_figure import curves
from ablatrix_reports.judgement import ClaimVerdict
from ablatrix_reports.judgement_wording import (
    MARKS,
    case_words,
    claim_numbers,
    claim_text,
    comparisons,
    conclusion,
    paper_notes,
    protocol_notes,
    summary,
    trend_sentence,
    verdict_words,
)
from ablatrix_reports.report import Cell, Report
from ablatrix_reports.samples import Sample
from ablatrix_reports.wording import JUDGED, cell_texts, decimals, duration, headings, row_head

MAX_LISTED = 500  # trials in the page; report.csv has all of them
_ORDER = ("finished", "running", "failed", "stopped", "waiting")
LINKS = {"runs": "table", "charts": "charts", "compare": "comparison", "curves": "curves"}  # into MLflow
_WORDS = {"finished": "finished", "running": "running", "failed": "failed", "stopped": "stopped early", "waiting": "not run"}


def to_html(report: Report, samples: Sequence[Sample] = (), links: Mapping[str, str] | None = None) -> str:
    """The whole page. Everything that comes from a sweep or a trial is escaped; scripts other than the page's own cannot run.

    links: into MLflow, by name (see `ablatrix.comparison.links`), where the sweep is there.
    """
    return frame.page(report.title, [_sweep(report, samples, links or {}, "", 1)])


def to_combined_html(title: str, parts: Sequence[tuple[Report, Sequence[Sample], Mapping[str, str]]]) -> str:
    """One page of several sweeps, each with its pictures and its links into MLflow, and a table of contents."""
    bodies = [_sweep(report, samples, links, f"s{i}-", 2) for i, (report, samples, links) in enumerate(parts, 1)]
    contents = [
        {"anchor": f"s{i}-sweep", "title": report.title, "progress": progress(report), "claims": summary(report)}
        for i, (report, _, _) in enumerate(parts, 1)
    ]
    return frame.page(title, bodies, contents)


def _sweep(report: Report, samples: Sequence[Sample], links: Mapping[str, str], prefix: str, depth: int) -> Markup:
    """One sweep's part of a page: `prefix` keeps its ids apart, `depth` is that of its heading."""
    pictures = {"levels": figures.levels(report), "curves": curves(report), "costs": costs(report)}
    if prefix:
        pictures = {name: picture and replace(picture, svg=prefixed(picture.svg, prefix)) for name, picture in pictures.items()}
    return frame.body(
        "sweep.html",
        report=report,
        prefix=prefix,
        depth=depth,
        **_table(report),
        **_words(report),
        **_judged(report),
        **pictures,
        samples=samples,
        links=[(word, links[name]) for name, word in LINKS.items() if name in links],
        trials=[_trial(t) for t in report.trials[:MAX_LISTED]],
    )


def _table(report: Report) -> dict[str, Any]:
    texts, cells = cell_texts(report), report.at()
    places = [(row, [(row.key, column.key) for column in report.columns]) for row in report.rows]
    rows = [(row, [(cells.get(place), texts.get(place)) for place in line]) for row, line in places]
    return {"row_head": row_head(report), "headings": headings(report), "rows": rows, "spread": _spread}


def _words(report: Report) -> dict[str, Any]:
    return {
        "caption": caption(report),
        "notes": notes(report),
        "progress": progress(report),
        "coverage": _coverage(report),
        "problems": problems(report)[:MAX_LISTED],
        "more_problems": max(0, len(problems(report)) - MAX_LISTED),
        "cost": duration(report.cost.finished_seconds),
        "unfinished_cost": duration(report.cost.unfinished_seconds) if report.cost.unfinished_seconds else None,
        "source": source(report),
        "environment": environment(report),
        "commands": commands(report),
    }


def _judged(report: Report) -> dict[str, Any]:
    digits = decimals(report)
    claims = [_claim(claim, digits[report.metric.name]) for claim in report.claims]
    return {
        "claims": claims,
        "claim_summary": conclusion(report),
        "trend": [trend_sentence(report, t) for t in report.trend],
        "protocol_notes": protocol_notes(report),
        "paper_notes": paper_notes(report),
        "comparisons": comparisons(report),
        "verdict": lambda cell: verdict_words(cell, digits[cell.metric.name]),
        "judged": JUDGED,
    }


def _claim(claim: ClaimVerdict, digits: int) -> dict[str, Any]:
    cases = [(case.state, case_words(case, digits)) for case in claim.cases]
    words = {"state": claim.state, "mark": MARKS[claim.state], "numbers": claim_numbers(claim, digits)}
    return words | {"text": claim_text(claim), "check": claim.check, "cases": cases}


def _coverage(report: Report) -> list[dict[str, Any]]:
    found = report.coverage
    counts = {state: getattr(found, state) for state in _ORDER}
    return [{"state": s, "word": _WORDS[s], "count": n, "share": 100 * n / max(1, found.planned)} for s, n in counts.items() if n]


def _spread(cell: Cell) -> str:
    """The seeds' values for a cell's tooltip."""
    return "; ".join(f"seed {seed}: {value:.6g}" for seed, value in sorted(cell.values.items()))


def _trial(trial: Trial) -> dict[str, Any]:
    value = trial.value if trial.value is not None else trial.last
    return {
        "trial": trial,
        "word": _WORDS[trial.state],
        "value": "" if value is None else f"{value:.6g}",
        "epochs": "" if trial.epoch is None else f"{trial.epoch} of {trial.epochs}",
        "cost": "" if trial.seconds is None else duration(trial.seconds),
    }
