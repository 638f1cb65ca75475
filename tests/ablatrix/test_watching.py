"""`status --watch` follows what runs, and ends when nothing does."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from ablatrix import lease as leases
from ablatrix.cli import watching
from ablatrix.job import Job, write_job
from ablatrix.lease import lease
from ablatrix.store import Store
from stored_sweep import SWEEP, begin, end, finish, submit, trial_id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return submit(tmp_path / "runs")


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What happens between looks, one after the other; a look too many fails."""
    waiting: list[Any] = []

    def sleep(seconds: float) -> None:
        assert seconds >= watching.LOOK_S
        assert waiting, "it would watch for ever"
        waiting.pop(0)()

    monkeypatch.setattr("ablatrix.cli.watching.time.sleep", sleep)
    return waiting


def test_a_sweep_that_nothing_runs_is_not_watched_for_ever(store: Store, sleeps: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    finish(store, 0)
    watching.watch(store, store.sweep(SWEEP))

    assert "Nothing runs grid-sweep now, and 3 trials are not finished. `ablatrix run grid.yaml` goes on." in capsys.readouterr().err


def test_a_sweep_is_watched_while_its_run_lives_even_where_every_trial_has_failed_for_now(store: Store, sleeps: list[Any]) -> None:
    for number in range(4):
        end(begin(store, number), "failed", cause="killed", message="by SIGKILL")
    held = lease(store.sweep(SWEEP).claims)
    held.__enter__()
    sleeps += [lambda: None, lambda: held.__exit__(None, None, None)]
    watching.watch(store, store.sweep(SWEEP))

    assert not sleeps
    assert not leases.is_held(store.sweep(SWEEP).claims)


def test_a_trial_that_another_sweep_runs_is_watched_to_its_end(store: Store, sleeps: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1, 2):
        finish(store, number, seed=number % 2)
    status = begin(store, 3).status()
    assert status is not None
    store.trial(trial_id(3)).write_status(dataclasses.replace(status, updated=time.time()))
    sleeps += [lambda: end(store.trial(trial_id(3)))]
    watching.watch(store, store.sweep(SWEEP))

    assert not sleeps
    assert "Nothing runs" not in capsys.readouterr().err


def test_a_job_that_waits_for_its_cluster_is_waited_for(store: Store, sleeps: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    write_job(store.sweep(SWEEP), Job("x-1", SWEEP, "http://127.0.0.1:1", "ablatrix submit", 1.0))
    states = ["PENDING", "PENDING", "FAILED"]
    monkeypatch.setattr(watching, "job_state", lambda job: states.pop(0))
    monkeypatch.setattr(watching, "JOB_LOOK_S", 0.0)
    sleeps += [lambda: None, lambda: None]
    watching.watch(store, store.sweep(SWEEP))

    assert not states
    assert not sleeps
