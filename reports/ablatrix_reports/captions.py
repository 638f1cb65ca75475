"""What stands around the table, in sentences: caption, notes, coverage, source and environment."""

from __future__ import annotations

from collections.abc import Iterable

from ablatrix_reports.collect import Trial
from ablatrix_reports.judgement_wording import paper_caption, statistics_caption
from ablatrix_reports.report import Report
from ablatrix_reports.wording import MARKS, MEANINGS, cell_name, measure


def caption(report: Report) -> list[str]:
    """What a reader must know to read the table, one sentence each."""
    own = [_measure(report), *_emphasis(report), *_ties(report), *_baseline(report), *statistics_caption(report)]
    return [s for s in (*own, *paper_caption(report), *_legend(report)) if s]


def notes(report: Report) -> list[tuple[str, str]]:
    """(cells, text) of every note and every reason for an exclusion; equal texts share a line."""
    grouped: dict[str, list[str]] = {}
    for cell in report.cells:
        for text in (cell.note, f"excluded: {cell.excluded}" if cell.excluded is not None else None):
            if text:
                grouped.setdefault(text, []).append(cell_name(cell))
    return [("; ".join(names), text) for text, names in grouped.items()]


def problems(report: Report) -> list[Trial]:
    """The trials that failed, and those of which something could not be read. Being stopped on request is no problem."""
    return [t for t in report.trials if t.state == "failed" or (t.message and t.state != "stopped")]


def reason(trial: Trial) -> str:
    """Why a trial failed, in one line: its cause, and the last line of its message, which is where an exception stands."""
    message = (trial.message or "").strip().splitlines()[-1:]
    return ": ".join(part.strip() for part in (trial.cause, *message) if part) or "no cause was recorded"


def mlflow_command(report: Report) -> str:
    """How to open the sweep in MLflow."""
    return f"ablatrix ui {report.name}"


def commands(report: Report) -> list[str]:
    """What to type to get this report again: the code, the trials, the report."""
    checkout = [f"git checkout {report.commit}" + ("  # its tree had uncommitted changes" if report.dirty else "")] if report.commit else []
    run = [report.command] if report.command else []
    return [*checkout, *run, f"ablatrix report {report.name}", f"ablatrix verify {report.name}", mlflow_command(report)]


def progress(report: Report) -> str:
    """`14 of 24 trials finished, 2 running, 1 failed`."""
    found = report.coverage
    others = [(found.running, "running"), (found.failed, "failed"), (found.stopped, "stopped early"), (found.waiting, "not run")]
    return ", ".join([f"{found.finished} of {found.planned} trials finished", *(f"{n} {what}" for n, what in others if n)])


def source(report: Report) -> list[tuple[str, str]]:
    """Where the numbers come from, as (name, value): sweep, profile, file, commit."""
    commit = report.commit and report.commit[:12] + (" with uncommitted changes" if report.dirty else "")
    pairs = [("Sweep", report.sweep), ("Profile", report.profile), ("File", report.file), ("Commit", commit)]
    return [(name, value) for name, value in pairs if value]


def environment(report: Report) -> list[tuple[str, str]]:
    """What the finished trials ran on, as (name, value); values that differ between trials stand side by side."""
    found = report.environment
    threads = tuple(str(n) for n in found.threads)
    pairs: list[tuple[str, Iterable[str]]] = [("Device", found.devices), ("Host", found.hosts), ("Threads", threads)]
    return [(name, ", ".join(values)) for name, values in (*pairs, *found.versions.items()) if values]


def _measure(report: Report) -> str:
    metrics = "; ".join(dict.fromkeys(measure(c.metric) for c in report.cells)) or measure(report.metric)
    if report.n == 1:
        return f"{metrics}. One seed for each cell (n = 1): neither a spread nor an interval can be given."
    return f"{metrics}. Mean ± sample standard deviation over n = {report.n} seeds, unless a cell says otherwise."


def _emphasis(report: Report) -> list[str]:
    sentences = []
    if any(c.best for c in report.cells):
        best = "Bold: the best of its column" if len(report.columns) > 1 else "Bold: the best"
        partial = any(not c.complete and c.mean is not None for c in report.cells)
        sentences.append(f"{best}, among the cells with all their seeds." if partial else f"{best}.")
    if any(c.tied for c in report.cells):
        alike = any(c.tied and c.to_best and c.to_best.low is None for c in report.cells)
        why = "the paired 95 % t interval of the difference contains 0" + ", or all seeds differ alike and nothing tells the spread" * alike
        sentences.append(f"Underlined: cannot be told from the best ({why}).")
    return sentences


def _ties(report: Report) -> list[str]:
    if not report.tied:
        return []
    if len(report.columns) == 1:
        return ["All cells are tied: no difference to the best can be told."]
    labels = {c.key: ", ".join(c.labels) for c in report.columns}
    return [f"All cells of {labels[key]} are tied: no difference to the best can be told." for key in report.tied]


def _baseline(report: Report) -> list[str]:
    deltas = [c.delta for c in report.cells if c.delta]
    if not deltas:
        return []
    if all(d.n == 1 for d in deltas):
        return [f"Δ: difference to {report.baseline}; with one common seed there is no interval."]
    interval = "with its paired 95 % t interval, not corrected for the number of cells"
    without = any(d.n > 1 and d.low is None for d in deltas)
    return [f"Δ: difference to {report.baseline} over common seeds, {interval}{'; none where all seeds differ alike' if without else ''}."]


def _legend(report: Report) -> list[str]:
    used = {c.state for c in report.cells} & MARKS.keys()
    return ["Marks: " + "; ".join(f"{MARKS[s]} {MEANINGS[s]}" for s in MARKS if s in used) + "."] if used else []
