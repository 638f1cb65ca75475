"""One round of the mirror: what the store has and MLflow lacks is sent, trial by trial."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ablatrix.errors import AblatrixError, InvalidInput
from ablatrix.store import Store, SweepDirectory
from ablatrix.tracking.client import Rejected
from ablatrix.tracking.experiment import Experiment
from ablatrix.tracking.ledger import Ledger, SentSweep, SentTrial
from ablatrix.tracking.parent import ParentRun
from ablatrix.tracking.points import Reading
from ablatrix.tracking.runs import KIND, Planned, TrialRun, digest, read_trial, stamp_of

if TYPE_CHECKING:
    from mlflow.entities import Run

SAVE_S = 5.0


@dataclass(frozen=True)
class Progress:
    """One pass: trials of the plan, those that have begun and stand in MLflow, and what was sent just now.

    `complete` is false where the pass was cut short; `problems` names trials that could not be read or sent.
    """

    trials: int
    mirrored: int = 0
    created: int = 0
    points: int = 0
    complete: bool = True
    problems: tuple[str, ...] = ()


class Round:
    """One pass over a sweep. The caller holds the sweep's lock, so `ledger` has no other writer, and keeps `readings` by trial."""

    def __init__(
        self,
        experiment: Experiment,
        store: Store,
        directory: SweepDirectory,
        plan: Mapping[str, Any],
        trials: Sequence[Planned],
        ledger: Ledger,
        cells: Mapping[str, float],
        readings: dict[str, Reading],
    ) -> None:
        self.experiment, self.store, self.directory = experiment, store, directory
        self.plan, self.trials, self.ledger, self.cells = plan, trials, ledger, cells
        self.readings = readings
        self.progress = Progress(len(self.trials))
        self._made_again: set[str] = set()  # runs that somebody had deleted
        known = ledger.read()
        if known is None or (known.experiment, known.created_ms) != (experiment.id, experiment.created_ms):
            known = SentSweep(experiment.id, experiment.created_ms)  # a new experiment has nothing yet
        self.sent = known

    def run(self, may_go_on: Callable[[], bool]) -> Progress:
        """Send what is missing, until `may_go_on` says no; what was sent is remembered whatever happens."""
        parent = ParentRun(self.experiment, self.directory, self.plan, self.sent)
        try:
            self._trials(self.sent.parent or parent.ensure(self._first_started_s()), may_go_on)
            if self.progress.complete:
                parent.update([self.sent.trials.get(t.trial) for t in self.trials], self.cells)
        except Rejected as error:
            if error.run_is_gone:
                parent.forget()  # the caller tries again
            raise
        finally:
            self.ledger.write(self.sent)
        return replace(self.progress, mirrored=sum(t.trial in self.sent.trials for t in self.trials))

    def _trials(self, parent: str, may_go_on: Callable[[], bool]) -> None:
        stale = [(t, seen) for t in self.trials if (seen := self._seen(t, parent)) and seen != self._sent_seen(t)]
        runs = self.experiment.find_trials([t.trial for t, _ in stale if t.trial not in self.sent.trials])
        saved = time.monotonic()
        for planned, seen in stale:
            if not may_go_on():
                self.progress = replace(self.progress, complete=False)
                return
            self._trial(planned, seen, parent, runs, may_go_on)
            if time.monotonic() - saved > SAVE_S:
                self.ledger.write(self.sent)
                saved = time.monotonic()

    def _trial(self, planned: Planned, seen: str, parent: str, runs: Mapping[str, Run], may_go_on: Callable[[], bool]) -> None:
        """One trial; a problem with it is noted, and the others go on."""
        try:
            sent, reading = self.sent.trials.get(planned.trial), self.readings.setdefault(planned.trial, Reading())
            if sent is None or sent.run != reading.run:
                reading.reset()
            run = read_trial(self.store.trial(planned.trial), planned, reading)
            if run is None:
                return
            tags = {**run.tags, KIND: "trial", "mlflow.parentRunId": parent, "mlflow.runName": planned.name}
            sent = sent or self._first_contact(run, tags, runs)
            points = self.experiment.send(run, sent, tags, may_go_on)
            self.progress = replace(self.progress, points=self.progress.points + points)
            self.experiment.upload_changed(sent.run, self.store.trial(planned.trial).picture_files(), sent.pictures)
            if sent.unsent(run.points):
                self.progress = replace(self.progress, complete=False)
            else:
                sent.seen = seen
                reading.settle(sent.run)
                if run.ended_ms is not None:
                    del self.readings[planned.trial]
        except Rejected as error:
            if error.run_is_gone and planned.trial not in self._made_again:
                self._made_again.add(planned.trial)
                self.sent.trials.pop(planned.trial, None)
                self._trial(planned, seen, parent, {}, may_go_on)
            else:
                self._problem(planned, error)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, InvalidInput) as error:
            self._problem(planned, error)

    def _first_contact(self, run: TrialRun, tags: Mapping[str, str], runs: Mapping[str, Run]) -> SentTrial:
        found = runs.get(run.planned.trial)
        if found is not None:
            sent = self.experiment.adopt(found, run.points)
        else:
            sent = SentTrial(self.experiment.create_run(run.planned.name, tags, run.started_ms), tags=digest(tags), status="RUNNING")
            self.progress = replace(self.progress, created=self.progress.created + 1)
        self.sent.trials[run.planned.trial] = sent
        return sent

    def _first_started_s(self) -> float:
        """When the first trial of the plan began; infinity while none has."""
        started = [math.inf]
        for planned in self.trials:
            try:
                status = self.store.trial(planned.trial).status()
            except (OSError, ValueError, TypeError):
                continue  # reported when that trial's turn comes
            started += [status.started] if status else []
        return min(started)

    def _problem(self, planned: Planned, error: Exception) -> None:
        reason = str(error) if isinstance(error, AblatrixError) else f"{type(error).__name__}: {error}"
        text = f"trial {planned.trial} ({planned.name}): {reason}"
        self.progress = replace(self.progress, problems=(*self.progress.problems, text))

    def _sent_seen(self, planned: Planned) -> str:
        sent = self.sent.trials.get(planned.trial)
        return sent.seen if sent else ""

    def _seen(self, planned: Planned, parent: str) -> str:
        """A fingerprint of a trial's files, of what the plan says of it and of its parent; empty while the trial waits."""
        directory = self.store.trial(planned.trial)
        files = ("status.json", "result.json", "environment.json")
        paths = [*(directory.path / name for name in files), directory.metrics_file, directory.usage_file, *directory.picture_files()]
        stamps = [stamp_of(path) for path in paths]
        return f"{planned.digest} {parent[:8]} {stamps}" if any(stamps) else ""
