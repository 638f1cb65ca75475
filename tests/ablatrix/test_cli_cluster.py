"""The verbs of sweeps that run elsewhere, up to where a cluster would be needed."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from ablatrix.board import read_board
from ablatrix.cli import main
from ablatrix.cli.submitting import stage
from ablatrix.job import Job, write_job
from ablatrix.lease import lease
from ablatrix.occupancy import Occupancy, write_occupancy
from ablatrix.records import write_atomically
from ablatrix.store import Store
from stored_sweep import SWEEP, begin, end, finish, submit, trial_id
from tiny_sweep import write_sweep


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return submit(tmp_path / "runs")


def states(store: Store) -> list[str]:
    return [trial.state for cell in read_board(store, store.sweep(SWEEP)).cells for trial in cell.trials]


def test_retry_frees_failed_trials_of_a_sweep_and_drops_the_checkpoint_of_what_diverged(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(store, 0)
    end(begin(store, 1), "failed", cause="diverged", message="too fast")
    end(begin(store, 2), "failed", cause="error", message="KeyError")
    for number in (1, 2):
        write_atomically(store.trial(trial_id(number)).checkpoint / "state.pt", "x")
    code = exit_code("retry", SWEEP, "--store", str(store.root))
    said = capsys.readouterr()

    assert code == 0
    assert said.out.split() == [trial_id(1), trial_id(2)]
    assert "does not run; `ablatrix run grid.yaml` takes them up" in said.err
    assert states(store) == ["finished", "stopped", "stopped", "waiting"]
    assert not store.trial(trial_id(1)).checkpoint.exists()
    assert store.trial(trial_id(2)).checkpoint.exists()


def test_retry_frees_one_trial_by_its_first_digits_and_leaves_the_others(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        end(begin(store, number), "failed", cause="diverged", message="too fast")
    with lease(store.sweep(SWEEP).claims):
        code = exit_code("retry", trial_id(2), "--store", str(store.root))

    assert code == 0
    assert "runs, and takes them up" in capsys.readouterr().err
    assert states(store)[1:3] == ["failed", "stopped"]


def test_retry_of_what_did_not_fail_says_so(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    finish(store, 0)

    assert exit_code("retry", SWEEP, "--store", str(store.root)) == 2
    assert "no trial of grid-sweep has failed" in capsys.readouterr().err


def test_stop_reaches_a_sweep_that_runs_on_another_host(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = store.sweep(SWEEP)
    sweep.claims.mkdir(parents=True)
    claim = {"host": "node-9", "machine": "other", "pid": 1, "born": 0.0, "run": "", "released": False}
    (sweep.claims / "000001.json").write_text(json.dumps(claim))
    code = exit_code("stop", SWEEP, "--store", str(store.root))

    assert code == 0
    assert sweep.stop_file.exists()


def test_stop_of_a_job_whose_cluster_is_gone_says_that_nothing_runs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    write_job(store.sweep(SWEEP), Job("x-1", SWEEP, "http://127.0.0.1:1", "ablatrix submit", 1.0))

    assert exit_code("stop", SWEEP, "--store", str(store.root)) == 2
    assert "is not running in this store" in capsys.readouterr().err


def test_logs_of_a_sweep_are_what_its_jobs_printed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = exit_code("logs", SWEEP, "--store", str(store.root))
    store.sweep(SWEEP).log.write_text("4 trials to run\n")
    code = exit_code("logs", SWEEP, "--store", str(store.root))

    assert (nothing, code) == (2, 0)
    assert capsys.readouterr().out == "4 trials to run\n"


def test_submit_without_a_cluster_is_unreachable_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = exit_code("submit", str(write_sweep(tmp_path)), "--store", str(tmp_path / "runs"), "--address", "http://127.0.0.1:1")

    assert code == 6
    assert "no Ray dashboard answers at http://127.0.0.1:1" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_submit_of_a_bad_file_says_its_problems_before_any_cluster_is_asked(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    path.write_text(path.read_text().replace("mask.grid", "mask.gird"))

    assert exit_code("submit", str(path), "--store", str(tmp_path / "runs"), "--address", "http://127.0.0.1:1") == 2


def test_run_on_an_address_without_a_token_is_refused_and_on_a_dead_one_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ablatrix.cluster import connected
    from ablatrix.errors import Refused, Unreachable

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(Refused, match="without token authentication"), connected("192.0.2.1:6379", 1):
        pytest.fail("connected")
    with pytest.raises(Unreachable, match=r"no Ray head answers at 127\.0\.0\.1:1"), connected("127.0.0.1:1", 1):
        pytest.fail("connected")
    with pytest.raises(Refused, match="is no HOST:PORT"), connected("somewhere", 1):
        pytest.fail("connected")


def test_a_sweep_goes_with_the_recipes_beside_it_and_nothing_else(tmp_path: Path) -> None:
    sweep, place = write_sweep(tmp_path), tmp_path / "sent"
    (tmp_path / "tiny.yaml").write_text("extends: parts/base.yaml\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "base.yaml").write_text("mixing: none\n")
    (tmp_path / "unrelated.yaml").write_text("x: 1\n")
    place.mkdir()
    name = stage(sweep, place)

    assert name == "sweep.yaml"
    assert sorted(p.relative_to(place).as_posix() for p in place.rglob("*.yaml")) == ["parts/base.yaml", "sweep.yaml", "tiny.yaml"]


def test_the_board_tells_rate_time_left_and_host_of_what_runs(store: Store) -> None:
    running = begin(store, 1, attempt=3)
    status = running.status()
    assert status is not None
    running.write_status(dataclasses.replace(status, epoch=4, epochs=12, seconds=8.0, updated=time.time()))
    trial = read_board(store, store.sweep(SWEEP)).cells[0].trials[1]

    assert (trial.rate, trial.eta_s, trial.host, trial.attempt) == (0.5, 16.0, "node-1", 3)


def test_the_board_tells_what_the_cluster_has_while_a_run_lives(store: Store) -> None:
    sweep = store.sweep(SWEEP)
    write_occupancy(sweep, Occupancy(time.time(), 2, {"CPU": 4.0, "memory": 16e9}, {"CPU": 3.0, "memory": 0.0}, "http://127.0.0.1:8265"))
    before = read_board(store, sweep).cluster
    with lease(sweep.claims):
        during = read_board(store, sweep).cluster

    assert before is None
    assert str(during) == "2 nodes: 3 of 4 CPU, 0 GB of 16 GB memory"


def test_the_board_says_why_no_trial_starts(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, short = store.sweep(SWEEP), "a trial asks for GPU 1, and the nodes have: CPU 4"
    with lease(sweep.claims):
        write_occupancy(sweep, Occupancy(time.time(), 1, {"CPU": 4.0}, {"CPU": 0.0}))
        before = exit_code("status", SWEEP, "--store", str(store.root)), capsys.readouterr().out
        write_occupancy(sweep, Occupancy(time.time(), 1, {"CPU": 4.0}, {"CPU": 0.0}, shortage=short))
        after = exit_code("status", SWEEP, "--store", str(store.root)), capsys.readouterr().out

    assert (before[0], after[0]) == (0, 0)
    assert "no trial can start" not in before[1]
    assert f"no trial can start now: {short}" in " ".join(after[1].split())
