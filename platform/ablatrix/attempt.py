"""One attempt at a trial, as the store sees it: status, heartbeat, reports, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from ablatrix.errors import DamagedRecord
from ablatrix.lease import Lease, Superseded
from ablatrix.records import Report, Status, decode_report, encode_report, write_atomically
from ablatrix.store import TrialDirectory
from ablatrix.usage import UsageLog

HEARTBEAT_S = 5.0
STOP_POLL_S = 0.5
SUPERSEDED = 5  # exit code of a trial's process that a later attempt has overruled
LOST = "lost"
PRUNED = "stopped early by the sweep's scheduler"
PASSING = (errno.ESTALE, errno.ENOMEM, errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT)  # what says nothing of a file's content


class Attempt:
    """Implements the models' `Session` on a trial's directory.

    With a lease its number is the attempt's, and everything that is written is checked against it first: an attempt that a
    later one has overruled raises Superseded, and changes nothing any more. Where the trial goes on from another, whose recipe is the
    earlier part of its own, `parent` is that one: its last checkpoint spares the trial that part, and changes no bit of its result.
    """

    def __init__(self, directory: TrialDirectory, stop_file: Path, threads: int, epochs: int, lease: Lease | None = None) -> None:
        self.directory, self.stop_file, self._lease = directory, stop_file, lease
        self.parent: TrialDirectory | None = None
        before = _last_status(directory)
        now = time.time()
        self.status = Status(
            trial=directory.id, state="running", attempt=lease.number if lease else 1 + (before.attempt if before else 0),
            host=socket.gethostname(), pid=os.getpid(), threads=threads, started=now, updated=now,
            seconds=before.seconds if before else 0.0, epochs=epochs, failures=failures_by(before),
            inherited=before.inherited if before else 0,
        )  # fmt: skip
        self._worked_before = self.status.seconds
        self._lines: list[str] = []
        self._metrics: int | None = None
        self._lock = threading.Lock()
        self._next_poll = 0.0
        self._stopping = False
        self.write()

    def write(self, **changes: Any) -> None:
        """Replace `status.json` with these fields changed."""
        self.check()
        with self._lock:
            now = time.time()
            worked = self._worked_before + now - self.status.started
            self.status = dataclasses.replace(self.status, **{"updated": now, "seconds": worked, **changes})
            self.directory.write_status(self.status)

    def check(self) -> None:
        """Raises Superseded where a later attempt was begun."""
        if self._lease:
            self._lease.check()

    def fail(self, cause: str, message: str) -> None:
        """Write down how the attempt failed."""
        self.write(state="failed", ended=time.time(), cause=cause, message=message, failures=counted(self.status.failures, cause))

    def report(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Append one line to `metrics.jsonl`, on disk before this returns."""
        self.check()
        line = encode_report(Report(epoch, step, time.time(), dict(values), self.status.attempt))
        self._append(line.encode())
        self._lines.append(line)
        self.write(epoch=epoch)

    def _open_metrics(self) -> None:
        # One handle for the whole attempt: a later attempt replaces the file, and what this one writes then goes nowhere.
        if self._metrics is not None:
            os.close(self._metrics)
        self._metrics = os.open(self.directory.metrics_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _append(self, line: bytes) -> None:
        if self._metrics is None:
            self._open_metrics()
        assert self._metrics is not None
        while line:
            line = line[os.write(self._metrics, line) :]
        os.fsync(self._metrics)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest checkpoint, else the parent's last, with `metrics.jsonl` put back to what was reported before it."""
        found, inherited = _load(self._checkpoint_file), self.status.inherited
        if found is None:
            found = self._of_parent()
            inherited = _epoch(found[1]) if found else 0
            if self._checkpoint_file.exists():
                print(f"It is left aside; starting again from epoch {inherited}.", flush=True)
        state, self._lines = found or (None, [])
        self.check()
        write_atomically(self.directory.metrics_file, "".join(self._lines))
        self._open_metrics()
        for unfinished in self.directory.checkpoint.glob("*.tmp"):  # of attempts that were killed while they saved
            unfinished.unlink(missing_ok=True)
        self.write(epoch=_epoch(self._lines), inherited=inherited)
        return state

    def _of_parent(self) -> tuple[dict[str, Any], list[str]] | None:
        """The last checkpoint of the parent. Its reports become this trial's own, as of before its first attempt."""
        try:
            if self.parent is None or self.parent.result() is None:
                return None
        except DamagedRecord:
            return None
        found = _load(_state_file(self.parent))
        if found is None:
            print(f"The checkpoint of {self.parent.id}, from which this trial goes on, is gone; its epochs are trained again.", flush=True)
            return None
        return found[0], [encode_report(dataclasses.replace(decode_report(line), attempt=0)) for line in found[1]]

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint in one step. It carries the reports so far, so that a damaged `metrics.jsonl` costs nothing."""
        import torch

        self.directory.checkpoint.mkdir(parents=True, exist_ok=True)
        temporary = self._checkpoint_file.with_suffix(f".{self.status.attempt}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save({**state, "reports": self._lines}, file)
                file.flush()
                os.fsync(file.fileno())
            self.check()
            temporary.replace(self._checkpoint_file)
        except BaseException:  # on a full disk what is left of it would be in the way of the next attempt
            temporary.unlink(missing_ok=True)
            raise

    def stop_requested(self) -> bool:
        """Whether the sweep's stop file is there; looked up twice a second at most."""
        now = time.monotonic()
        if not self._stopping and now >= self._next_poll:
            self._next_poll = now + STOP_POLL_S
            self._stopping = self.stop_file.exists()
        return self._stopping

    @property
    def _checkpoint_file(self) -> Path:
        return _state_file(self.directory)


def _state_file(directory: TrialDirectory) -> Path:
    return directory.checkpoint / "state.pt"


def _epoch(lines: list[str]) -> int:
    return decode_report(lines[-1]).epoch if lines else 0


def _load(file: Path) -> tuple[dict[str, Any], list[str]] | None:
    """A checkpoint's state, and the lines of reports that were made before it; None where there is none that can be read."""
    import torch

    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        lines: list[str] = state.pop("reports")
        for line in lines:
            decode_report(line)
    except FileNotFoundError:
        return None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file costs the work since the start, not the trial
        if isinstance(error, OSError) and error.errno in PASSING:
            raise
        print(f"The checkpoint cannot be read ({type(error).__name__}: {error}).", flush=True)
        return None
    return state, list(lines)


def _last_status(directory: TrialDirectory) -> Status | None:
    try:
        return directory.status()
    except DamagedRecord as error:  # it only counts attempts and seconds, so it may be lost
        print(f"{error} Counting attempts anew.", flush=True)
        return None


def failures_by(before: Status | None) -> dict[str, int]:
    """What went wrong by the end of attempt `before`, by cause; one that still calls itself running died without a word."""
    if before is None:
        return {}
    return counted(before.failures, LOST) if before.state == "running" else dict(before.failures)


def counted(failures: Mapping[str, int], cause: str) -> dict[str, int]:
    """The counts with one more of `cause`."""
    return {**failures, cause: failures.get(cause, 0) + 1}


class Heartbeat:
    """Writes the status and a sample of the machine every few seconds, and ends the process when its owner is gone."""

    def __init__(self, attempt: Attempt, owner_alive: Callable[[], bool]) -> None:
        self._attempt, self._owner_alive = attempt, owner_alive
        self._usage = UsageLog(attempt.directory.usage_file, attempt.status.seconds)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._sample(last=True)

    def _beat(self) -> None:
        next_write = time.monotonic() + HEARTBEAT_S
        while not self._done.wait(1.0):
            if not self._owner_alive():
                # Nobody waits for this attempt; the next `run` takes it up from its checkpoint.
                os._exit(1)
            if time.monotonic() >= next_write:
                next_write = time.monotonic() + HEARTBEAT_S
                try:
                    self._attempt.write()
                except Superseded as error:
                    _say(f"{error}; this attempt ends here.")
                    os._exit(SUPERSEDED)
                except OSError as error:
                    _say(f"The heartbeat could not be written: {error}")
                self._sample()

    def _sample(self, last: bool = False) -> None:
        """A trial never fails for want of a measurement of its machine."""
        try:
            self._usage.sample(last)
        except (OSError, psutil.Error) as error:
            _say(f"The machine could not be measured: {error}")


def _say(what: str) -> None:
    """The disk that is full for a heartbeat is full for the log too, and the heart must beat on."""
    with contextlib.suppress(OSError):
        print(what, flush=True)
