"""The run that stands for the whole sweep: its files, its cell means, its state."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablatrix.comparison import VIEW_TAG, shared_view
from ablatrix.store import SweepDirectory
from ablatrix.tracking.experiment import Experiment
from ablatrix.tracking.ledger import SentSweep, SentTrial
from ablatrix.tracking.points import FINAL, Point, key_of
from ablatrix.tracking.runs import AXIS, CELL, KIND, MAX_TAG, digest, source_tags, sweep_status

FILES = ("sweep.yaml", "plan.json")


class ParentRun:
    """Written through `sent`, which remembers what MLflow has."""

    def __init__(self, experiment: Experiment, directory: SweepDirectory, plan: Mapping[str, Any], sent: SentSweep) -> None:
        self.experiment, self.directory, self.plan, self.sent = experiment, directory, plan, sent

    def ensure(self, first_started_s: float = math.inf) -> str:
        """The run's id; found by its tag, else made. It started with the plan, or with the first trial where that is older."""
        if self.sent.parent is None:
            found = self.experiment.find_parent()
            if found is not None:
                self.sent.parent = found.info.run_id
                self.sent.cells = {k: v for k, v in found.data.metrics.items() if k.startswith(CELL)}
            else:
                started_s = min(first_started_s, (self.directory.path / "plan.json").stat().st_mtime)
                self.sent.parent = self.experiment.create_run(self.directory.name, self._tags(), int(1000 * started_s))
                self.sent.tags, self.sent.status = digest(self._tags()), "RUNNING"
        return self.sent.parent

    def forget(self) -> None:
        """Start again: somebody deleted the run."""
        sent = self.sent
        sent.parent, sent.tags, sent.status, sent.ended_ms = None, "", None, None
        sent.artifacts, sent.cells, sent.experiment_tags = {}, {}, {}

    def update(self, trials: Sequence[SentTrial | None], cells: Mapping[str, float]) -> None:
        """Bring everything but the children up to date: `trials` in the plan's order, None where one waits."""
        run = self.ensure()
        if self.sent.tags != digest(self._tags()):
            self.experiment.set_tags(run, self._tags())
            self.sent.tags = digest(self._tags())
        self._update_experiment(run)
        self._upload(run)
        self._log_cells(run, trials, cells)
        status, ended = self._state(trials)
        if (status, ended) != (self.sent.status, self.sent.ended_ms):
            self.experiment.set_status(run, status, ended)
            self.sent.status, self.sent.ended_ms = status, ended

    def _tags(self) -> dict[str, str]:
        plan, name = self.plan, self.directory.name
        tags = {KIND: "sweep", "ablatrix.sweep": name, "metric": plan["metric"]["name"], "mlflow.runName": name}
        return {key: text[:MAX_TAG] for key, text in {**tags, "mlflow.note.content": self._note(), **source_tags(plan)}.items()}

    def _note(self) -> str:
        """Shown above the runs, as Markdown."""
        parts = [f"**{self.plan.get('title') or self.directory.name}**", self.plan.get("question")]
        if self.plan.get("command"):
            parts.append(f"`{self.plan['command']}`")
        return "\n\n".join(part for part in parts if part)

    def _update_experiment(self, run: str) -> None:
        """The experiment's description, and the view that our links open."""
        plan = self.plan
        metric, goal = plan["metric"]["name"], plan["metric"]["goal"]
        axes = {key_of(AXIS + axis["name"]): [key_of(key) for key in axis["keys"]] for axis in plan["axes"]}
        view = shared_view(run, axes, key_of(metric), key_of(FINAL + metric), goal)
        tags = {"mlflow.note.content": self._note(), VIEW_TAG: view}
        known = {name: digest(text) for name, text in tags.items()}
        self.experiment.set_experiment_tags({n: t for n, t in tags.items() if self.sent.experiment_tags.get(n) != known[n]})
        self.sent.experiment_tags = known

    def _upload(self, run: str) -> None:
        for name, path in self._files():
            try:
                content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            except FileNotFoundError:
                continue
            if self.sent.artifacts.get(name) != content:
                self.experiment.upload(run, path, Path(name).parent.as_posix() if "/" in name else None)
                self.sent.artifacts[name] = content

    def _files(self) -> Iterator[tuple[str, Path]]:
        yield from ((name, self.directory.path / name) for name in FILES)
        for path in sorted(self.directory.report.rglob("*")):
            name = path.relative_to(self.directory.path)
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
                yield name.as_posix(), path

    def _log_cells(self, run: str, trials: Sequence[SentTrial | None], cells: Mapping[str, float]) -> None:
        """The means that changed, at the number of finished trials as step and the time of the last of them."""
        finished = [t.ended_ms or 0 for t in trials if t and t.status == "FINISHED"]
        means = {key_of(CELL + name).rstrip("."): float(mean) for name, mean in cells.items() if math.isfinite(mean)}
        points = [
            Point(key, len(finished), 0, max(finished, default=0), mean) for key, mean in means.items() if self.sent.cells.get(key) != mean
        ]
        if points:
            self.experiment.log(run, points)
            self.sent.cells |= {p.key: p.value for p in points}

    def _state(self, trials: Sequence[SentTrial | None]) -> tuple[str, int | None]:
        status = sweep_status([t.status if t else None for t in trials])
        return status, None if status == "RUNNING" else max((t.ended_ms or 0 for t in trials if t), default=None)
