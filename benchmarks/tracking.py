"""What does a report of 25 metrics cost on its way into MLflow, against Ray Tune's own MLflow callback?

Command: python benchmarks/tracking.py [--rounds 9] [--reports 10] [--uri URI]. Starts MLflow's server in a store of its own (SQLite,
or the database at URI); both ways then write to that one server, in turns. About 3 minutes on 2 cores; 5 rounds at least.
Cost is processor time of this process and of the server together, so that other work on the machine counts little; the
waiting time is printed beside it.

    callback  ray.air's MLflowLoggerCallback.log_trial_result, with a result that Ray Tune handed to its callbacks in this run; Tune
              adds a few numbers of its own, such as pid and times, which the callback logs too
    mirror    one more line in a trial's metrics.jsonl, and a whole pass of our mirror for it: the dearest case, since a
              pass sends everything that is new
    report    what a trial of ours itself waits for: its line and its status, on disk

Bar, by the lower quartile of the paired ratios: the callback costs 20x the mirror's pass. Before any clock starts, MLflow
must have received the same values both ways. Exit code: 0 passed, 1 failed, 2 inconclusive.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

from ablatrix import tracking
from ablatrix.attempt import Attempt
from ablatrix.records import Report, TrialRecipe, encode_report
from ablatrix.store import Store, TrialDirectory
from paired import Rounds, paired_ratios

BAR, METRICS, SWEEP = 20.0, 25, "cost"


def values(epoch: int) -> dict[str, float]:
    """A report's metrics."""
    return {f"train.m{number:02d}": epoch + number / 100 for number in range(METRICS)}


def result_of_tune(place: Path) -> dict[str, Any]:
    """What Ray Tune hands to its callbacks for one report of the metrics."""
    import ray
    from ray import tune

    seen: list[dict[str, Any]] = []

    class Probe(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
            seen.append(dict(result))

    ray.init(address="local", num_cpus=1, log_to_driver=False, logging_level="error")
    try:
        run = tune.RunConfig(name="probe", storage_path=str(place), verbose=0, callbacks=[Probe()])
        tune.Tuner(lambda config: tune.report(values(1)), param_space={"grid": 2}, run_config=run).fit()
    finally:
        ray.shutdown()
    assert values(1).items() <= seen[0].items()
    return seen[0]


class Callback:
    """Ray's callback on one trial, called as Tune calls it."""

    def __init__(self, url: str, result: dict[str, Any]) -> None:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        self.result = result
        self.callback: Any = MLflowLoggerCallback(tracking_uri=url, experiment_name="ray")
        self.callback.setup()
        self.trial = _Trial(config={"grid": 2})
        self.callback.log_trial_start(self.trial)
        self.epoch = 0

    def report(self) -> None:
        self.epoch += 1
        self.callback.log_trial_result(self.epoch, self.trial, {**self.result, **values(self.epoch), "training_iteration": self.epoch})

    @property
    def run(self) -> str:
        return self.callback._trial_runs[self.trial]


class _Trial(SimpleNamespace):
    """What the callback asks of Tune's trial: a name, a configuration, a place in a dictionary."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __str__(self) -> str:
        return "trial"


class Mirrored:
    """One trial of a sweep in a store, and the mirror of it."""

    def __init__(self, store: Store, url: str) -> None:
        cell = {"id": "grid=2", "levels": {"grid": "2"}, "trials": [{"trial": "0" * 16, "seed": 0}]}
        plan = {"metric": {"name": "train.m00", "goal": "max"}, "axes": [{"name": "grid", "keys": ["mask.grid"]}], "cells": [cell]}
        store.sweep(SWEEP).submit("sweep: cost\n", plan)
        self.trial: TrialDirectory = store.trial("0" * 16)
        self.trial.create(TrialRecipe(self.trial.id, 0, "data", {"mask": {"grid": 2}}))
        Attempt(self.trial, Path("none"), 1, 10_000)
        self.alone = Attempt(store.trial("1" * 16), Path("none"), 1, 10_000)  # not in the plan, so the mirror leaves it alone
        self.mirror = tracking.Mirror(store, SWEEP, url)
        self.mirror.mirror_once()
        self.epoch = 0

    def report(self) -> None:
        self.epoch += 1
        self.alone.report(self.epoch, self.epoch, values(self.epoch))

    def report_and_mirror(self) -> None:
        self.epoch += 1
        with self.trial.metrics_file.open("a") as file:
            file.write(encode_report(Report(self.epoch, self.epoch, time.time(), values(self.epoch))))
        sent = self.mirror.mirror_once()
        assert sent.points >= METRICS


def check(callback: Callback, mirrored: Mirrored, url: str) -> None:
    """Both ways must have stored the first report's values."""
    from mlflow import MlflowClient

    client = MlflowClient(url)
    experiment = client.get_experiment_by_name(SWEEP)
    assert experiment is not None
    ours = client.search_runs([experiment.experiment_id], "tags.`ablatrix.kind` = 'trial'")[0].data.metrics
    rays = client.get_run(callback.run).data.metrics
    wanted = values(1)
    if not wanted.items() <= ours.items() or not wanted.items() <= rays.items():
        sys.exit(f"the two ways did not store the same values: {ours} and {rays}")


def processor_clock(store: Store) -> Callable[[], float]:
    """Seconds of processor time of this process, and of the server with its workers."""
    server = psutil.Process(json.loads((store.root / "mlflow-server.json").read_text())["pid"])
    family = [psutil.Process(), server, *server.children(recursive=True)]

    def now() -> float:
        return sum(times.user + times.system for times in (process.cpu_times() for process in family))

    return now


def measure(callback: Callback, mirrored: Mirrored, clock: Callable[[], float], rounds: int, reports: int) -> Rounds:
    def several(case: Callable[[], None]) -> Callable[[], None]:
        return lambda: [case() for _ in range(reports)] and None

    cases = {"callback": callback.report, "mirror": mirrored.report_and_mirror, "report": mirrored.report}
    return paired_ratios({name: several(case) for name, case in cases.items()}, rounds, clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--reports", type=int, default=10, help="reports in a row for each turn")
    parser.add_argument("--uri", help="a database for the server; default: SQLite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ablatrix-bench-") as place:
        store = Store(Path(place))
        url = tracking.serve(store, options.uri or tracking.tracking_uri(None, store))
        try:
            sys.exit(compare(store, url, options.rounds, options.reports))
        finally:
            tracking.stop_server(store)


def compare(store: Store, url: str, rounds: int, reports: int) -> int:
    # MLflow's own settings for both: Ray's callback then suffers no more retries or notes than our mirror.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    mirrored = Mirrored(store, url)
    with contextlib.redirect_stderr(sys.stdout):
        callback = Callback(url, result_of_tune(store.root / "tune"))
    callback.report()
    mirrored.report_and_mirror()
    check(callback, mirrored, url)
    cost = measure(callback, mirrored, processor_clock(store), rounds, reports)
    wait = measure(callback, mirrored, time.perf_counter, rounds, reports)
    for name, found in (("processor time", cost), ("waiting time", wait)):
        ms = {case: 1000 * found.median_seconds(case) / reports for case in found.seconds}
        print(f"{name} for a report of {METRICS} metrics: " + ", ".join(f"{case} {value:.1f} ms" for case, value in ms.items()))
        print(f"  the callback is {show(found.ratio('callback', 'mirror'))} the mirror's pass; others used {found.other_load:.1f} cores")
    print(f"  the callback waits {show(wait.ratio('callback', 'report'))} what our trial waits")
    verdict = cost.verdict(cost.ratio("callback", "mirror"), BAR)
    print(f"bar {BAR:g}x: {verdict}")
    return {"passed": 0, "failed": 1}.get(verdict, 2)


def show(ratio: Any) -> str:
    return f"{ratio.median:.1f}x (quartiles {ratio.lower:.1f} to {ratio.upper:.1f})"


if __name__ == "__main__":
    main()
