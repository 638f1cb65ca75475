"""`sweeps/<sweep>/tracking.json`: what each MLflow already has of a sweep. Losing it costs time, never correctness."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablatrix.records import SCHEMA, write_atomically
from ablatrix.tracking.points import Point
from ablatrix.tracking.runs import stamp_of

FILE = "tracking.json"
# A position behind every step of an epoch, for points that only MLflow still has.
END = 2**53


@dataclass
class SentTrial:
    """A child run. `sent` is the last (epoch, step) sent of each metric, `tags` and `data` the fingerprints of the tags and
    the dataset sent, `pictures` those of the files beside the run, `seen` that of the files from which everything was sent."""

    run: str
    sent: dict[str, tuple[int, int]] = field(default_factory=dict)
    params: bool = False
    tags: str = ""
    data: str = ""
    status: str | None = None
    ended_ms: int | None = None
    pictures: dict[str, str] = field(default_factory=dict)
    seen: str = ""

    def unsent(self, points: Iterable[Point]) -> list[Point]:
        """The points behind what was sent."""
        return [p for p in points if (p.epoch, p.step) > self.sent.get(p.key, (-1, -1))]

    def advance(self, points: Iterable[Point]) -> None:
        """Remember these points as sent."""
        self.sent.update({p.key: (p.epoch, p.step) for p in points})

    def adopt(self, points: Iterable[Point], histories: dict[str, list[int]]) -> None:
        """Take over a run that another mirror filled: `histories` has the MLflow steps of each metric.

        Points are sent in order, so MLflow has the first n of a metric. Where the file was cut back since, and is
        shorter now, everything up to MLflow's last epoch counts as sent: it will be reported again with equal values.
        """
        own: dict[str, list[tuple[int, int]]] = {}
        for point in points:
            own.setdefault(point.key, []).append((point.epoch, point.step))
        for key, steps in histories.items():
            series = own.get(key, [])
            self.sent[key] = series[len(steps) - 1] if 0 < len(steps) <= len(series) else (max(steps, default=-1), END)


@dataclass
class SentSweep:
    """An experiment and its parent run. `created_ms` tells a new experiment from the one that was deleted."""

    experiment: str
    created_ms: int
    parent: str | None = None
    tags: str = ""
    experiment_tags: dict[str, str] = field(default_factory=dict)
    status: str | None = None
    ended_ms: int | None = None
    artifacts: dict[str, str] = field(default_factory=dict)
    cells: dict[str, float] = field(default_factory=dict)
    trials: dict[str, SentTrial] = field(default_factory=dict)


class Ledger:
    """The file, for one tracking URI. The parts of other URIs are kept as they are."""

    def __init__(self, path: Path, uri: str) -> None:
        self.path, self.uri = path, uri
        self._known: SentSweep | None = None
        self._text = ""
        self._stamp: tuple[int, int] | None = None

    def read(self) -> SentSweep | None:
        """What was sent to this URI, or None where nothing is known. Read anew only where somebody replaced the file."""
        stamp = stamp_of(self.path)
        if stamp is None or stamp != self._stamp:
            self._known = self._read()
            self._text, self._stamp = _text(self._known), stamp
        return self._known

    def write(self, sweep: SentSweep) -> None:
        """Replace this URI's part of the file, unless nothing changed."""
        text = _text(sweep)
        if text != self._text:
            others = {uri: json.dumps(part) for uri, part in self._all().items()}
            parts = ", ".join(f"{json.dumps(uri)}: {part}" for uri, part in sorted({**others, self.uri: text}.items()))
            # MLflow is asked again where the file is lost, so a pass does not wait for the disk.
            write_atomically(self.path, f'{{"schema": {SCHEMA}, "tracking": {{{parts}}}}}\n', durable=False)
            self._known, self._text, self._stamp = sweep, text, stamp_of(self.path)

    def _read(self) -> SentSweep | None:
        raw = self._all().get(self.uri)
        try:
            sweep = SentSweep(**raw) if raw else None
            if sweep:
                sweep.trials = {trial: _sent_trial(entry) for trial, entry in sweep.trials.items()}
        except (TypeError, ValueError, AttributeError):
            return None
        return sweep

    def _all(self) -> dict[str, Any]:
        try:
            raw = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        tracking = raw.get("tracking") if isinstance(raw, dict) else None
        return dict(tracking) if isinstance(tracking, dict) else {}


def _sent_trial(entry: Any) -> SentTrial:
    trial = SentTrial(**entry)
    trial.sent = {key: (int(epoch), int(step)) for key, (epoch, step) in trial.sent.items()}
    return trial


def _text(sweep: SentSweep | None) -> str:
    # `vars` instead of `asdict`: no copies, and a large sweep is written every few seconds.
    return json.dumps(sweep, default=vars, sort_keys=True, allow_nan=False) if sweep else ""
