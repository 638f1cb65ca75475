from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ablatrix import attempt as attempts
from ablatrix.attempt import Attempt, Heartbeat
from ablatrix.lease import Lease, Superseded, lease
from ablatrix.records import Result
from ablatrix.store import Store, TrialDirectory

ID = "0123456789abcdef"


@pytest.fixture
def directory(tmp_path: Path) -> TrialDirectory:
    found = Store(tmp_path).trial(ID)
    found.path.mkdir(parents=True)
    return found


def begin(directory: TrialDirectory) -> Attempt:
    return Attempt(directory, directory.path / "stop", threads=1, epochs=5)


def run_to(directory: TrialDirectory, epochs: int, saved: int) -> Attempt:
    """An attempt that reported `epochs` epochs, and saved its state after `saved` of them."""
    begun = begin(directory)
    begun.load_checkpoint()
    for epoch in range(1, epochs + 1):
        begun.report(epoch, 10 * epoch, {"train.loss": 1 / epoch})
        if epoch == saved:
            begun.save_checkpoint(state(10 * epoch))
    return begun


def state(step: int) -> dict[str, Any]:
    return {"step": step, "method": {"weight": torch.arange(3.0)}, "name": "x", "none": None}


def epochs_of(directory: TrialDirectory) -> list[int]:
    return [report.epoch for report in directory.reports()]


def test_a_first_attempt_finds_no_checkpoint_and_runs(directory: TrialDirectory) -> None:
    begun = begin(directory)

    assert begun.load_checkpoint() is None
    assert directory.status() == begun.status
    assert (begun.status.state, begun.status.attempt, begun.status.pid, begun.status.epochs) == ("running", 1, os.getpid(), 5)


def test_a_saved_state_is_read_back_whole(directory: TrialDirectory) -> None:
    run_to(directory, epochs=2, saved=2)
    again = begin(directory).load_checkpoint()

    assert again is not None
    assert again.keys() == state(20).keys()
    assert (again["step"], again["name"], again["none"]) == (20, "x", None)
    assert torch.equal(again["method"]["weight"], torch.arange(3.0))


def test_the_checkpoint_is_one_file_that_loads_without_our_code(directory: TrialDirectory) -> None:
    run_to(directory, epochs=2, saved=2)
    files = list(directory.checkpoint.iterdir())

    assert len(files) == 1
    assert torch.load(files[0], weights_only=True)["step"] == 20


def test_a_resumed_attempt_counts_on_and_keeps_the_work_before(directory: TrialDirectory) -> None:
    first = run_to(directory, epochs=2, saved=2)
    directory.write_status(dataclasses.replace(first.status, seconds=100.0))
    second = begin(directory)
    second.write()

    assert second.status.attempt == 2
    assert 100.0 <= second.status.seconds < 200.0


def test_a_resumed_attempt_stands_at_the_epoch_of_its_checkpoint(directory: TrialDirectory) -> None:
    run_to(directory, epochs=3, saved=2)
    begin(directory).load_checkpoint()
    status = directory.status()

    assert status is not None
    assert status.epoch == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text,
        lambda text: text + '{"epoch": 4, "st',
        lambda text: text[:-7],
        lambda text: "".join(text.splitlines(keepends=True)[:1]),
        lambda text: "",
        lambda text: text * 2,
        lambda text: text.replace("epoch", "other"),
    ],
    ids=["whole", "torn", "cut", "missing", "empty", "doubled", "other"],
)
def test_after_a_resume_the_metrics_are_those_of_the_checkpoint(directory: TrialDirectory, spoil: Any) -> None:
    run_to(directory, epochs=3, saved=2)
    kept = directory.metrics_file.read_text().splitlines(keepends=True)[:2]
    directory.metrics_file.write_text(spoil(directory.metrics_file.read_text()))
    second = begin(directory)
    second.load_checkpoint()
    resumed = directory.metrics_file.read_text()
    second.report(3, 30, {"train.loss": 0.5})

    assert resumed == "".join(kept)
    assert epochs_of(directory) == [1, 2, 3]


def test_a_lost_metrics_file_is_written_anew(directory: TrialDirectory) -> None:
    run_to(directory, epochs=3, saved=2)
    directory.metrics_file.unlink()
    begin(directory).load_checkpoint()

    assert epochs_of(directory) == [1, 2]


def test_without_a_checkpoint_reports_of_an_earlier_attempt_are_dropped(directory: TrialDirectory) -> None:
    run_to(directory, epochs=2, saved=9)
    begin(directory).load_checkpoint()

    assert epochs_of(directory) == []


def not_ours(content: Any) -> bytes:
    import io

    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"not a checkpoint", lambda data: not_ours({"step": 3}),
     lambda data: not_ours([1]), lambda data: not_ours({"step": 3, "reports": ["{"]})],
    ids=["cut", "empty", "text", "without-reports", "list", "bad-report"],
)  # fmt: skip
def test_a_damaged_checkpoint_costs_the_work_and_not_the_trial(
    directory: TrialDirectory, capsys: pytest.CaptureFixture[str], damage: Any
) -> None:
    run_to(directory, epochs=3, saved=2)
    file = directory.checkpoint / "state.pt"
    file.write_bytes(damage(file.read_bytes()))
    begun = begin(directory)
    loaded = begun.load_checkpoint()
    begun.report(1, 10, {})
    begun.save_checkpoint(state(10))

    assert loaded is None
    assert "The checkpoint cannot be read" in capsys.readouterr().out
    assert epochs_of(directory) == [1]
    assert (begin(directory).load_checkpoint() or {})["step"] == 10


def test_a_save_that_fails_keeps_the_checkpoint_before(directory: TrialDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = run_to(directory, epochs=2, saved=2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(attempts.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            begun.save_checkpoint(state(99))

    assert [file.name for file in directory.checkpoint.iterdir()] == ["state.pt"]
    assert (begin(directory).load_checkpoint() or {})["step"] == 20


def test_a_damaged_status_costs_the_count_and_not_the_trial(directory: TrialDirectory) -> None:
    run_to(directory, epochs=2, saved=2)
    (directory.path / "status.json").write_text("{")
    again = begin(directory)

    assert again.status.attempt == 1
    assert again.load_checkpoint() is not None


def test_a_report_is_on_disk_and_in_the_status_when_it_returns(directory: TrialDirectory) -> None:
    begun = begin(directory)
    begun.report(3, 30, {"train.loss": 0.25})
    status = directory.status()

    assert directory.reports()[0].values == {"train.loss": 0.25}
    assert status is not None
    assert status.epoch == 3


def test_a_stop_is_asked_for_by_a_file_and_is_not_taken_back(directory: TrialDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "STOP_POLL_S", 0.0)
    begun = begin(directory)
    before = begun.stop_requested()
    begun.stop_file.touch()
    during = begun.stop_requested()
    begun.stop_file.unlink()

    assert (before, during, begun.stop_requested()) == (False, True, True)


def test_the_stop_file_is_not_looked_up_at_every_step(directory: TrialDirectory) -> None:
    begun = begin(directory)
    begun.stop_requested()
    begun.stop_file.touch()

    assert not begun.stop_requested()


def test_a_heartbeat_writes_the_status_while_the_work_goes_on(directory: TrialDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "HEARTBEAT_S", 0.0)
    begun = begin(directory)
    first = begun.status.updated
    with Heartbeat(begun, lambda: True):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and begun.status.updated == first:
            time.sleep(0.05)
    status = directory.status()

    assert status is not None
    assert status.updated > first


def test_a_process_ends_when_its_owner_is_gone(directory: TrialDirectory) -> None:
    code = (
        "import sys, time, pathlib; from ablatrix.attempt import Attempt, Heartbeat; from ablatrix.store import TrialDirectory\n"
        "from ablatrix.trial import _owner_alive\n"
        "attempt = Attempt(TrialDirectory(pathlib.Path(sys.argv[1])), pathlib.Path('none'), 1, 1)\n"
        "with Heartbeat(attempt, _owner_alive(int(sys.argv[2]))):\n print('working', flush=True); time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with subprocess.Popen([sys.executable, "-c", code, str(directory.path), str(owner.pid)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "working\n"
        time.sleep(1.5)
        alive = child.poll() is None
        owner.kill()  # and not waited for: a zombie is no owner either
        ended = child.wait(timeout=20)
    owner.wait()

    assert alive
    assert ended == 1


def test_a_later_attempt_fences_the_earlier_one_whatever_it_still_writes(directory: TrialDirectory) -> None:
    """A process on a node that was lost for a while: its claim is overruled, it knows nothing of that, and goes on."""
    with lease(directory.claims) as first_claim:
        first = Attempt(directory, directory.path / "stop", 1, 5, first_claim)
        first.load_checkpoint()
        first.report(1, 10, {"train.loss": 1.0})
        first.save_checkpoint(state(10))
        (directory.claims / "000002.json").write_text("{}")  # as another host makes it
        second = Attempt(directory, directory.path / "stop", 1, 5, Lease(directory.claims, 2, first_claim.owner))
        second.load_checkpoint()
        second.report(2, 20, {"train.loss": 0.5})
        writes: list[Callable[[], object]] = [
            lambda: first.report(2, 20, {"train.loss": 9.9}), lambda: first.save_checkpoint(state(99)), lambda: first.write(epoch=9),
            first.load_checkpoint, lambda: first.fail("error", "late"),
        ]  # fmt: skip
        for write in writes:
            with pytest.raises(Superseded):
                write()
    status = directory.status()
    assert status is not None

    assert [(r.epoch, r.attempt, r.values["train.loss"]) for r in directory.reports()] == [(1, 1, 1.0), (2, 2, 0.5)]
    assert (status.attempt, status.epoch, status.state) == (2, 2, "running")
    assert (begin(directory).load_checkpoint() or {})["step"] == 10


def test_a_line_that_slips_past_the_fence_goes_to_a_file_that_nobody_reads(directory: TrialDirectory) -> None:
    first = begin(directory)
    first.load_checkpoint()
    second = begin(directory)
    second.load_checkpoint()
    first.report(1, 10, {"train.loss": 9.9})
    second.report(1, 10, {"train.loss": 1.0})

    assert [r.values["train.loss"] for r in directory.reports()] == [1.0]


def test_an_attempt_that_died_without_a_word_is_counted_by_the_next(directory: TrialDirectory) -> None:
    begin(directory)
    begin(directory).fail("error", "KeyError: 'x'")
    third = begin(directory)

    assert third.status.failures == {"lost": 1, "error": 1}


def test_what_a_killed_save_left_is_cleared_away(directory: TrialDirectory) -> None:
    run_to(directory, epochs=2, saved=2)
    (directory.checkpoint / "state.7.tmp").write_bytes(b"half")
    begin(directory).load_checkpoint()

    assert [file.name for file in directory.checkpoint.iterdir()] == ["state.pt"]


def test_a_heart_beats_on_where_neither_status_nor_log_can_be_written(directory: TrialDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "HEARTBEAT_S", 0.0)
    begun, beats = begin(directory), []

    def full(*_: object, **__: object) -> None:
        beats.append(time.monotonic())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(begun, "write", full)
    monkeypatch.setattr("builtins.print", full)
    with Heartbeat(begun, lambda: True):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and len(beats) < 4:  # two beats, each with its word about it
            time.sleep(0.05)

    assert len(beats) >= 4
    assert beats[2] - beats[0] > 0.5


def test_a_checkpoint_that_cannot_be_reached_for_the_moment_is_no_damaged_one(
    directory: TrialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to(directory, epochs=2, saved=2)

    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", stale)
        with pytest.raises(OSError, match="Stale"):
            begin(directory).load_checkpoint()

    assert epochs_of(directory) == [1, 2]
    assert (begin(directory).load_checkpoint() or {})["step"] == 20


def parent_of(directory: TrialDirectory, epochs: int = 2) -> TrialDirectory:
    """A finished trial, at its third attempt, that saved its state at its end."""
    parent = Store(directory.path.parents[1]).trial("f" * 16)
    parent.path.mkdir(parents=True)
    for _ in range(2):
        begin(parent)
    run_to(parent, epochs, saved=epochs)
    parent.write_result(Result(parent.id, {"knn.top1": 1.0}, 3, 1.0, 1, "here", "cpu"))
    return parent


def test_a_trial_goes_on_from_its_parents_last_checkpoint_and_its_own_lines_count(directory: TrialDirectory) -> None:
    heir = begin(directory)
    heir.parent = parent_of(directory)
    loaded = heir.load_checkpoint()
    heir.report(3, 30, {"train.loss": 0.1})
    heir.save_checkpoint(state(30))
    again = begin(directory)
    again.parent = heir.parent
    resumed = again.load_checkpoint()

    assert loaded is not None and loaded["step"] == 20  # noqa: PT018
    assert resumed is not None and resumed["step"] == 30  # noqa: PT018
    assert [(report.epoch, report.attempt) for report in directory.reports()] == [(1, 0), (2, 0), (3, 1)]
    assert (again.status.epoch, again.status.inherited) == (3, 2)


@pytest.mark.parametrize("spoil", ["missing", "damaged", "unfinished"])
def test_where_the_parents_checkpoint_is_gone_a_trial_trains_everything_itself(
    directory: TrialDirectory, spoil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    heir = begin(directory)
    heir.parent = parent_of(directory)
    if spoil == "unfinished":
        (heir.parent.path / "result.json").unlink()
    elif spoil == "damaged":
        (heir.parent.checkpoint / "state.pt").write_bytes(b"x")
    else:
        (heir.parent.checkpoint / "state.pt").unlink()

    assert heir.load_checkpoint() is None
    assert directory.reports() == []
    assert (heir.status.epoch, heir.status.inherited) == (0, 0)
    assert ("its epochs are trained again" in capsys.readouterr().out) == (spoil != "unfinished")
