"""What `run` makes of how its trials end. The part of Ray is played; real runs are in `test_runner`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablatrix import tracking
from ablatrix.cli import running
from ablatrix.cli.live_report import ERROR_FILE
from ablatrix.errors import AblatrixError, Interrupted, TrialsMissing
from ablatrix.lease import lease
from ablatrix.plan import Plan
from ablatrix.records import Result, Status
from ablatrix.store import Store
from tiny_sweep import SWEEP, make_plan

Play = Callable[["Played"], None]


class Quiet:
    """A mirror that mirrors nothing."""

    last_error = None

    def __init__(self, *_: object) -> None:
        pass

    def run_until(self, stop: threading.Event, _: float) -> None:
        stop.wait()

    def cell_means(self, _: object) -> None:
        pass


class Played:
    """In the place of the runner: `play` is called when trials are started, and they then seem to run for a few looks."""

    play: Play
    looks = 3

    def __init__(self, store: Store, sweep: Any, *_: object) -> None:
        self.store, self.sweep, self.concurrency = store, sweep, 1
        self.error: BaseException | None = None
        self.tripped: str | None = None
        self.given: list[str] = []
        self._left = 0

    @property
    def running(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def start(self, trials: Any, scheduler: object) -> None:
        self.given = list(trials) if isinstance(trials, list) else []
        self._left = self.looks
        self.play(self)

    def stop(self) -> None:
        self.sweep.stop_file.touch()

    def join(self, timeout_s: float = 0.0) -> None:
        pass


def finish_all(runner: Played) -> None:
    for trial in runner.given:
        finish(runner.store, trial)


def finish(store: Store, trial: str) -> None:
    store.trial(trial).write_status(Status(trial, "finished", 1, "here", 1, 1, 1.0, 2.0, 1.0, 2, 2, ended=2.0))
    store.trial(trial).write_result(Result(trial, {"knn.top1": 50.0}, 1, 1.0, 1, "here", "cpu"))


def fail(store: Store, trial: str, cause: str) -> None:
    store.trial(trial).write_status(Status(trial, "failed", 1, "here", 1, 1, 1.0, 2.0, 1.0, 1, 2, ended=2.0, cause=cause, message="no"))


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Plan, Store]]:
    """Run the tiny sweep, or another text, with a part to play."""

    def run(play: Play = finish_all, text: str = SWEEP) -> tuple[Plan, Store]:
        monkeypatch.setattr(running, "Runner", type("Playing", (Played,), {"play": staticmethod(play)}))
        monkeypatch.setattr(tracking, "Mirror", Quiet)
        monkeypatch.setattr(running, "REFRESH_S", 0.0)
        plan, store = make_plan(tmp_path, text), Store(tmp_path / "runs")
        running.run(plan, store, None, 1)
        return plan, store

    return run


def raises(message: str) -> Callable[..., None]:
    def write(*_: object, **__: object) -> None:
        raise KeyError(message)

    return write


def test_a_report_that_fails_ends_no_training_and_is_told_once_with_its_place_and_an_exit_code(
    begin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ablatrix_reports.write.write_report", raises("no such column"))
    monkeypatch.setattr("ablatrix.cli.live_report.REPORT_S", 0.0)
    monkeypatch.setattr("ablatrix.cli.live_report.SHARE", 0)
    with pytest.raises(AblatrixError, match=r"every trial is safe .* \(KeyError: 'no such column'\)") as raised:
        begin()
    err, sweep = capsys.readouterr().err, Store(tmp_path / "runs").sweep("tiny")

    assert raised.value.exit_code == 1
    assert err.count("The report could not be written") == 1
    assert "raise KeyError(message)" in (sweep.path / ERROR_FILE).read_text()
    assert all(trial.result() for trial in Store(tmp_path / "runs").trials())
    assert len(Store(tmp_path / "runs").trials()) == 4


def test_how_the_trials_ended_comes_before_a_report_that_failed(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablatrix_reports.write.write_report", raises("x"))

    with pytest.raises(TrialsMissing, match="4 trials are not finished"):
        begin(lambda runner: [fail(runner.store, trial, "error") for trial in runner.given])


def test_a_report_that_succeeds_again_takes_the_record_of_its_failure_away(begin: Any, tmp_path: Path) -> None:
    place = tmp_path / "runs" / "sweeps" / "tiny"
    place.mkdir(parents=True)
    (place / ERROR_FILE).write_text("old")
    begin()

    assert not (place / ERROR_FILE).exists()
    assert (place / "report" / "report.html").is_file()


def test_a_stop_that_came_too_late_does_not_end_later_runs(begin: Any) -> None:
    def stop_late(runner: Played) -> None:
        finish_all(runner)
        runner.stop()

    begin(stop_late)
    _, store = begin()

    assert not store.sweep("tiny").stop_file.exists()


def test_a_stop_leaves_what_is_unfinished_with_130(begin: Any) -> None:
    def stop_early(runner: Played) -> None:
        finish(runner.store, runner.given[0])
        runner.stop()

    with pytest.raises(Interrupted, match="stopped with 3 trials unfinished"):
        begin(stop_early)


def test_trials_that_diverged_are_missing_also_when_the_sweep_was_stopped_before(begin: Any) -> None:
    def trip(runner: Played) -> None:
        for trial in runner.given:
            fail(runner.store, trial, "diverged")
        runner.sweep.stop_file.write_text("tripped")
        runner.tripped = "too many"

    with pytest.raises(TrialsMissing, match="too many"):
        begin(trip)
    with pytest.raises(TrialsMissing, match=r"4 trials are not finished\. `.* retry tiny .*` frees those that diverged"):
        begin()


def test_a_board_that_cannot_be_read_for_a_moment_ends_no_training(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablatrix import board

    read, failures = board.read_board, iter([True, True, False])

    def sometimes(*arguments: Any) -> Any:
        if next(failures, False):
            raise OSError(5, "the file system is away")
        return read(*arguments)

    monkeypatch.setattr(board, "read_board", sometimes)
    _, store = begin()

    assert all(trial.result() for trial in store.trials())


def test_a_sweep_that_runs_already_is_refused_with_a_command_that_follows_it(begin: Any, tmp_path: Path) -> None:
    from ablatrix.errors import Refused

    sweep = Store(tmp_path / "runs").sweep("tiny")
    with lease(sweep.claims), pytest.raises(Refused, match=rf"status tiny --watch --store {tmp_path / 'runs'}`"):
        begin()


SEARCH = "search: {algorithm: random, trials: 3, space: {lr: {key: optimizer.lr, low: 0.01, high: 1.0}}}\n"
SEARCHING = SWEEP.replace("axes:\n  grid: {key: mask.grid, levels: [2, 4]}\nseeds: 2\n", SEARCH)


def try_all(how: Callable[[Store, str], str], most: int = 9) -> Play:
    """Take up to `most` suggestions of a search and end each of them."""

    def play(runner: Played) -> None:
        source = runner.source  # type: ignore[attr-defined]
        for _ in range(most):
            if trial := source.next():
                source.told(trial, how(runner.store, trial))

    return play


@pytest.fixture
def search(begin: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Play], tuple[Plan, Store]]:
    monkeypatch.setattr(running, "fingerprint", lambda data: "print")

    def start(self: Any, trials: Any, scheduler: object) -> None:
        self.source, self._left = trials, self.looks
        self.play(self)

    monkeypatch.setattr(Played, "start", start)
    return lambda play: begin(play, SEARCHING)


def end_well(store: Store, trial: str) -> str:
    finish(store, trial)
    return "finished"


def end_badly(store: Store, trial: str) -> str:
    fail(store, trial, "error")
    return "failed"


def test_a_search_that_is_stopped_before_its_last_suggestion_says_so(search: Any) -> None:
    def stop_early(runner: Played) -> None:
        try_all(end_well, most=1)(runner)
        runner.stop()

    with pytest.raises(Interrupted, match="0 trials unfinished, and 2 suggestions to come"):
        search(stop_early)


def test_a_failed_suggestion_is_run_again_once_it_is_freed_and_not_before(search: Any, tmp_path: Path) -> None:
    from ablatrix.cli.retrying import retry

    with pytest.raises(TrialsMissing, match=r"3 trials are not finished\. `.* retry tiny .*` frees those that failed"):
        search(try_all(end_badly))
    with pytest.raises(TrialsMissing, match="3 trials"):
        search(try_all(end_well))
    retry(Store(tmp_path / "runs"), "tiny", None, [])
    _, store = search(try_all(end_well))

    assert all(trial.result() for trial in store.trials())
