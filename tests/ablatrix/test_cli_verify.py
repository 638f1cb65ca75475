"""`ablatrix verify`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import stored_sweep
from ablatrix.cli import main
from ablatrix.store import Store

ABOVE = {"text": "finer is better", "check": "cell(grid=4) > cell(grid=2)", "for": {}}
BELOW = {"text": "coarser is better", "check": "cell(grid=4) < cell(grid=2)", "for": {}}


def verify(capsys: pytest.CaptureFixture[str], store: Store, *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["verify", stored_sweep.SWEEP, "--store", str(store.root), *arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def finished(root: Path, *claims: dict[str, Any], cells: int = 2) -> Store:
    """Grid 2 has about 53 and grid 4 about 55.5, over two seeds that differ a little."""
    store = stored_sweep.submit(root, claims=list(claims))
    for number, epochs in ((0, 3), (1, 3), (2, 3), (3, 4))[: 2 * cells]:
        stored_sweep.finish(store, number, seed=number % 2, epochs=epochs)
    return store


def test_a_claim_that_cannot_be_decided_is_said_so_and_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, out, err = verify(capsys, finished(tmp_path, ABOVE))

    assert code == 0
    assert "undecided: finer is better [cell(grid=4) > cell(grid=2)] margin +2.5" in out
    assert "grid-sweep: undecided (of 1 claim: 1 undecided)" in err


def test_a_claim_that_fails_ends_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    margin = BELOW | {"check": "cell(grid=4) < cell(grid=2) - 9"}
    code, out, err = verify(capsys, finished(tmp_path, margin))

    assert code == 4
    assert "fails: coarser is better" in out
    assert "1 of 1 claims fails: coarser is better." in err


def test_missing_cells_end_with_3_and_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, out, err = verify(capsys, finished(tmp_path, ABOVE, cells=1))

    assert code == 3
    assert "cells are missing: 0 of 2 trials of grid=4" in out
    assert "1 cell is not complete: grid=4." in err


def test_the_verdict_as_json_is_whole_whatever_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, out, _ = verify(capsys, finished(tmp_path, ABOVE, cells=1), "--json")
    said = json.loads(out)

    assert code == 3
    assert (said["schema"], said["outcome"], said["missing"]) == (1, "incomplete", ["grid=4"])
    assert said["claims"][0]["state"] == "undecided"
