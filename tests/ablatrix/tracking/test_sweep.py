"""The sweep as a whole in MLflow: its own run, its experiment, and rebuilding all of it from the store."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path

import pytest

from ablatrix import tracking
from ablatrix.errors import InvalidInput
from ablatrix.records import Report, encode_report
from stored_sweep import START, SWEEP, begin, end, finish, plan, report, submit
from tracked_runs import client_of, everything, experiment_id, files, history, runs_of

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated:DeprecationWarning")


def test_the_sweeps_run_ends_with_its_last_trial(store, uri):
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.mirror_once()
    empty = runs_of(uri)[SWEEP].info.status
    for number in range(4):
        finish(store, number, seed=number % 2)
    mirror.mirror_once()

    assert empty == "RUNNING"
    assert (runs_of(uri)[SWEEP].info.status, runs_of(uri)[SWEEP].info.end_time) == ("FINISHED", int(1000 * (START + 185)))


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
    client_of(uri).delete_experiment(experiment_id(uri))

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

    assert files(uri, runs_of(uri)[SWEEP]) == ["plan.json", "report/figures/a.svg", "report/report.md", "sweep.yaml"]
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


def test_rebuilding_from_the_store_alone_equals_the_live_mirror(store, uri, other_uri):
    other = submit(store.root, "other-sweep", sweep="other-sweep", grids=["8"])
    mirrors = [tracking.Mirror(store, name, uri) for name in (SWEEP, "other-sweep")]
    other.sweep("other-sweep").report.mkdir()
    failing, growing = begin(store, 1, seed=1), begin(other, 0)
    for epoch in (1, 2, 3):
        report(growing, [epoch])
        (other.sweep("other-sweep").report / "report.csv").write_text(f"epochs {epoch}")
        for mirror in mirrors:
            mirror.mirror_once()
    end(failing, "failed", cause="diverged")
    end(growing)
    finish(store, 2)
    for mirror in mirrors:
        mirror.mirror_once()

    done = tracking.sync(store, other_uri)

    assert set(done) == {SWEEP, "other-sweep"}
    for sweep in done:
        assert everything(other_uri, sweep) == everything(uri, sweep)


def test_each_tracking_address_has_its_own_account(store, uri, other_uri):
    finish(store, 0)

    tracking.Mirror(store, SWEEP, uri).mirror_once()
    tracking.Mirror(store, SWEEP, other_uri).mirror_once()

    account = json.loads((store.sweep(SWEEP).path / "tracking.json").read_text())
    assert set(account["tracking"]) == {uri, other_uri}
    assert everything(uri) == everything(other_uri)


def test_a_database_that_was_made_anew_is_filled_again(store, uri, other_uri):
    finish(store, 0)
    tracking.Mirror(store, SWEEP, uri).mirror_once()
    account = store.sweep(SWEEP).path / "tracking.json"
    account.write_text(account.read_text().replace(uri, other_uri))  # as if the other had lost what was sent to it

    tracking.Mirror(store, SWEEP, other_uri).mirror_once()

    assert everything(other_uri) == everything(uri)


def test_a_profile_is_an_experiment_of_its_own(store, uri):
    submit(store.root, "grid-sweep@smoke", profile="smoke")
    finish(store, 0)

    tracking.sync(store, uri)

    assert set(runs_of(uri, "grid-sweep@smoke")) == {"grid-sweep@smoke", "grid=2, seed 0"}
    assert (store.root / "mlflow-artifacts" / "grid-sweep@smoke").is_dir()


def test_links_lead_to_the_runs_of_a_mirrored_sweep_and_stand_in_its_report(store, uri):
    from ablatrix_reports.write import write_report

    finish(store, 0)
    assert tracking.known_links(store, SWEEP) == {}
    with pytest.raises(InvalidInput, match="ablatrix sync"):
        tracking.sweep_links(store, SWEEP, uri, "http://127.0.0.1:5000")

    tracking.Mirror(store, SWEEP, uri).mirror_once()

    links = tracking.sweep_links(store, SWEEP, uri, "http://127.0.0.1:5000")
    assert runs_of(uri)["grid=2, seed 0"].info.run_id in links["compare"]
    assert runs_of(uri)[SWEEP].info.run_id in links["sweep"]
    known = tracking.known_links(store, SWEEP)
    assert known == tracking.sweep_links(store, SWEEP, uri, known["sweep"].partition("/#")[0])
    assert known["runs"].startswith("http://127.0.0.1:2")
    page = (write_report(store, SWEEP) / "report.html").read_text()
    assert all(f'href="{html.escape(known[name])}"' in page for name in ("runs", "charts", "compare", "curves"))


def test_a_document_of_several_sweeps_links_to_each_of_them(store, uri):
    from ablatrix_reports.write import write_combined

    finish(store, 0)
    submit(store.root, "other-sweep", sweep="other-sweep")
    for sweep in (SWEEP, "other-sweep"):
        tracking.Mirror(store, sweep, uri).mirror_once()
    page = (write_combined(store, [SWEEP, "other-sweep"]) / "report.html").read_text()
    known = [tracking.known_links(store, sweep) for sweep in (SWEEP, "other-sweep")]

    assert known[0]["runs"] != known[1]["runs"]
    assert all(page.count(f'href="{html.escape(links[name])}"') == 1 for links in known for name in ("runs", "charts", "compare", "curves"))


def test_names_that_look_like_paths_stay_names_in_store_report_and_mlflow(tmp_path, store, uri):
    from ablatrix_reports.write import write_report

    hostile = ["../../escaped", "/tmp/escaped"]
    store.sweep(SWEEP).submit("sweep: x\n", plan(grids=hostile))
    for number in range(4):
        trial = finish(store, number, seed=number % 2)
        with trial.metrics_file.open("a") as file:
            file.write(encode_report(Report(4, 4, START, {"../../escaped": 1.0})))
    write_report(store, SWEEP)
    mirror = tracking.Mirror(store, SWEEP, uri)
    mirror.cell_means(dict.fromkeys(hostile, 1.0))
    mirror.mirror_once()

    assert mirror.last_error is None
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "mlflow.db", "mlflow.db.lock"}
    assert [path for path in (*tmp_path.parent.glob("escaped*"), *tmp_path.rglob("escaped*"), Path("/tmp/escaped")) if path.exists()] == []
