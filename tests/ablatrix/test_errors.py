from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from ablatrix import errors
from ablatrix.errors import AblatrixError, DamagedRecord, FileProblem, InvalidInput, SweepFileError

KINDS: list[Any] = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
CODES = {
    "AblatrixError": 1, "InvalidInput": 2, "SweepFileError": 2, "DamagedRecord": 2, "TrialsMissing": 3, "NotReproduced": 4,
    "Refused": 5, "Unreachable": 6, "Interrupted": 130,
}  # fmt: skip


def test_there_is_one_tree_of_errors_and_every_one_has_its_exit_code() -> None:
    assert all(issubclass(kind, AblatrixError) for kind in KINDS)
    assert {kind.__name__: kind.exit_code for kind in KINDS} == CODES


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_drawing_of_the_tree_shows_every_error(kind: type[AblatrixError]) -> None:
    drawn = re.findall(r"(\w+)(?: \((\d+)\))?", errors.__doc__ or "")

    assert kind.__name__ in dict(drawn)
    assert dict(drawn)[kind.__name__] in ("", str(kind.exit_code))


def test_problems_of_a_file_are_told_once_each_in_the_order_of_lines() -> None:
    error = SweepFileError("a.yaml", [FileProblem(9, "z"), FileProblem(2, "b"), FileProblem(9, "z"), FileProblem(2, "a")])

    assert str(error) == "a.yaml:2: a\na.yaml:2: b\na.yaml:9: z"
    assert len(error.problems) == 3


def test_a_damaged_record_names_its_file_and_the_next_step() -> None:
    error = DamagedRecord(Path("trials/x/status.json"), ValueError("line 1"))

    assert isinstance(error, InvalidInput)
    assert isinstance(error, ValueError)
    assert str(error) == "trials/x/status.json is damaged (ValueError: line 1). Take it away to run the trial again."
