"""What an MLflow has, read back through its own client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ablatrix.tracking.address import parse
from ablatrix.tracking.client import connect
from stored_sweep import SWEEP

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def client_of(uri: str) -> MlflowClient:
    return connect(parse(uri))


def experiment_id(uri: str, sweep: str = SWEEP) -> str:
    found = client_of(uri).get_experiment_by_name(sweep)
    assert found is not None
    return str(found.experiment_id)


def runs_of(uri: str, sweep: str = SWEEP) -> dict[str, Run]:
    """Every run of the sweep's experiment by name; names are unique unless something was doubled."""
    runs = client_of(uri).search_runs([experiment_id(uri, sweep)])
    names = [str(run.info.run_name) for run in runs]
    assert len(names) == len(set(names)), names
    return dict(zip(names, runs, strict=True))


def history(uri: str, run: Run, key: str) -> list[tuple[int, int, float]]:
    """(MLflow's step, time in ms, value) of every point of a metric."""
    return [(m.step, m.timestamp, m.value) for m in client_of(uri).get_metric_history(run.info.run_id, key)]


def epochs(uri: str, name: str = "grid=2, seed 0") -> list[int]:
    return [step for step, _, _ in history(uri, runs_of(uri)[name], "knn.top1")]


def files(uri: str, run: Run, folder: str | None = None) -> list[str]:
    found = client_of(uri).list_artifacts(run.info.run_id, folder)
    return sorted(path for f in found for path in (files(uri, run, f.path) if f.is_dir else [f.path]))


def everything(uri: str, sweep: str = SWEEP) -> dict[str, Any]:
    """All that two mirrors of one store must agree on: everything but the runs' ids."""
    runs = runs_of(uri, sweep)
    ids = {run.info.run_id: name for name, run in runs.items()}
    return {
        name: {
            "params": run.data.params,
            "tags": {k: ids.get(v, v) for k, v in run.data.tags.items()},
            "data": [(d.dataset.name, d.dataset.digest, d.dataset.source, d.dataset.profile) for d in run.inputs.dataset_inputs],
            "metrics": {key: history(uri, run, key) for key in run.data.metrics},
            "info": (run.info.status, run.info.start_time, run.info.end_time),
            "files": files(uri, run),
        }
        for name, run in runs.items()
    }
