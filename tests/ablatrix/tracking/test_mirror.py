"""A sweep's trials in a real SQLite MLflow: complete, idempotent, each point once."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from ablatrix import tracking
from ablatrix.records import Report, encode_report
from stored_sweep import ENVIRONMENT, START, SWEEP, begin, end, finish, keep_lines, plan, report, trial_id, use
from tracked_runs import epochs, everything, files, history, runs_of

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated:DeprecationWarning")


def test_a_finished_trial_stands_in_mlflow_with_everything_that_the_store_knows(store, uri):
    trial = finish(store, 1, seed=1)
    trial.write_environment(dataclasses.replace(ENVIRONMENT, gpus=["H200", "H200"]))

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    parent, run = runs_of(uri)[SWEEP], runs_of(uri)["grid=2, seed 1"]
    tags = {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.source")}
    assert tags == {
        "ablatrix.kind": "trial", "ablatrix.trial": trial_id(1), "ablatrix.sweep": SWEEP, "ablatrix.cell": "grid=2", "axis.grid": "2",
        "seed": "1", "state": "finished", "attempt": "1", "host": "node-1", "device": "cpu", "cpu": "8 x Fast CPU", "gpu": "H200, H200",
        "version.python": "3.11", "version.torch": "2.15", "commit": "def5678", "dirty": "true",
        "command": "ablatrix run grid.yaml",
        "mlflow.runName": "grid=2, seed 1", "mlflow.parentRunId": parent.info.run_id,
    }  # fmt: skip
    assert run.data.tags["mlflow.source.name"] == "ablatrix run grid.yaml"
    assert run.data.params == {
        "mask.grid": "2", "mask.kind": "random", "mixing": "null", "sizes": "[32, 64]", "seed": "1", "data.name": "cifar100",
        "data.path": "null", "data.image_size": "32", "data.train_images": "5000",
    }  # fmt: skip
    assert history(uri, run, "knn.top1") == [(e, int(1000 * (START + 60 * e)), 51.0 + e) for e in (1, 2, 3)]
    assert history(uri, run, "final.knn.top1") == [(3, int(1000 * (START + 180)), 54.0)]
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", int(1000 * (START + 1)), int(1000 * (START + 185)))


def test_a_trials_dataset_is_an_input_with_its_digest_once(store, uri):
    finish(store, 0)
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()
    (store.sweep(SWEEP).path / "tracking.json").unlink()
    mirror.mirror_once()

    (found,) = runs_of(uri)["grid=2, seed 0"].inputs.dataset_inputs

    assert (found.dataset.name, found.dataset.digest, found.dataset.source) == ("cifar100", "data-1", '{"uri": "cifar100"}')
    assert json.loads(found.dataset.profile) == {"image_size": 32, "train_images": 5000}
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training"}


def test_a_trials_use_of_its_machine_is_on_mlflows_own_page_at_seconds_of_work(store, uri):
    trial = begin(store, 0)
    use(trial, [5.1, 10.2])
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()
    with trial.usage_file.open("a") as file:
        file.write('{"seconds": 15, "val')  # the attempt is killed; the next one goes on from its last heartbeat
    (trial.usage_file).write_text(trial.usage_file.read_text() + "\n")
    use(trial, [10.4, 15.6])
    mirror.mirror_once()

    assert history(uri, runs_of(uri)["grid=2, seed 0"], "system/memory_mb") == [
        (5, int(1000 * (START + 5.1)), 705.1), (10, int(1000 * (START + 10.2)), 710.2), (15, int(1000 * (START + 15.6)), 715.6),
    ]  # fmt: skip


def test_a_trial_that_ran_before_environments_were_written_down_has_the_plans_commit(store, uri):
    finish(store, 0)

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    tags = runs_of(uri)["grid=2, seed 0"].data.tags
    assert (tags["commit"], tags["dirty"], tags["version.torch"]) == ("abc1234", "false", "2.15")


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

    assert epochs(uri) == [1, 2, 3, 4]


def test_lines_that_were_not_cut_back_before_a_resume_count_once(store, uri):
    trial = begin(store, 0)
    report(trial, [1, 2, 3])
    report(trial, [2, 3, 4], late_s=1000.0)

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert epochs(uri) == [1, 2, 3, 4]


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
    assert epochs(uri) == [1, 2, 3, 4]
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

    tags = runs_of(uri)["grid=2, grid=4"].data.tags
    assert (tags["ablatrix.cell"], tags["axis.grid"]) == ("grid=2; grid=4", "2; 4")


def test_a_damaged_trial_is_named_and_the_others_go_on(store, uri):
    finish(store, 0)
    damaged = finish(store, 1, seed=1)
    (damaged.path / "status.json").write_text("{half a")
    finish(store, 2)

    progress = tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert [problem.split(":")[0] for problem in progress.problems] == [f"trial {trial_id(1)} (grid=2, seed 1)"]
    assert set(runs_of(uri)) == {SWEEP, "grid=2, seed 0", "grid=4, seed 0"}


def test_nothing_is_printed(store, uri, capfd):
    finish(store, 0)

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    assert capfd.readouterr() == ("", "")


def test_a_trials_pictures_lie_beside_its_run_and_are_sent_again_only_when_they_changed(store, uri, monkeypatch):
    trial = finish(store, 0)
    trial.pictures.mkdir()
    for name in ("loss.png", "views.png", ".loss.png.half"):
        (trial.pictures / name).write_bytes(b"one")
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()
    uploads: list[str] = []
    assert mirror._experiment is not None
    monkeypatch.setattr(mirror._experiment, "upload", lambda run, path, folder: uploads.append(f"{folder}/{path.name}"))

    (trial.pictures / "loss.png").write_bytes(b"another")
    mirror.mirror_once()
    mirror.mirror_once()

    assert files(uri, runs_of(uri)["grid=2, seed 0"]) == ["pictures/loss.png", "pictures/views.png"]
    assert uploads == ["pictures/loss.png"]
