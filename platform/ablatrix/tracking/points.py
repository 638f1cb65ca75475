"""The values of a trial as MLflow's points, each once, read on from where the last pass ended."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ablatrix.errors import DamagedRecord
from ablatrix.records import Report, Result, Usage, decode_report, decode_usage, fenced
from ablatrix.store import TrialDirectory

FINAL = "final."
# MLflow shows metrics of this name on a page of their own.
SYSTEM = "system/"
MAX_KEY = 250
OVERLAP = 256  # bytes before the last place that must be the same still


class Point(NamedTuple):
    """One value of one metric. `epoch` becomes MLflow's step: it is what users compare runs by."""

    key: str
    epoch: int
    step: int
    time_ms: int
    value: float


@cache  # every pass asks it of every point again; names are few
def key_of(name: str) -> str:
    """`name` with every character that MLflow forbids in a metric, parameter or tag replaced by `_`."""
    safe = re.sub(r"[^/\w.\- ]", "_", name)[:MAX_KEY]
    if posixpath.normpath(safe) == safe != "." and not safe.startswith(("/", "..")):
        return safe
    return safe.replace("/", "_").strip(".") or "_"


class Tail:
    """The whole lines that a file grew by since the last look."""

    def __init__(self) -> None:
        self._offset, self._before = 0, b""

    def lines(self, path: Path) -> tuple[list[str], bool]:
        """The new lines, and whether they are the file's first: of a file that was replaced or cut back all lines are new."""
        try:
            with path.open("rb") as file:
                file.seek(self._offset - len(self._before))
                anew = file.read(len(self._before)) != self._before or not self._offset
                if anew:
                    self._offset, self._before = 0, b""
                    file.seek(0)
                data = file.read()
        except FileNotFoundError:
            self._offset, self._before = 0, b""
            return [], True
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._before = (self._before + whole)[-OVERLAP:]
        return [line for line in whole.decode(errors="replace").split("\n") if line.startswith("{")], anew


class Reading:
    """What a trial reported that was not sent yet. `run` is the MLflow run that has all the rest.

    A resumed trial reports its last epochs again, with equal values at later times: the first stands.
    """

    def __init__(self) -> None:
        self.run: str | None = None
        self.reset()

    def reset(self) -> None:
        """Read everything again next time."""
        self._reports, self._samples = Tail(), Tail()
        self.points: list[Point] = []
        self._last: dict[str, tuple[int, int]] = {}
        self._second = -1
        self.first: Report | None = None
        self.newest: Report | None = None

    def read(self, directory: TrialDirectory) -> None:
        """Take in what the trial's files grew by. Raises DamagedRecord where a report cannot be read."""
        lines, anew = self._reports.lines(directory.metrics_file)
        if anew:
            self.first = self.newest = None  # what was seen before of each metric stays seen
        try:
            for report in fenced(decode_report(line) for line in lines):
                if self.newest is None or report.attempt >= self.newest.attempt:  # else a late line of a fenced attempt
                    self.add(report)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.reset()
            raise DamagedRecord(directory.metrics_file, error) from error
        for line in self._samples.lines(directory.usage_file)[0]:
            with suppress(ValueError, TypeError, KeyError, AttributeError):  # a lost sample costs nothing
                self._add_sample(decode_usage(line))

    def add(self, report: Report) -> None:
        """Take in one report."""
        self.first, self.newest = self.first or report, report
        for name, value in report.values.items():
            key = key_of(name)
            if (report.epoch, report.step) > self._last.get(key, (-1, -1)):
                self._last[key] = (report.epoch, report.step)
                self.points.append(Point(key, report.epoch, report.step, int(1000 * report.time), value))

    def _add_sample(self, sample: Usage) -> None:
        """CPU, memory and GPU at the second of the trial's work; what a killed attempt had used stays."""
        if int(sample.seconds) > self._second:
            self._second = int(sample.seconds)
            self.points += [
                Point(key_of(SYSTEM + name), self._second, 0, int(1000 * sample.time), value) for name, value in sample.values.items()
            ]

    def settle(self, run: str) -> None:
        """All points so far were sent to `run`."""
        self.run, self.points = run, []


def final_points(result: Result, newest: Report | None, started_ms: int) -> Iterator[Point]:
    """The metrics of a finished trial, at its last report."""
    epoch, step, time_ms = (newest.epoch, newest.step, int(1000 * newest.time)) if newest else (0, 0, started_ms)
    for name, value in sorted(result.metrics.items()):
        yield Point(key_of(FINAL + name), epoch, step, time_ms, value)
