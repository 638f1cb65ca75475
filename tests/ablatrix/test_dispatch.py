"""The retry rules and the order of trials, without Ray: a trial's end is written by hand, as its process would write it."""

from __future__ import annotations

import dataclasses
import errno
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from ablatrix.attempt import SUPERSEDED
from ablatrix.dispatch import GRACE_S, RETRIED, STUCK, Dispatch, Listed, Outcome, Verdict, verdict
from ablatrix.errors import InvalidInput
from ablatrix.lease import lease
from ablatrix.store import Store
from ablatrix.trial import BUSY, FAILED, FINISHED, STOPPED
from stored_sweep import SWEEP, begin, end, finish, submit, trial_id

TRIALS = [trial_id(i) for i in range(4)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return submit(tmp_path)


def dispatch(store: Store, trials: Iterable[str] = TRIALS, breaker: int | None = None) -> Dispatch:
    return Dispatch(store, store.sweep(SWEEP), Listed(trials), breaker)


def drain(given: Dispatch) -> list[str]:
    """Every trial that is given out while none ends."""
    found = []
    while (trial := given.next()) is not None:
        found.append(trial)
    return found


def fail(store: Store, given: Dispatch, trial: str, cause: str, epoch: int = 0) -> None:
    """The trial ran and failed, and its process wrote why."""
    before = store.trial(trial).status()
    attempt = 1 + (before.attempt if before else 0)
    end(begin(store, int(trial, 16), attempt=attempt), "failed", cause=cause, epoch=epoch)
    given.ended(trial, FAILED)


def lose(store: Store, given: Dispatch, trial: str, epoch: int) -> None:
    """The trial's worker was killed with all that it had."""
    begun = begin(store, int(trial, 16))
    status = begun.status()
    assert status is not None
    begun.write_status(dataclasses.replace(status, epoch=epoch))
    given.ended(trial, None)


def test_trials_are_given_in_the_order_of_the_plan_and_finished_ones_are_left_out(store: Store) -> None:
    finish(store, 1)
    given = dispatch(store)

    assert drain(given) == [TRIALS[0], TRIALS[2], TRIALS[3]]
    assert not given.over


def test_it_is_over_when_every_trial_has_finished(store: Store) -> None:
    given = dispatch(store)
    for trial in drain(given):
        finish(store, int(trial, 16))
        given.ended(trial, FINISHED)

    assert given.over
    assert given.settled == 4


@pytest.mark.parametrize(
    ("cause", "first", "second"),
    [
        ("lost", Verdict.AGAIN, Verdict.AGAIN), ("killed", Verdict.AGAIN, Verdict.AGAIN),
        ("out of memory", Verdict.LARGER, Verdict.GIVE_UP), ("diverged", Verdict.GIVE_UP, Verdict.GIVE_UP),
        ("error", Verdict.AGAIN, Verdict.GIVE_UP), ("disk full", Verdict.AGAIN, Verdict.GIVE_UP),
    ],
)  # fmt: skip
def test_the_cause_decides_whether_a_trial_runs_again(cause: str, first: Verdict, second: Verdict) -> None:
    assert verdict(cause, {}) is first
    assert verdict(cause, {cause: 1}) is second


def test_a_trial_that_was_stopped_early_by_a_worker_that_could_not_say_so_is_written_down(store: Store) -> None:
    given = dispatch(store, TRIALS[:1])
    given.next()
    begin(store, 0)
    given.ended(TRIALS[0], None, pruned=True)
    status = store.trial(TRIALS[0]).status()
    assert status is not None

    assert (status.state, status.cause) == ("stopped", "pruned")
    assert given.over


def test_an_attempt_that_was_killed_before_its_first_word_is_not_judged_by_the_one_before(store: Store) -> None:
    given = dispatch(store, TRIALS[:1])
    given.next()
    fail(store, given, TRIALS[0], "error")
    assert given.next() == TRIALS[0]
    given.ended(TRIALS[0], -9)

    assert given.next() == TRIALS[0]


def test_a_lost_worker_costs_nothing_however_often_as_long_as_the_trial_gets_further(store: Store) -> None:
    given = dispatch(store, TRIALS[:1])
    for epoch in range(3 * STUCK):
        assert given.next() == TRIALS[0]
        lose(store, given, TRIALS[0], epoch + 1)

    assert given.next() == TRIALS[0]


def test_a_trial_that_is_lost_again_and_again_at_one_epoch_is_given_up_and_says_so(store: Store) -> None:
    given = dispatch(store, TRIALS[:1])
    times = 0
    while given.next() == TRIALS[0]:
        lose(store, given, TRIALS[0], epoch=3)
        times += 1
    status = store.trial(TRIALS[0]).status()
    assert status is not None

    assert times == STUCK
    assert given.over
    assert (status.state, status.cause) == ("failed", "lost")
    assert "got no further than epoch 3" in (status.message or "")


def test_out_of_memory_gets_one_more_try_with_a_larger_share(store: Store) -> None:
    given = dispatch(store, TRIALS[:1])
    shares = []
    while (trial := given.next()) is not None:
        shares.append(given.share(trial))
        fail(store, given, trial, "out of memory")

    assert shares == [1.0, 2.0]


def test_a_diverged_trial_is_not_run_again_neither_now_nor_by_the_next_run(store: Store) -> None:
    first = dispatch(store, TRIALS[:1])
    trial = first.next()
    assert trial is not None
    fail(store, first, trial, "diverged")

    assert first.over
    assert dispatch(store, TRIALS[:1]).next() is None


def test_a_failed_trial_waits_behind_nothing_and_a_second_failure_ends_it(store: Store) -> None:
    given = dispatch(store, TRIALS[:2])
    first = given.next()
    assert first is not None
    fail(store, given, first, "error")

    assert given.next() == first
    fail(store, given, first, "error")
    assert drain(given) == [TRIALS[1]]


def test_the_next_run_tries_a_trial_that_failed_of_something_else(store: Store) -> None:
    end(begin(store, 0), "failed", cause="error")

    assert dispatch(store, TRIALS[:1]).next() == TRIALS[0]


def test_a_failure_that_could_not_be_written_down_is_written_by_the_run(store: Store) -> None:
    given = dispatch(store, TRIALS[:1])
    for _ in range(2):
        assert given.next() == TRIALS[0]
        begin(store, 0)
        given.ended(TRIALS[0], FAILED)
    status = store.trial(TRIALS[0]).status()
    assert status is not None

    assert (status.state, status.cause) == ("failed", "unrecorded")


def test_five_failures_of_one_cause_stop_the_sweep_and_say_so(store: Store) -> None:
    many = [trial_id(i) for i in range(20)]
    given = dispatch(store, many)
    while (trial := given.next()) is not None:
        fail(store, given, trial, "data")

    assert given.tripped is not None
    assert "5 trials failed of one cause (data)" in given.tripped
    assert given.settled == 5
    assert given.tripped in store.sweep(SWEEP).stop_file.read_text()
    assert given.over


def test_divergence_stops_a_sweep_only_where_all_diverge_unless_a_limit_is_given(store: Store) -> None:
    many = [trial_id(i) for i in range(20)]
    finish(store, 0)
    lenient, strict = dispatch(store, many), dispatch(store, many, breaker=3)
    for given in (lenient, strict):
        while (trial := given.next()) is not None:
            fail(store, given, trial, "diverged")

    assert lenient.tripped is None
    assert lenient.settled == 20
    assert strict.tripped is not None


def test_a_trial_that_another_run_has_is_left_to_it_and_counts_when_it_is_finished(store: Store) -> None:
    now = [0.0]
    given = Dispatch(store, store.sweep(SWEEP), Listed(TRIALS[:2]), now=lambda: now[0])
    with lease(store.trial(TRIALS[0]).claims):
        others = drain(given)
        early = given.over
        finish(store, 0)
    finish(store, 1)
    given.ended(TRIALS[1], FINISHED)
    now[0] = 60.0

    assert others == [TRIALS[1]]
    assert not early
    assert given.next() is None
    assert given.over


def test_a_trial_that_another_run_has_lost_is_taken_over(store: Store) -> None:
    now = [0.0]
    given = Dispatch(store, store.sweep(SWEEP), Listed(TRIALS[:1]), now=lambda: now[0])
    with lease(store.trial(TRIALS[0]).claims):
        assert given.next() is None
    now[0] = 60.0

    assert given.next() == TRIALS[0]


@pytest.mark.parametrize("code", [BUSY, SUPERSEDED])
def test_a_trial_that_somebody_else_was_quicker_to_claim_is_looked_at_again(store: Store, code: int) -> None:
    now = [0.0]
    given = Dispatch(store, store.sweep(SWEEP), Listed(TRIALS[:1]), now=lambda: now[0])
    first = given.next()
    given.ended(TRIALS[0], code)
    now[0] = 60.0

    assert (first, given.next()) == (TRIALS[0], TRIALS[0])


def test_after_a_stop_nothing_is_given_out_and_a_stopped_trial_is_done_with(store: Store) -> None:
    given = dispatch(store)
    first = given.next()
    store.sweep(SWEEP).stop_file.touch()
    end(begin(store, 0), "stopped", cause="stopped")
    given.ended(TRIALS[0], STOPPED)

    assert first == TRIALS[0]
    assert given.next() is None
    assert given.over


def test_a_trial_that_was_freed_while_the_sweep_runs_is_taken_up(store: Store) -> None:
    given = dispatch(store, TRIALS[:2])
    trial = given.next()
    assert trial is not None
    fail(store, given, trial, "diverged")
    end(store.trial(trial), "stopped", cause=RETRIED, updated=time.time())

    assert given.next() == trial


def test_when_ray_ends_every_running_trial_is_given_out_again(store: Store) -> None:
    given = dispatch(store)
    before = drain(given)
    for trial in before:
        begin(store, int(trial, 16))
    given.lost_all()

    assert drain(given) == before == TRIALS


def test_a_search_that_cannot_go_on_ends_the_run_after_what_runs(store: Store) -> None:
    class Broken(Listed):
        def next(self) -> str | None:
            trial = super().next()
            if trial is None:
                raise InvalidInput("no suggestion makes a recipe")
            return trial

        @property
        def exhausted(self) -> bool:
            return False

    given = Dispatch(store, store.sweep(SWEEP), Broken(TRIALS[:1]))
    first, second = given.next(), given.next()
    early = given.over
    finish(store, 0)
    given.ended(TRIALS[0], FINISHED)

    assert (first, second) == (TRIALS[0], None)
    assert not early
    assert given.over
    assert "no suggestion" in str(given.broken)


def test_a_breaker_that_finds_no_room_for_its_stop_file_stops_all_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    given = dispatch(store, [trial_id(i) for i in range(20)], breaker=2)
    monkeypatch.setattr(Path, "write_text", full)
    while (trial := given.next()) is not None:
        fail(store, given, trial, "data")

    assert given.settled == 2
    assert given.over
    assert not store.sweep(SWEEP).stop_file.exists()


def test_a_source_that_cannot_write_down_an_end_ends_the_run(store: Store) -> None:
    class Full(Listed):
        def told(self, trial: str, outcome: Outcome) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    given = Dispatch(store, store.sweep(SWEEP), Full(TRIALS))
    first = given.next()
    finish(store, 0)
    given.ended(TRIALS[0], FINISHED)

    assert first == TRIALS[0]
    assert given.next() is None
    assert given.over
    assert "No space left" in str(given.broken)


def test_what_was_given_out_and_found_no_place_is_taken_back_a_moment_after_the_stop(store: Store) -> None:
    now = [0.0]
    given = Dispatch(store, store.sweep(SWEEP), Listed(TRIALS), now=lambda: now[0])
    given.next()
    before = given.withdraw()
    store.sweep(SWEEP).stop_file.touch()
    seen = []
    for now[0] in (10.0, 10.0 + GRACE_S / 2, 11.0 + GRACE_S):
        seen.append(given.withdraw())

    assert (before, seen) == (False, [False, False, True])
    assert given.over
    assert given.running == {}


def test_a_trial_that_saves_before_it_stops_is_waited_for_with_those_that_found_no_place(store: Store) -> None:
    now = [0.0]
    given = Dispatch(store, store.sweep(SWEEP), Listed(TRIALS), now=lambda: now[0])
    given.next()
    given.next()
    given.stopping = True
    with lease(store.trial(TRIALS[0]).claims, run=given.run):
        seen = [given.withdraw() for now[0] in (10.0, 60.0, 120.0)]
    given.ended(TRIALS[0], STOPPED)
    seen += [given.withdraw() for now[0] in (130.0, 130.0 + 2 * GRACE_S)]

    assert seen == [False, False, False, False, True]
    assert given.over
