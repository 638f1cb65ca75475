"""Files of published numbers that are wrong are refused, with the line and the next step."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablatrix.errors import SweepFileError
from ablatrix_reports.published import Publication, read_publication

SMALL = """\
schema: 1
publication: small
title: "Small"
source: "Nobody, nowhere"
axes:
  grid: "mask.grid"
tables:
  one:
    number: "Table 1"
    caption: "A caption"
    columns:
      left: {levels: {dataset: cifar100}}
      right: {levels: {dataset: digits}}
    rows:
      fine: {levels: {grid: 4}, values: [1.0, 2.0]}
      coarse: {levels: {grid: 2}, values: [3.0, –]}
contradictions:
  - same_setting: true
    note: "They differ."
    cells:
      - {table: one, row: fine, column: left}
      - {table: one, row: coarse, column: left}
"""


def read_text(tmp_path: Path, text: str) -> Publication:
    path = tmp_path / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return read_publication(path)


def test_a_small_file_is_read_whole(tmp_path: Path):
    table = read_text(tmp_path, SMALL).table("small/one")

    assert [(c.value.value if c.value else None, len(c.rivals)) for c in table.cells] == [(1.0, 1), (2.0, 0), (3.0, 1), (None, 0)]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("    caption:", "    captoin:", 10, "'captoin' is not a known key of tables.one. Did you mean 'caption'?"),
        ("title:", "titel:", 3, "'titel' is not a known key of the file. Did you mean 'title'?"),
        ("{grid: 4}, values", "{grid: 4}, value", 15, "the key 'values' of tables.one.rows.fine is missing."),
        ("{grid: 4}", "{gird: 4}", 15, "'gird' is no axis of this publication. Did you mean 'grid'?"),
        ("{dataset: digits}", "{dataset: [digits, cifar10]}", 13, "dataset is ['digits', 'cifar10'], but a protocol states one level."),
        ("{dataset: digits}", "{epochs: many}", 13, "epochs is 'many', but a protocol states one whole number."),
        ("{grid: 4}", "{grid: []}", 15, "grid has no level, so it would match none."),
        ("{grid: 4}", "{dataset: mnist}", 15, "'dataset' is a level of this row and of a column."),
        ("[1.0, 2.0]", "[1.0]", 15, "row 'fine' has 1 values for 2 columns."),
        ("[1.0, 2.0]", "[1.0, 2.0, 3.0]", 15, "row 'fine' has 3 values for 2 columns."),
        ("[1.0, 2.0]", '[1.0, "2.0"]', 15, "tables.one.rows.fine.values.1 is '2.0', which is refused"),
        ("[1.0, 2.0]", "[1.0, true]", 15, "tables.one.rows.fine.values.1 is True, which is refused"),
        ("[1.0, 2.0]", "[1.0, .nan]", 15, "the number '.nan' is read in several ways"),
        ("{grid: 2}", "{grid: 4}", 16, "'coarse' and 'fine' of rows have the same levels (grid = 4)"),
        ("{grid: 2}", "{grid: [2, 4]}", 16, "'coarse' and 'fine' of rows have the same levels (grid = 2 or 4)"),
        ("{dataset: digits}", "{dataset: cifar100}", 13, "'right' and 'left' of columns have the same levels (dataset = cifar100)"),
        ("      coarse:", "      fine:", 16, "the key 'fine' stands here again; it was first on line 15. Keep one."),
        ("column: left}\n", "column: lift}\n", 21, "'lift' is no column of one. Did you mean 'left'?"),
        ("{table: one, row: coarse", "{table: one, row: course", 22, "'course' is no row of one. Did you mean 'coarse'?"),
        ("{table: one, row: coarse", "{table: two, row: coarse", 22, "'two' is no table of this file. Known: one."),
        ("coarse, column: left", "coarse, column: right", 22, "one prints no number at (coarse, right), so nothing can contradict it."),
        ("schema: 1", "schema: 2", 1, "schema is 2, which is refused"),
    ],
)
def test_a_wrong_file_is_refused_on_the_line_of_its_fault(tmp_path: Path, old: str, new: str, line: int, message: str):
    assert old in SMALL

    with pytest.raises(SweepFileError) as caught:
        read_text(tmp_path, SMALL.replace(old, new, 1))

    assert [problem for problem in caught.value.problems if problem.line == line and problem.message.startswith(message)]


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path):
    text = SMALL.replace("{grid: 4}", "{gird: 4}").replace("[3.0, –]", "[3.0]").replace("column: left", "column: lift")

    with pytest.raises(SweepFileError) as caught:
        read_text(tmp_path, text)

    assert [problem.line for problem in caught.value.problems] == [15, 16, 21, 22]
