"""The mirror of a sweep in a real SQLite MLflow: complete, idempotent, rebuildable."""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from ablatrix import tracking
from ablatrix.errors import InvalidInput, Refused, Unreachable
from ablatrix.records import Report, encode_report
from ablatrix.store import Store
from ablatrix.tracking import mirror as mirror_module
from ablatrix.tracking.address import parse
from ablatrix.tracking.client import connect
from stored_sweep import START, begin, end, finish, keep_lines, plan, report, submit, trial_id

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated:DeprecationWarning")
SWEEP = "grid-sweep"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")})


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrated once: a fresh file takes MLflow seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(parse(f"sqlite:///{path}"))
    return path


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Store:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    shutil.copy(empty_database, tmp_path / "other.db")
    return submit(tmp_path / "runs")


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


def client_of(uri: str):
    return connect(parse(uri))


def runs_of(uri: str, sweep: str = SWEEP) -> dict[str, object]:
    """Every run of the sweep's experiment by run name; names are unique unless something was doubled."""
    client = client_of(uri)
    experiment = client.get_experiment_by_name(sweep)
    runs = client.search_runs([experiment.experiment_id])
    names = [run.info.run_name for run in runs]
    assert len(names) == len(set(names)), names
    return {run.info.run_name: run for run in runs}


def history(uri: str, run, key: str) -> list[tuple[int, int, float]]:
    return [(m.step, m.timestamp, m.value) for m in client_of(uri).get_metric_history(run.info.run_id, key)]


def everything(uri: str, sweep: str = SWEEP) -> dict[str, object]:
    """All that two mirrors of one store must agree on: everything but the run ids."""
    ids = {run.info.run_id: name for name, run in runs_of(uri, sweep).items()}
    return {
        name: {
            "params": run.data.params,
            "tags": {k: ids.get(v, v) for k, v in run.data.tags.items()},
            "metrics": {key: history(uri, run, key) for key in run.data.metrics},
            "info": (run.info.status, run.info.start_time, run.info.end_time),
            "artifacts": sorted(f.path for f in client_of(uri).list_artifacts(run.info.run_id)),
        }
        for name, run in runs_of(uri, sweep).items()
    }


def test_a_finished_trial_stands_in_mlflow_with_everything_that_the_store_knows(store, uri):
    finish(store, 1, seed=1)

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    parent, run = runs_of(uri)[SWEEP], runs_of(uri)["grid=2, seed 1"]
    tags = {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.source")}
    assert tags == {
        "ablatrix.kind": "trial", "ablatrix.trial": trial_id(1), "ablatrix.sweep": SWEEP, "ablatrix.cell": "grid=2", "axis.grid": "2", "seed": "1",
        "state": "finished", "attempt": "1", "host": "node-1", "device": "cpu", "versions": "python 3.11, torch 2.15", "commit": "abc1234",
        "mlflow.runName": "grid=2, seed 1", "mlflow.parentRunId": parent.info.run_id,
    }  # fmt: skip
    assert run.data.params == {"mask.grid": "2", "mask.kind": "random", "mixing": "null", "sizes": "[32, 64]", "seed": "1"}
    assert history(uri, run, "knn.top1") == [(e, int(1000 * (START + 60 * e)), 51.0 + e) for e in (1, 2, 3)]
    assert history(uri, run, "final.knn.top1") == [(3, int(1000 * (START + 180)), 54.0)]
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", int(1000 * (START + 1)), int(1000 * (START + 185)))


def test_a_second_pass_changes_nothing(store, uri):
    finish(store, 0)
    begin(store, 1, seed=1)
    mirror = tracking.Mirror(store, SWEEP, uri)
    first = mirror.mirror_once()
    before = everything(uri)

    second = mirror.mirror_once()
    third = tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert (first.trials, first.mirrored, first.created, first.points) == (4, 2, 2, 7)
    assert (second.created, second.points, third.created, third.points) == (0, 0, 0, 0)
    assert everything(uri) == before


def test_a_waiting_trial_has_no_run_and_a_running_one_grows(store, uri):
    trial = begin(store, 0)
    report(trial, [1])
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()
    running = runs_of(uri)

    report(trial, [2, 3])
    end(trial)
    mirror.mirror_once()

    run = runs_of(uri)["grid=2, seed 0"]
    assert set(running) == {SWEEP, "grid=2, seed 0"}
    assert (running["grid=2, seed 0"].info.status, running["grid=2, seed 0"].info.end_time) == ("RUNNING", None)
    assert (run.info.status, [step for step, _, _ in history(uri, run, "knn.top1")]) == ("FINISHED", [1, 2, 3])


def test_a_metric_reported_later_at_the_same_step_is_sent_too(store, uri):
    trial = begin(store, 0)
    mirror = tracking.Mirror(store, SWEEP, uri)
    for name in ("train.loss", "knn.top1"):
        with trial.metrics_file.open("a") as file:
            file.write(encode_report(Report(1, 27, START + 1, {name: 1.0})))
        mirror.mirror_once()

    assert runs_of(uri)["grid=2, seed 0"].data.metrics == {"train.loss": 1.0, "knn.top1": 1.0}


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_resumed_trial_that_reports_epochs_again_adds_no_point(store, uri, kept):
    trial = begin(store, 0)
    report(trial, [1, 2, 3])
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()

    keep_lines(trial, kept)
    mirror.mirror_once()
    report(trial, range(kept + 1, 5), late_s=1000.0)
    mirror.mirror_once()

    assert [step for step, _, _ in history(uri, runs_of(uri)["grid=2, seed 0"], "knn.top1")] == [1, 2, 3, 4]


def test_lines_that_were_not_cut_back_before_a_resume_count_once(store, uri):
    trial = begin(store, 0)
    report(trial, [1, 2, 3])
    report(trial, [2, 3, 4], late_s=1000.0)

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert [step for step, _, _ in history(uri, runs_of(uri)["grid=2, seed 0"], "knn.top1")] == [1, 2, 3, 4]


@pytest.mark.parametrize("kept", [0, 2, 3])
def test_a_lost_tracking_file_doubles_nothing(store, uri, kept):
    finish(store, 1, seed=1)
    trial = begin(store, 0)
    report(trial, [1, 2, 3])
    tracking.Mirror(store, SWEEP, uri).mirror_once()

    (store.sweep(SWEEP).path / "tracking.json").unlink()
    keep_lines(trial, kept)
    tracking.Mirror(store, SWEEP, uri).mirror_once()
    report(trial, range(kept + 1, 5), late_s=1000.0)
    again = tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert again.created == 0
    assert [step for step, _, _ in history(uri, runs_of(uri)["grid=2, seed 0"], "knn.top1")] == [1, 2, 3, 4]
    assert len(history(uri, runs_of(uri)["grid=2, seed 1"], "final.knn.top1")) == 1


def test_a_damaged_tracking_file_counts_as_lost(store, uri):
    finish(store, 0)
    tracking.Mirror(store, SWEEP, uri).mirror_once()
    before = everything(uri)
    (store.sweep(SWEEP).path / "tracking.json").write_text('{"tracking": {"' + uri + '": {"experiment": 1}}}')

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert everything(uri) == before


def test_a_failure_is_told_with_its_cause_until_it_is_mended(store, uri):
    trial = begin(store, 0)
    end(trial, "failed", cause="out of memory", message="MemoryError: 3 GB")
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()
    failed = runs_of(uri)["grid=2, seed 0"]

    begin(store, 0, attempt=2)
    mirror.mirror_once()
    again = runs_of(uri)["grid=2, seed 0"]

    assert (failed.info.status, failed.data.tags["cause"], failed.data.tags["message"]) == ("FAILED", "out of memory", "MemoryError: 3 GB")
    assert (again.info.status, again.data.tags["attempt"]) == ("RUNNING", "2")
    assert not {"cause", "message"} & again.data.tags.keys()


def test_a_stopped_trial_is_killed_in_mlflows_words(store, uri):
    end(begin(store, 0), "stopped", cause="stopped")

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert runs_of(uri)["grid=2, seed 0"].info.status == "KILLED"
    assert runs_of(uri)[SWEEP].info.status == "KILLED"


def test_the_sweeps_run_ends_with_its_last_trial(store, uri):
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()
    empty = runs_of(uri)[SWEEP].info.status
    for number in range(4):
        finish(store, number, seed=number % 2)
    mirror.mirror_once()

    assert empty == "RUNNING"
    assert (runs_of(uri)[SWEEP].info.status, runs_of(uri)[SWEEP].info.end_time) == ("FINISHED", int(1000 * (START + 185)))


def test_thousands_of_points_go_in_batches_and_all_arrive(store, uri):
    trial = begin(store, 0)
    report(trial, range(1, 1301))

    progress = tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert progress.points == 2600
    assert len(history(uri, runs_of(uri)["grid=2, seed 0"], "train.loss")) == 1300


def test_a_measurement_that_is_no_number_arrives_as_one(store, uri):
    trial = begin(store, 0)
    with trial.metrics_file.open("a") as file:
        file.write(encode_report(Report(1, 27, START, {"train.loss": math.nan, "knn.top1@20 (%)": 4.0})))

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    metrics = runs_of(uri)["grid=2, seed 0"].data.metrics
    assert math.isnan(metrics["train.loss"])
    assert metrics["knn.top1_20 ___"] == 4.0


def test_a_trial_of_two_cells_has_one_run_with_both_names(tmp_path, store, uri):
    shared = plan(grids=["2", "4"], seeds=[0])
    shared["cells"][1]["trials"] = shared["cells"][0]["trials"]
    store.sweep(SWEEP).submit("sweep: x\n", shared)
    finish(store, 0)

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    tags = runs_of(uri)["grid=2, grid=4, seed 0"].data.tags
    assert (tags["ablatrix.cell"], tags["axis.grid"]) == ("grid=2; grid=4", "2; 4")


def test_a_damaged_trial_is_named_and_the_others_go_on(store, uri):
    finish(store, 0)
    damaged = finish(store, 1, seed=1)
    (damaged.path / "status.json").write_text("{half a")
    finish(store, 2)

    progress = tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert [problem.split(":")[0] for problem in progress.problems] == [f"trial {trial_id(1)} (grid=2, seed 1)"]
    assert set(runs_of(uri)) == {SWEEP, "grid=2, seed 0", "grid=4, seed 0"}


def test_runs_that_somebody_deleted_are_made_again(store, uri):
    trial = begin(store, 0)
    report(trial, [1, 2])
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()
    for run in runs_of(uri).values():
        client_of(uri).delete_run(run.info.run_id)

    report(trial, [3])
    store.sweep(SWEEP).submit("sweep: changed\n", plan(title="Another title"))
    progress = mirror.mirror_once()

    runs = runs_of(uri)
    assert progress.problems == ()
    assert runs["grid=2, seed 0"].data.tags["mlflow.parentRunId"] == runs[SWEEP].info.run_id
    assert [step for step, _, _ in history(uri, runs["grid=2, seed 0"], "knn.top1")] == [1, 2, 3]


def test_an_experiment_in_the_trash_is_named_with_the_way_back(store, uri):
    tracking.Mirror(store, SWEEP, uri).mirror_once()
    client_of(uri).delete_experiment(client_of(uri).get_experiment_by_name(SWEEP).experiment_id)

    with pytest.raises(InvalidInput, match=r"lies in the trash .*mlflow experiments restore -x"):
        tracking.Mirror(store, SWEEP, uri).mirror_once()


def test_files_are_uploaded_when_their_content_changed_and_only_then(store, uri, monkeypatch):
    directory = store.sweep(SWEEP)
    (directory.report / "figures").mkdir(parents=True)
    (directory.report / "report.md").write_text("one")
    (directory.report / "figures" / "a.svg").write_text("<svg/>")
    (directory.report / ".report.md.half").write_text("being written")
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()
    uploads: list[str] = []
    assert mirror._experiment is not None
    monkeypatch.setattr(mirror._experiment, "upload", lambda run, path, folder: uploads.append(f"{folder}/{path.name}"))

    (directory.report / "figures" / "a.svg").write_text("<svg/>")
    (directory.report / "report.md").write_text("two")
    mirror.mirror_once()
    mirror.mirror_once()

    parent = runs_of(uri)[SWEEP].info.run_id
    listed = [
        f.path for folder in (None, "report", "report/figures") for f in client_of(uri).list_artifacts(parent, folder) if not f.is_dir
    ]
    assert sorted(listed) == ["plan.json", "report/figures/a.svg", "report/report.md", "sweep.yaml"]
    assert uploads == ["report/report.md"]


def test_cell_means_are_metrics_of_the_sweeps_run_and_are_sent_once(store, uri):
    finish(store, 0)
    mirror = tracking.Mirror(store, SWEEP, uri)
    for means in ({"grid=2": 53.0}, {"grid=2": 53.0, "grid=4": math.nan}, {"grid=2": 53.5}):
        mirror.cell_means(means)
        mirror.mirror_once()
    (store.sweep(SWEEP).path / "tracking.json").unlink()
    mirror.mirror_once()

    run = runs_of(uri)[SWEEP]
    assert [(step, value) for step, _, value in history(uri, run, "cell.grid_2")] == [(1, 53.0), (1, 53.5)]
    assert set(run.data.metrics) == {"cell.grid_2"}


def test_rebuilding_from_the_store_alone_equals_the_live_mirror(store, uri, tmp_path):
    other = submit(store.root, "other-sweep", sweep="other-sweep", grids=["8"])
    mirrors = [tracking.Mirror(store, name, uri) for name in (SWEEP, "other-sweep")]
    failing, growing = begin(store, 1, seed=1), begin(other, 0)
    for epoch in (1, 2, 3):
        report(growing, [epoch])
        for mirror in mirrors:
            mirror.mirror_once()
    end(failing, "failed", cause="diverged")
    end(growing)
    finish(store, 2)
    for mirror in mirrors:
        mirror.mirror_once()

    done = tracking.sync(store, f"sqlite:///{tmp_path}/other.db")

    assert set(done) == {SWEEP, "other-sweep"}
    for sweep in done:
        assert everything(f"sqlite:///{tmp_path}/other.db", sweep) == everything(uri, sweep)


def test_each_tracking_address_has_its_own_account(store, uri, tmp_path):
    finish(store, 0)
    second = f"sqlite:///{tmp_path}/other.db"

    tracking.Mirror(store, SWEEP, uri).mirror_once()
    tracking.Mirror(store, SWEEP, second).mirror_once()

    account = json.loads((store.sweep(SWEEP).path / "tracking.json").read_text())
    assert set(account["tracking"]) == {uri, second}
    assert everything(uri) == everything(second)


def test_a_database_that_was_made_anew_is_filled_again(store, uri, tmp_path):
    finish(store, 0)
    tracking.Mirror(store, SWEEP, uri).mirror_once()
    account = store.sweep(SWEEP).path / "tracking.json"
    second = f"sqlite:///{tmp_path}/other.db"
    account.write_text(account.read_text().replace(uri, second))  # as if `second` had lost what was sent to it

    tracking.Mirror(store, SWEEP, second).mirror_once()

    assert everything(second) == everything(uri)


def test_a_profile_is_an_experiment_of_its_own(store, uri):
    submit(store.root, "grid-sweep@smoke", profile="smoke")
    finish(store, 0)

    tracking.sync(store, uri)

    assert set(runs_of(uri, "grid-sweep@smoke")) == {"grid-sweep@smoke", "grid=2, seed 0"}
    assert (store.root / "mlflow-artifacts" / "grid-sweep@smoke").is_dir()


def test_nothing_is_printed(store, uri, capfd):
    finish(store, 0)

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert capfd.readouterr() == ("", "")


def test_links_need_a_mirrored_sweep_and_then_no_mlflow(store, uri):
    finish(store, 0)
    with pytest.raises(InvalidInput, match="ablatrix sync"):
        tracking.sweep_links(store, SWEEP, uri, "http://127.0.0.1:5000")

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    links = tracking.sweep_links(store, SWEEP, uri, "http://127.0.0.1:5000")
    assert runs_of(uri)["grid=2, seed 0"].info.run_id in links["compare"]
    assert runs_of(uri)[SWEEP].info.run_id in links["sweep"]


def test_the_loop_outlives_every_failure_and_catches_up(store, uri, monkeypatch):
    finish(store, 0)
    answers = [RuntimeError("a mistake"), Unreachable("MLflow does not answer"), None]
    connected = mirror_module.connect

    def connect_sometimes(address):
        answer = answers.pop(0) if answers else None
        if answer:
            raise answer
        return connected(address)

    monkeypatch.setattr(mirror_module, "connect", connect_sometimes)
    mirror, stop, errors = tracking.Mirror(store, SWEEP, uri), threading.Event(), set()
    thread = threading.Thread(target=mirror.run_until, args=(stop, 0.02))
    thread.start()
    deadline = time.monotonic() + 20
    while mirror.last_progress is None and time.monotonic() < deadline:
        errors.add(mirror.last_error)
        time.sleep(0.001)
    finish(store, 2)
    stop.set()
    thread.join(20)

    assert {"the mirror failed with RuntimeError: a mistake", "MLflow does not answer"} <= errors
    assert mirror.last_error is None
    assert set(runs_of(uri)) == {SWEEP, "grid=2, seed 0", "grid=4, seed 0"}


def test_the_loop_ends_in_bounded_time_when_another_process_holds_the_sweep(store, uri):
    finish(store, 0)
    holder, mirror = tracking.Mirror(store, SWEEP, uri), tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()
    stop = threading.Event()
    stop.set()

    with holder._only_writer(0.0):
        began = time.monotonic()
        mirror.run_until(stop, 0.02, final_s=0.3)

    assert time.monotonic() - began < 5.0
    assert mirror.last_error is not None
    assert "another process mirrors" in mirror.last_error


def test_a_pass_that_has_no_more_time_stops_between_trials_and_says_so(store, uri):
    for number in range(4):
        finish(store, number, seed=number % 2)
    mirror = tracking.Mirror(store, SWEEP, uri)
    turns = iter([True, True, False])

    cut = mirror._pass(lambda: next(turns), 1.0)
    rest = mirror.mirror_once()

    assert (cut.complete, cut.mirrored, rest.complete, rest.mirrored) == (False, 1, True, 4)


def test_two_writers_of_one_sweep_refuse_to_meet(store, uri, monkeypatch):
    monkeypatch.setattr(mirror_module, "LOCK_S", 0.1)
    mirror = tracking.Mirror(store, SWEEP, uri)

    with mirror._only_writer(0.0), pytest.raises(Refused, match="another process mirrors the sweep 'grid-sweep'"):
        tracking.Mirror(store, SWEEP, uri).mirror_once()
