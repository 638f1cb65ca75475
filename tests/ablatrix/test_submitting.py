"""What a job is sent, with the cluster's part played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablatrix.cli import main, submitting
from ablatrix.cli.options import overrides
from ablatrix.cli.running import keep_plan
from ablatrix.cli.stored import command_of
from ablatrix.cli.submitting import stage
from ablatrix.errors import Unreachable
from ablatrix.plan import sweep_name
from ablatrix.store import Store
from tiny_sweep import SWEEP, make_plan, write_sweep

SECRET = "postgresql+psycopg://ann:hunter2@db/mlflow"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Every job that the cluster was given."""
    jobs: list[dict[str, Any]] = []

    def submit_job(job: Any, entrypoint: str, directory: Path, environment: dict[str, str]) -> None:
        jobs.append(
            {"job": job, "entrypoint": entrypoint, "environment": environment, "files": sorted(p.name for p in directory.iterdir())}
        )

    monkeypatch.setattr(submitting, "check_server", lambda server: None)
    monkeypatch.setattr("ablatrix.cluster.submit_job", submit_job)
    monkeypatch.chdir(tmp_path)
    for name in submitting.PASSED_ON:
        monkeypatch.delenv(name, raising=False)
    return jobs


def submit(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["submit", *arguments])
    return int(ended.value.code or 0)


def test_passwords_travel_in_the_environment_and_stand_on_no_command_line_and_in_no_file(
    tmp_path: Path, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    file, store = str(write_sweep(tmp_path)), tmp_path / "runs"
    monkeypatch.setattr("sys.argv", ["ablatrix", "submit", file, "--tracking-uri", SECRET])
    code = submit(file, "--store", str(store), "--tracking-uri", SECRET, "--address", "http://ann:hunter2@127.0.0.1:8265")
    said = capsys.readouterr()

    assert code == 0
    assert sent[0]["environment"] == {
        "ABLATRIX_COMMAND": sent[0]["job"].command,
        "MLFLOW_TRACKING_URI": SECRET, "MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "hunter2",
    }  # fmt: skip
    assert "hunter2" not in sent[0]["entrypoint"] + said.out + said.err
    written = [path.read_text() for path in store.rglob("*") if path.is_file()]
    assert written
    assert not [text for text in written if "hunter2" in text]


def test_a_job_has_the_set_and_the_profile_of_its_sweep_and_its_name_in_the_store(tmp_path: Path, sent: list[dict[str, Any]]) -> None:
    file = str(write_sweep(tmp_path, SWEEP + "profiles: {smoke: {seeds: 1}}\n"))
    code = submit(file, "--profile", "smoke", "--set", "mixing=none", "--store", "runs", "--max-failures", "2")
    name = sweep_name("tiny", "smoke", overrides(["mixing=none"]))
    plan = Store(tmp_path / "runs").sweep(name).plan()

    assert code == 0
    assert "--max-failures 2 --profile smoke --set mixing=none" in sent[0]["entrypoint"]
    assert f"tee -a {tmp_path / 'runs' / 'sweeps' / name / 'log.txt'}" in sent[0]["entrypoint"]
    assert (sent[0]["job"].sweep, plan["set"]) == (name, {"mixing": "none"})
    assert "@" not in sent[0]["job"].id
    assert "+" not in sent[0]["job"].id


def test_a_job_that_the_cluster_does_not_take_leaves_no_plan_that_would_wait(
    tmp_path: Path, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Unreachable("the cluster did not take the job")

    monkeypatch.setattr("ablatrix.cluster.submit_job", refuse)
    code = submit(str(write_sweep(tmp_path)), "--store", "runs")

    assert code == 6
    assert Store(tmp_path / "runs").sweeps() == []


def test_a_sweep_that_is_a_link_is_sent_under_the_name_that_the_job_reads(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    (tmp_path / "current.yaml").symlink_to(tmp_path / "sweep.yaml")
    (tmp_path / "sent").mkdir()
    name = stage(tmp_path / "current.yaml", tmp_path / "sent")

    assert (tmp_path / "sent" / name).read_text() == SWEEP


def test_a_record_of_a_job_names_no_password(tmp_path: Path, sent: list[dict[str, Any]]) -> None:
    submit(str(write_sweep(tmp_path)), "--store", "runs", "--address", "http://ann:hunter2@head:8265")

    assert json.loads((tmp_path / "runs" / "sweeps" / "tiny" / "job.json").read_text())["server"] == "http://head:8265"


def test_of_two_that_submit_a_sweep_at_the_same_time_one_sends_a_job(
    tmp_path: Path, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, codes = str(write_sweep(tmp_path)), list[int]()

    def submit_job(*_: Any) -> None:
        if not codes:
            codes.append(-1)
            codes.append(submit(file, "--store", "runs"))

    monkeypatch.setattr("ablatrix.cluster.submit_job", submit_job)
    first = submit(file, "--store", "runs")

    assert (first, codes[1:]) == (0, [5])
    assert "already being submitted" in capsys.readouterr().err


def test_a_sweep_that_a_job_runs_is_gone_on_with_by_the_command_that_submitted_it(
    tmp_path: Path, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(write_sweep(tmp_path))
    monkeypatch.setattr("sys.argv", ["ablatrix", "submit", file, "--store", "runs"])
    submit(file, "--store", "runs")
    for name, value in sent[0]["environment"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["ablatrix", "run", "sweep.yaml", "--store", "runs", "--address", "auto"])
    store, sweep = Store(tmp_path / "runs"), Store(tmp_path / "runs").sweep("tiny")
    keep_plan(make_plan(tmp_path), store, sweep)

    assert command_of(sweep) == f"ablatrix submit {file} --store runs"
