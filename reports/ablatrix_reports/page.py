"""The report as one HTML file that needs no network: table, pictures, failures, coverage, cost, command, environment."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import jinja2

from ablatrix_reports import figures
from ablatrix_reports.captions import caption, environment, notes, problems, progress, source
from ablatrix_reports.collect import Trial
from ablatrix_reports.report import Cell, Report
from ablatrix_reports.wording import cell_texts, duration, headings, row_head

MAX_LISTED = 500  # trials in the page; report.csv has all of them
_ORDER = ("finished", "running", "failed", "stopped", "waiting")
_WORDS = {"finished": "finished", "running": "running", "failed": "failed", "stopped": "stopped early", "waiting": "not run"}


def to_html(report: Report) -> str:
    """The whole page. Everything that comes from a sweep or a trial is escaped; scripts other than the page's own cannot run."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("ablatrix_reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    script, style = (templates.get_template(name).render() for name in ("page.js", "page.css"))
    return templates.get_template("page.html").render(
        report=report,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
        **_table(report),
        **_words(report),
        levels=figures.levels(report),
        curves=figures.curves(report),
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
        "problems": problems(report),
        "cost": duration(report.cost.finished_seconds),
        "unfinished_cost": duration(report.cost.unfinished_seconds) if report.cost.unfinished_seconds else None,
        "source": source(report),
        "environment": environment(report),
    }


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
