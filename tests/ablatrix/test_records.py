from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from ablatrix import records
from ablatrix.records import Report, Result, Status, TrialRecipe, decode, decode_report, encode, encode_report, read_json, write_atomically

STATUS = Status("0" * 16, "running", 1, "node-1", 7, 2, started=1.5, updated=2.5)
KEPT = [
    STATUS,
    TrialRecipe("0" * 16, 3, "digits:1", {"mask": {"grid": 2}, "name": "ä"}),
    Result("0" * 16, {"knn.top1": 71.25}, 1, 60.0, 1, "node-1", "cpu", {"torch": "2"}),
]


@pytest.mark.parametrize("record", KEPT, ids=lambda record: type(record).__name__)
def test_a_record_is_read_back_as_it_was_written(record: object) -> None:
    assert decode(type(record), encode(record)) == record


@pytest.mark.parametrize("record", KEPT, ids=lambda record: type(record).__name__)
def test_a_record_is_versioned_json_with_sorted_keys_and_a_final_newline(record: object) -> None:
    text = encode(record)
    plain = json.loads(text)

    assert plain["schema"] == records.SCHEMA
    assert list(plain) == sorted(plain)
    assert text.endswith("}\n")


def test_keys_of_a_newer_version_are_passed_over() -> None:
    newer = json.loads(encode(STATUS)) | {"schema": 2, "weather": "fine"}

    assert decode(Status, json.dumps(newer)).state == "running"


@pytest.mark.parametrize(
    ("text", "error"), [("[]", ValueError), ("{}", TypeError), ("{", ValueError), ("", ValueError), ("null", ValueError)]
)
def test_what_is_no_record_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"JSON|missing|Expecting"):
        decode(Status, text)


def test_a_record_with_nan_is_refused_rather_than_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(Result("0" * 16, {"knn.top1": math.nan}, 1, 60.0, 1, "node-1", "cpu"))


def test_a_report_is_one_line_of_strict_json_in_which_nan_is_null() -> None:
    line = encode_report(Report(2, 8, 3.25, {"a": math.nan, "b": math.inf, "c": 0.1}))
    read = decode_report(line)

    assert line.count("\n") == 1
    assert json.loads(line, parse_constant=pytest.fail)["values"] == {"a": None, "b": None, "c": 0.1}
    assert (read.epoch, read.step, read.time, read.values["c"]) == (2, 8, 3.25, 0.1)
    assert math.isnan(read.values["a"])


@pytest.mark.parametrize("number", [0.1, 1 / 3, 1e-300, 71.3, 2.0**60])
def test_a_reported_value_keeps_every_bit(number: float) -> None:
    assert decode_report(encode_report(Report(1, 1, 0.0, {"x": number}))).values["x"] == number


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_atomically(path, "old")
    write_atomically(path, b"new")

    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_error_before_the_replacement_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")

    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_process_killed_between_writing_and_replacing_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    code = (
        "import os, pathlib, signal, sys; from ablatrix.records import write_atomically\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(pathlib.Path(sys.argv[1]), 'new')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)

    assert ended.returncode == -9
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2  # the unfinished file, hidden


def test_read_json_tells_no_file_from_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")

    assert read_json(tmp_path / "none.json") is None
    with pytest.raises(ValueError, match="no JSON object"):
        read_json(tmp_path / "list.json")


def line(attempt: int, step: int, name: str = "train.loss") -> Report:
    return Report(step // 10, step, 0.0, {name: 1.0}, attempt)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ([(1, 10), (1, 20), (2, 30)], [(1, 10), (1, 20), (2, 30)]),
        ([(1, 10), (2, 20), (1, 20), (1, 30), (2, 30)], [(1, 10), (2, 20), (2, 30)]),
        ([(1, 10), (1, 20), (1, 30), (2, 20), (2, 30)], [(1, 10), (2, 20), (2, 30)]),
        ([(0, 10), (0, 20)], [(0, 10), (0, 20)]),
    ],
    ids=["resumed", "late", "slipped in before the later attempt spoke", "unnumbered"],
)
def test_lines_of_a_fenced_attempt_do_not_count(written: list[tuple[int, int]], kept: list[tuple[int, int]]) -> None:
    assert [(r.attempt, r.step) for r in records.fenced(line(*w) for w in written)] == kept


def test_the_evaluation_of_a_later_attempt_stands_beside_the_epoch_that_an_earlier_one_trained() -> None:
    both = [line(1, 20), line(2, 20, "knn.top1")]

    assert records.fenced(both) == both


def test_the_attempt_of_a_report_is_kept_and_old_lines_have_none() -> None:
    old = '{"epoch": 1, "step": 10, "time": 0.0, "values": {}}\n'

    assert decode_report(encode_report(line(3, 10))).attempt == 3
    assert decode_report(old).attempt == 0
    assert "attempt" not in encode_report(decode_report(old))
