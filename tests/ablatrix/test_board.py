from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from ablatrix import board
from ablatrix.board import cell_label, digest, read_board, render, state_of
from ablatrix.store import Store, TrialDirectory
from stored_sweep import SWEEP, begin, end, finish, report, submit, trial_id


def seen(store: Store) -> board.Board:
    return read_board(store, store.sweep(SWEEP))


def states(store: Store) -> list[str]:
    return [trial.state for cell in seen(store).cells for trial in cell.trials]


def shown(store: Store) -> str:
    console = Console(width=200, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(render(seen(store), footer=["a footer"]))
    return console.export_text()


def beat(trial: TrialDirectory, ago_s: float) -> None:
    """The trial's last sign of life."""
    status = trial.status()
    assert status is not None
    trial.write_status(dataclasses.replace(status, updated=time.time() - ago_s, epochs=5))


def test_every_state_is_read_from_the_trials_files(tmp_path: Path) -> None:
    store = submit(tmp_path, grids=("2", "4", "8"))
    finish(store, 0)
    beat(begin(store, 1), ago_s=1)
    beat(begin(store, 2), ago_s=1000)
    end(begin(store, 3), "failed", cause="diverged", message="too fast")
    end(begin(store, 4), "stopped")

    assert states(store) == ["finished", "running", "lost", "failed", "stopped", "waiting"]
    assert seen(store).counts()["waiting"] == 1


def test_a_result_makes_a_trial_finished_whatever_its_status_says(tmp_path: Path) -> None:
    store = submit(tmp_path)
    finish(store, 0)
    finish(store, 1)
    beat(store.trial(trial_id(0)), ago_s=1000)
    store.trial(trial_id(0)).write_status(dataclasses.replace(begin(store, 0).status(), state="failed"))  # type: ignore[arg-type]
    (store.trial(trial_id(1)).path / "status.json").unlink()

    assert states(store)[:2] == ["finished", "finished"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
@pytest.mark.parametrize("name", ["status.json", "result.json"])
def test_a_damaged_record_is_one_failed_trial_and_not_a_failed_board(tmp_path: Path, name: str, content: str) -> None:
    store = submit(tmp_path)
    trial = finish(store, 0)
    (trial.path / name).write_text(content)
    state = state_of(trial, 0, time.time())

    assert (state.state, state.cause) == ("failed", "unreadable")
    assert name in (state.message or "")
    assert states(store)[1:] == ["waiting"] * 3


def test_the_table_shows_progress_marks_and_counts(tmp_path: Path) -> None:
    store = submit(tmp_path)
    finish(store, 0)
    beat(begin(store, 1), ago_s=1)
    report(store.trial(trial_id(1)), [1])
    end(begin(store, 2), "failed", cause="diverged", message="too fast")
    text = shown(store)

    assert "seed 0 ✓" in text
    assert "seed 1 0/5" in text
    assert "seed 0 ✕" in text
    assert "1/2" in text
    assert "1 finished, 1 running, 1 waiting, 1 failed" in text
    assert "a footer" in text


def test_an_excluded_cell_shows_its_reason(tmp_path: Path) -> None:
    store = submit(tmp_path)
    plan_file = store.sweep(SWEEP).path / "plan.json"
    plan = json.loads(plan_file.read_text())
    plan["cells"][0] |= {"excluded": "not in the paper", "trials": []}
    plan_file.write_text(json.dumps(plan))

    assert "n/a: not in the paper" in shown(store)


def test_failures_are_grouped_by_cause_with_their_logs(tmp_path: Path) -> None:
    store = submit(tmp_path)
    end(begin(store, 0), "failed", cause="diverged", message="too fast")
    end(begin(store, 1), "failed", cause="data", message="no images")
    end(begin(store, 2), "failed", cause="diverged", message="too fast")
    lines = digest(store, seen(store))

    assert [line for line in lines if line.endswith(":")] == ["1 failed (data):", "2 failed (diverged):"]
    assert sum("too fast" in line for line in lines) == 2
    assert all(str(store.trial(trial_id(i)).log) in "\n".join(lines) for i in range(3))


def test_a_board_without_failures_has_nothing_to_digest(tmp_path: Path) -> None:
    store = submit(tmp_path)
    finish(store, 0)

    assert digest(store, seen(store)) == []


def test_the_mapping_of_a_board_is_strict_json(tmp_path: Path) -> None:
    store = submit(tmp_path)
    finish(store, 0)
    mapping = json.loads(json.dumps(seen(store).as_mapping(), allow_nan=False))

    assert mapping["schema"] == 1
    assert mapping["counts"] == {"finished": 1, "waiting": 3}
    assert mapping["cells"][0]["trials"][0]["trial"] == trial_id(0)


def test_a_cell_is_called_by_its_label_or_else_by_its_levels() -> None:
    assert cell_label({"label": "MoCo", "levels": {"grid": "2"}}) == "MoCo"
    assert cell_label({"label": None, "levels": {"grid": "2", "kind": "blocked"}}) == "grid 2, kind blocked"
