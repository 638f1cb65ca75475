"""The mirror beside a running sweep: it never raises, never waits for ever, and never meets another writer."""

from __future__ import annotations

import threading
import time

import pytest

from ablatrix import tracking
from ablatrix.errors import Refused, Unreachable
from ablatrix.tracking import mirror as mirror_module
from stored_sweep import SWEEP, finish
from tracked_runs import runs_of

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated:DeprecationWarning")


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
