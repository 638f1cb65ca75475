"""The loss and the k-NN curve of each trial that has ended, as pictures beside its other files; MLflow shows them with the run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from io import BytesIO

from ablatrix.errors import AblatrixError
from ablatrix.records import Report, write_atomically
from ablatrix.store import Store, TrialDirectory
from ablatrix_reports.canvas import MAX_SERIES, canvas
from ablatrix_reports.plan import read_plan

LAST = "loss"
# The picture, and the metrics that it draws, by the beginning of their names. Nearly every trial has a loss: its picture is drawn
# last, and tells that the reports were read, so that a trial without the other is not read again at every look.
PICTURES = {"knn": "knn.", LAST: "train.loss"}
HEIGHT = 2.6  # inches
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, AblatrixError)
Points = list[tuple[int, float]]


def write_trial_curves(store: Store, sweep: str) -> int:
    """Draw `pictures/{loss,knn}.png` of every ended trial whose reports are newer; the number drawn.

    A trial that cannot be read is left out: the report says why. Raises InvalidInput where there is no such sweep.
    """
    drawn = 0
    for trial in dict.fromkeys(trial.trial for cell in read_plan(store.sweep(sweep)).cells for trial in cell.trials):
        try:
            drawn += _write(store.trial(trial))
        except _UNREADABLE:
            continue
    return drawn


def _write(directory: TrialDirectory) -> int:
    status = directory.status()
    if status is None or status.state == "running" or not _older(directory, LAST):
        return 0
    reports, drawn = directory.reports(), 0
    for name, start in PICTURES.items():
        series = _series(reports, start)
        if any(len(points) > 1 for points in series.values()):
            write_atomically(directory.pictures / f"{name}.png", _draw(series))
            drawn += 1
    return drawn


def _older(directory: TrialDirectory, name: str) -> bool:
    picture = directory.pictures / f"{name}.png"
    return directory.metrics_file.exists() and not (
        picture.exists() and picture.stat().st_mtime_ns >= directory.metrics_file.stat().st_mtime_ns
    )


def _series(reports: Iterable[Report], start: str) -> dict[str, Points]:
    """Finite values by metric and epoch; of an epoch that was reported twice the later."""
    found: dict[str, dict[int, float]] = {}
    for report in reports:
        for name, value in report.values.items():
            if name.startswith(start) and math.isfinite(value):
                found.setdefault(name, {})[report.epoch] = value
    return {name: sorted(points.items()) for name, points in sorted(found.items())[:MAX_SERIES]}


def _draw(series: Mapping[str, Points]) -> bytes:
    """PNG bytes, equal for equal points."""
    from matplotlib.ticker import MaxNLocator

    with canvas(1, HEIGHT) as (figure, (ax,)):
        for number, (name, points) in enumerate(series.items()):
            # The colours of the report's pictures stand for those of its page; here are matplotlib's own.
            ax.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.4, label=name, color=f"C{number}")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(visible=True, alpha=0.15)
        ax.legend(frameon=False)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
