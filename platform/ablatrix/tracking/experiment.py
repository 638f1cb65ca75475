"""One sweep's experiment in MLflow: finding, creating and filling its runs. Every call may raise Unreachable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablatrix.errors import InvalidInput
from ablatrix.tracking.address import Address
from ablatrix.tracking.client import Rejected, border
from ablatrix.tracking.ledger import SentTrial
from ablatrix.tracking.points import Point
from ablatrix.tracking.runs import KIND, PASSING, PASSING_TAGS, DataInput, TrialRun, digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

BATCH = 1000
PAGE = 500
# Above this many unknown trials, one paged search is cheaper than a search for each.
SINGLE_SEARCHES = 8
PICTURES = "pictures"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class Experiment:
    """The experiment named after the sweep, made on first use with its artefacts under `artifacts`."""

    def __init__(self, client: MlflowClient, address: Address, sweep: str, artifacts: Path) -> None:
        self._client, self._address, self.sweep = client, address, sweep
        with border(address):
            self.id, self.created_ms = self._find() or self._create(artifacts)

    def _find(self) -> tuple[str, int] | None:
        found = self._client.get_experiment_by_name(self.sweep)
        if found is None:
            return None
        if found.lifecycle_stage != "active":
            raise InvalidInput(
                f"the experiment {self.sweep!r} lies in the trash of MLflow at {self._address.public}. "
                f"Run `mlflow experiments restore -x {found.experiment_id}` with MLFLOW_TRACKING_URI set, or empty it with `mlflow gc`."
            )
        return str(found.experiment_id), int(found.creation_time or 0)

    def _create(self, artifacts: Path) -> tuple[str, int]:
        # A server keeps artefacts itself; without one they lie in the store, not in MLflow's ./mlruns.
        location = None if self._address.kind == "server" else (artifacts / self.sweep).absolute().as_uri()
        try:
            with border(self._address):
                self._client.create_experiment(self.sweep, artifact_location=location, tags=EXPERIMENT_TAGS)
        except Rejected as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":  # another mirror was faster
                raise
        found = self._find()
        if found is None:
            raise Rejected(f"MLflow at {self._address.public} has no experiment {self.sweep!r} though it was just made.", "")
        return found

    def find_parent(self) -> Run | None:
        """The sweep's own run."""
        return next(iter(self._search(f"tags.`{KIND}` = 'sweep'")), None)

    def find_trials(self, trials: Sequence[str]) -> dict[str, Run]:
        """The runs that are already there, by trial id."""
        if len(trials) > SINGLE_SEARCHES:
            runs = self._search(f"tags.`{KIND}` = 'trial'")
        else:
            runs = [run for trial in trials for run in self._search(f"tags.`ablatrix.trial` = '{trial}'")]
        wanted = set(trials)
        return {run.data.tags["ablatrix.trial"]: run for run in runs if run.data.tags.get("ablatrix.trial") in wanted}

    def _search(self, condition: str) -> list[Run]:
        found: list[Run] = []
        token = None
        while True:
            with border(self._address):
                page = self._client.search_runs(
                    [self.id], condition, max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token
                )
            found += page
            token = page.token
            if not token:
                return found

    def adopt(self, run: Run, points: Iterable[Point]) -> SentTrial:
        """What a run that another mirror made already has: its points are read, never sent again."""
        sent = SentTrial(run.info.run_id)
        with border(self._address):
            histories = {key: [m.step for m in self._client.get_metric_history(sent.run, key)] for key in run.data.metrics}
        sent.adopt(points, histories)
        return sent

    def create_run(self, name: str, tags: Mapping[str, str], started_ms: int) -> str:
        """A new run's id."""
        with border(self._address):
            run = self._client.create_run(self.id, start_time=max(started_ms, 1), tags=dict(tags), run_name=name)
        return str(run.info.run_id)

    def send(self, run: TrialRun, sent: SentTrial, tags: Mapping[str, str], may_go_on: Callable[[], bool]) -> int:
        """Bring a child run up to date; the number of points sent. `sent` follows every call that succeeded."""
        if not sent.params:
            self._log_params(sent.run, run.params)
            sent.params = True
        if sent.tags != digest(tags):
            self.set_tags(sent.run, tags)
            sent.tags = digest(tags)
        if sent.data != digest(run.data):
            self._log_data(sent.run, run.data)
            sent.data = digest(run.data)
        points, count = sent.unsent(run.points), 0
        for start in range(0, len(points), BATCH):
            if not may_go_on():
                return count
            batch = points[start : start + BATCH]
            self.log(sent.run, batch)
            sent.advance(batch)
            count += len(batch)
        if (run.status, run.ended_ms) != (sent.status, sent.ended_ms):
            self.set_status(sent.run, run.status, run.ended_ms)
            sent.status, sent.ended_ms = run.status, run.ended_ms
        return count

    def _log_params(self, run: str, params: Mapping[str, str]) -> None:
        with border(self._address):
            from mlflow.entities import Param

            self._client.log_batch(run, params=[Param(k, v) for k, v in params.items()])

    def _log_data(self, run: str, data: DataInput) -> None:
        """Name the dataset; MLflow keeps one of each name and digest."""
        with border(self._address):
            from mlflow.entities import Dataset, DatasetInput, InputTag

            dataset = Dataset(data.name, data.digest, "local", json.dumps({"uri": data.source}), profile=data.profile)
            self._client.log_inputs(run, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def log(self, run: str, points: Iterable[Point]) -> None:
        """Send points in one request; points that MLflow has already are left as they are."""
        with border(self._address):
            from mlflow.entities import Metric

            self._client.log_batch(run, metrics=[Metric(p.key, p.value, p.time_ms, p.epoch) for p in points])

    def set_tags(self, run: str, tags: Mapping[str, str]) -> None:
        """Write the tags that differ, and delete those of ours that no longer hold, such as the cause of a mended failure."""
        with border(self._address):
            from mlflow.entities import RunTag

            present = self._client.get_run(run).data.tags
            changed = [RunTag(k, v) for k, v in tags.items() if present.get(k) != v]
            if changed:
                self._client.log_batch(run, tags=changed)
            for name in present.keys() - tags.keys():
                if name in PASSING_TAGS or name.startswith(PASSING):
                    self._client.delete_tag(run, name)

    def set_status(self, run: str, status: str, ended_ms: int | None) -> None:
        """Set a run's status; MLflow keeps an end time once it has one."""
        with border(self._address):
            if ended_ms is None:
                self._client.update_run(run, status=status)
            else:
                self._client.set_terminated(run, status=status, end_time=ended_ms)

    def set_experiment_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags of the experiment."""
        with border(self._address):
            for name, value in tags.items():
                self._client.set_experiment_tag(self.id, name, value)

    def upload_changed(self, run: str, files: Iterable[Path], sent: dict[str, str]) -> None:
        """Put pictures beside the run, those whose content is not what `sent` says by name; `sent` follows."""
        for path in files:
            content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            if sent.get(path.name) != content:
                self.upload(run, path, PICTURES)
                sent[path.name] = content

    def upload(self, run: str, path: Path, folder: str | None) -> None:
        """Put a file beside the run, replacing one of the same name."""
        with border(self._address):
            self._client.log_artifact(run, str(path), folder)
