"""Files that grow are read on, not again; files that were replaced or cut back are read anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablatrix.errors import DamagedRecord
from ablatrix.records import Report, encode_report
from ablatrix.store import Store
from ablatrix.tracking.points import Reading, Tail
from stored_sweep import begin, keep_lines, report, use


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines.jsonl"


def test_a_file_that_grows_gives_its_new_whole_lines_only(path):
    tail = Tail()
    absent = tail.lines(path)
    path.write_text("{1}\n{2}\n{3")
    first = tail.lines(path)
    path.write_text("{1}\n{2}\n{3}\n{4}\n")

    assert (absent, first) == (([], True), (["{1}", "{2}"], True))
    assert tail.lines(path) == (["{3}", "{4}"], False)
    assert tail.lines(path) == ([], False)


@pytest.mark.parametrize(
    "text", ["{1}\n", "{1}\n{2, later}\n{3}\n{4}\n{5}\n", "", "{9}\n" * 500], ids=["cut back", "regrown", "empty", "other"]
)
def test_a_file_that_was_replaced_is_read_anew(path, text):
    tail = Tail()
    path.write_text("{1}\n{2}\n{3}\n")
    tail.lines(path)
    path.write_text(text)

    assert tail.lines(path) == ([line for line in text.split("\n") if line], True)


def test_a_trial_that_is_read_on_gives_the_points_that_reading_it_whole_gives(tmp_path):
    trial, reading, found = begin(Store(tmp_path), 0), Reading(), []
    for step in (lambda: report(trial, [1, 2]), lambda: use(trial, [5, 10]), lambda: report(trial, [3]), lambda: None):
        step()
        reading.read(trial)
        found += reading.points
        reading.settle("run")
    whole = Reading()
    whole.read(trial)

    assert sorted(found) == sorted(whole.points)
    assert (reading.first, reading.newest) == (whole.first, whole.newest)


def test_epochs_that_are_reported_again_after_a_cut_are_no_new_points(tmp_path):
    trial, reading = begin(Store(tmp_path), 0), Reading()
    report(trial, [1, 2, 3])
    reading.read(trial)
    reading.settle("run")
    keep_lines(trial, 1)
    reading.read(trial)
    cut = list(reading.points)
    report(trial, [2, 3, 4], late_s=100.0)
    reading.read(trial)

    assert cut == []
    assert {point.epoch for point in reading.points} == {4}


def test_a_damaged_report_is_told_at_every_look(tmp_path):
    trial, reading = begin(Store(tmp_path), 0), Reading()
    report(trial, [1])
    with trial.metrics_file.open("a") as file:
        file.write("{half\n")

    for _ in range(2):
        with pytest.raises(DamagedRecord, match=r"metrics\.jsonl is damaged"):
            reading.read(trial)


def test_late_lines_of_a_fenced_attempt_are_no_points_read_on_or_at_once(tmp_path):
    trial, reading = begin(Store(tmp_path), 0), Reading()
    lines = [
        Report(1, 1, 1.0, {"a": 1.0}, 1),
        Report(2, 2, 2.0, {"a": 2.0}, 1),
        Report(2, 2, 9.0, {"a": 2.5}, 2),
        Report(3, 3, 3.0, {"a": 7.0}, 1),
    ]
    for line in lines:
        with trial.metrics_file.open("a") as file:
            file.write(encode_report(line))
        reading.read(trial)
    whole = Reading()
    whole.read(trial)

    assert [(point.epoch, point.value) for point in reading.points] == [(1, 1.0), (2, 2.0)]  # the first of epoch 2 stands: it may be sent
    assert [(point.epoch, point.value) for point in whole.points] == [(1, 1.0), (2, 2.5)]
