"""`make tables-smoke`, with a stand-in for `ablatrix` that only notes what it was asked: every table runs, whatever the others do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ablatrix import shipped

ROOT = Path(__file__).parents[1]
TABLES = {name for name in shipped.sweeps() if "/" in name and not name.endswith("-transfer")}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def run(place: Path, sweep: str = "", code: int = 0) -> tuple[int, list[str], str]:
    """Exit code, the sweeps that were run, and stderr of the target, where `sweep` ends with `code`."""
    (place / "bin").mkdir()
    (place / ".installed").touch()  # newer than pyproject.toml, so that nothing is installed
    program = place / "bin" / "ablatrix"
    program.write_text(f'#!/bin/sh\necho "$@" >> {place}/asked\ncase "$2" in *{sweep or "/none"}.yaml) exit {code};; esac\n')
    program.chmod(0o755)
    command = ["make", "tables-smoke", f"VENV={place}", f"STORE={place}/runs"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=environment)
    asked = [line.split() for line in (place / "asked").read_text().splitlines()]
    assert all(words[0] == "run" and words[2:] == ["--profile", "smoke", "--store", f"{place}/runs"] for words in asked)
    return done.returncode, [words[1].removeprefix("sweeps/").removesuffix(".yaml") for words in asked], done.stderr


def test_every_table_that_can_run_is_run_and_those_of_no_paper_last(tmp_path: Path):
    code, sweeps, _ = run(tmp_path)

    assert code == 0
    assert sorted(sweeps) == sorted(TABLES)
    assert sweeps[-2:] == ["mixmask/frameworks-cifar100", "siameseim/methods-cifar100"]


def test_a_table_that_fails_hides_no_other_and_is_named_at_the_end(tmp_path: Path):
    code, sweeps, said = run(tmp_path, "table1-grid", 3)

    assert code != 0
    assert set(sweeps) == TABLES
    assert "Failed: sweeps/mixmask/table1-grid.yaml (exit 3)" in said


def test_an_interrupt_ends_the_night(tmp_path: Path):
    code, sweeps, _ = run(tmp_path, "table1-grid", 130)

    assert code != 0
    assert sweeps[-1] == "mixmask/table1-grid"
