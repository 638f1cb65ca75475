from __future__ import annotations

from pathlib import Path

import pytest

from ablatrix import document
from ablatrix.errors import InvalidInput, SweepFileError


def write(place: Path, text: str | bytes) -> Path:
    path = place / "file.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def found(place: Path, text: str | bytes) -> list[tuple[int, str]]:
    """The problems of a file, whether or not the rest of it could be read."""
    try:
        problems = document.read(write(place, text)).problems
    except SweepFileError as error:
        problems = error.problems
    return [(problem.line, problem.message) for problem in problems]


def test_values_are_plain_builtins_with_their_lines(tmp_path: Path) -> None:
    read = document.read(write(tmp_path, "a: 1\nb:\n  - 2.5\n  - {c: text}\nd:\n"))

    assert read.values == {"a": 1, "b": [2.5, {"c": "text"}], "d": None}
    assert {type(v) for v in (read.values, read.values["a"], read.values["b"], read.values["b"][0])} == {dict, int, list, float}
    assert [read.line(place) for place in (("a",), ("b", 0), ("b", 1, "c"), ("d",))] == [1, 3, 4, 5]


def test_a_place_that_the_file_lacks_has_the_line_of_what_encloses_it(tmp_path: Path) -> None:
    read = document.read(write(tmp_path, "a: 1\nb:\n  c: 2\n"))

    assert read.line(("b", "missing", 3)) == 2
    assert read.line(("missing",)) == 1


def test_yaml_1_2_is_read_so_that_words_stay_words(tmp_path: Path) -> None:
    read = document.read(write(tmp_path, "a: off\nb: NO\nc: 1e-4\nd: -.5e+3\ne: 1:30\nf: true\n"))

    assert read.values == {"a": "off", "b": "NO", "c": 1e-4, "d": -500.0, "e": "1:30", "f": True}


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    read = document.read(write(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n"))

    assert read.values == {"a": 1, "b": 2}
    assert read.line(("b",)) == 2


def test_every_duplicate_key_is_told_with_both_lines(tmp_path: Path) -> None:
    problems = found(tmp_path, "a: 1\nb: {c: 1, d: 2,\n  c: 3}\na: 2\n")

    assert [line for line, _ in problems] == [2 + 1, 4]
    assert "'c' stands here again; it was first on line 2" in problems[0][1]
    assert "'a' stands here again; it was first on line 1" in problems[1][1]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("!custom 5", "'!custom' is refused"),
        ("!custom {b: 1}", "'!custom' is refused"),
        ("!!set {b}", "'set' is refused"),
        ("!!python/object/apply:os.system [ls]", "'python/object/apply:os.system' is refused"),
        ("!!binary aGk=", "'binary' is refused"),
        ("2024-01-31", "'2024-01-31' would be a date"),
        ("010", "'010' is read in several ways"),
        ("0o17", "'0o17' is read in several ways"),
        ("1_000", "'1_000' is read in several ways"),
        (".inf", "'.inf' is read in several ways"),
        ("-00.5", "'-00.5' is read in several ways"),
        ("!!bool perhaps", "'perhaps' cannot be read as a value"),
        ("!!int ''", "'' cannot be read as a value"),
        ("!!float abc", "could not convert string to float"),
        ("1" + "0" * 400, "too large: at most 64 bits"),
        ("0x" + "f" * 5000, "too large: at most 64 bits"),
        ("&x {c: *x}", "an alias that contains itself"),
        ('"\\0"', "control character"),
        ('"\\ud800"', "control character"),
        ("[" * 100 + "]" * 100, "nested more than 40 deep"),
        ("{" + "k." * 50 + "k: {b: [1]}}", "nested more than 40 deep"),
    ],
)
def test_a_value_that_is_refused_leaves_the_rest_readable(tmp_path: Path, value: str, said: str) -> None:
    text = f"first: 1\na: {value}\nlast: 2\n"
    problems = found(tmp_path, text)

    assert [line for line, _ in problems] == [2]
    assert said in problems[0][1]
    assert len(problems[0][1]) < 200
    assert document.read(tmp_path / "file.yaml").values["last"] == 2


def test_a_directive_is_refused_and_changes_nothing_of_what_follows(tmp_path: Path) -> None:
    text = "# a comment\n%YAML 1.1\n%TAG ! tag:x,2000:\n---\na: NO\nb: |\n  %not one\n"
    problems = found(tmp_path, text)

    assert [line for line, _ in problems] == [2, 3]
    assert "directives" in problems[0][1]
    assert document.read(tmp_path / "file.yaml").values == {"a": "NO", "b": "%not one\n"}


def test_merge_keys_and_keys_that_are_no_text_are_refused(tmp_path: Path) -> None:
    problems = found(tmp_path, "a: &a {x: 1}\nb:\n  <<: *a\n? [1]\n: 2\n")

    assert [line for line, _ in problems] == [3, 4]
    assert "merge keys" in problems[0][1]
    assert "a key must be plain text" in problems[1][1]


def test_a_plain_alias_stands_for_its_values(tmp_path: Path) -> None:
    read = document.read(write(tmp_path, "a: &a [1, 2]\nb: *a\n"))

    assert read.problems == ()
    assert read.values == {"a": [1, 2], "b": [1, 2]}


def test_aliases_of_aliases_end_in_one_problem_and_not_in_a_full_memory(tmp_path: Path) -> None:
    levels = [f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 10) if i else '1'}]" for i in range(12)]
    problems = found(tmp_path, "\n".join(levels))

    assert len(problems) == 1
    assert "more than 200,000 values" in problems[0][1]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "is empty"),
        ("# nothing\n", 1, "is empty"),
        ("- a\n- b\n", 1, "holds no mapping"),
        ("\n\n5\n", 3, "holds no mapping"),
        ("\n!!set {a}\n", 2, "type 'set' is refused"),
        ("a: 1\nb: [1,\n", 3, "no valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "no valid YAML"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        (b"a: 1\nb: \xff\xfe\n", 2, "byte 0xff is no UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n", 1, "no UTF-8 text"),
        ("a: 1\nb: \x00\n", 1, "not allowed in YAML"),
        ("[" * 5000, 1, "no valid YAML"),
    ],
)
def test_what_cannot_be_read_is_one_problem_with_its_line(tmp_path: Path, text: str | bytes, line: int, said: str) -> None:
    problems = found(tmp_path, text)

    assert [at for at, _ in problems] == [line]
    assert said in problems[0][1]


def test_a_missing_file_a_directory_and_a_file_too_long_are_told_apart(tmp_path: Path) -> None:
    long = write(tmp_path, "#" * (document.MAX_BYTES + 1))

    with pytest.raises(InvalidInput, match="does not exist"):
        document.read(tmp_path / "none.yaml")
    with pytest.raises(InvalidInput, match="is a directory"):
        document.read(tmp_path)
    with pytest.raises(InvalidInput, match="more than the 4,000,000"):
        document.read(long)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("off", "off"),
        ("", None),
        ("[1, 2]", [1, 2]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("{1: 2}", {"1": 2}),
        ("[", "["),
        ("2024-01-31", "2024-01-31"),
        ("!!bool x", "!!bool x"),
        ("!!set {a}", "!!set {a}"),
        ("{a: 1, a: 2}", "{a: 1, a: 2}"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_a_value_of_the_command_line_is_read_as_in_a_file_or_stays_text(text: str, value: object) -> None:
    assert document.read_value(text) == value


def test_an_anchor_that_stands_twice_is_refused_with_both_lines_and_one_that_is_used_twice_is_not(tmp_path: Path) -> None:
    assert found(tmp_path, "a: &x 1\nb: *x\nc: [*x]\n") == []

    ((line, message),) = found(tmp_path, "a: &x 1\nb: *x\nc: &x 2\nd: *x\n")
    assert line == 3
    assert "the anchor &x stands on line 1 too" in message
