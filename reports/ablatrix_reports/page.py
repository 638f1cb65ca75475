"""The report as one HTML file that needs no network: table, pictures, failures, coverage, cost, command, environment."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jinja2
from markupsafe import Markup

from ablatrix_reports import figures
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
    outcome,
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
    return _page(report.title, [_sweep(report, samples, "", 1, links or {})], [])


def to_combined_html(title: str, parts: Sequence[tuple[Report, Sequence[Sample]]]) -> str:
    """One page of several sweeps, with a table of contents."""
    bodies = [_sweep(report, samples, f"s{i}-", 2) for i, (report, samples) in enumerate(parts, 1)]
    contents = [
        {"anchor": f"s{i}-sweep", "title": report.title, "progress": progress(report), "claims": summary(report)}
        for i, (report, _) in enumerate(parts, 1)
    ]
    return _page(title, bodies, contents)


def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("ablatrix_reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _page(title: str, bodies: Sequence[str], contents: Sequence[dict[str, str]]) -> str:
    templates = _templates()
    script, style = (templates.get_template(name).render() for name in ("page.js", "page.css"))
    return templates.get_template("page.html").render(
        title=title,
        bodies=[Markup(body) for body in bodies],
        contents=contents,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
    )


def _sweep(report: Report, samples: Sequence[Sample], prefix: str, depth: int, links: Mapping[str, str] = MappingProxyType({})) -> str:
    """One sweep's part of a page: `prefix` keeps its ids apart, `depth` is that of its heading."""
    pictures = {"levels": figures.levels(report), "curves": curves(report), "costs": costs(report)}
    if prefix:
        pictures = {name: picture and replace(picture, svg=prefixed(picture.svg, prefix)) for name, picture in pictures.items()}
    return (
        _templates()
        .get_template("sweep.html")
        .render(
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
        "problems": problems(report),
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
        "claim_summary": f"{outcome(report)} ({summary(report)})",
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
