"""The verbs that only read: plan, list, show, status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablatrix.cli import main
from ablatrix.store import Store
from stored_sweep import RECIPE, SWEEP, begin, end, finish, report, submit, trial_id
from tiny_sweep import SWEEP as FILE
from tiny_sweep import write_sweep


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ABLATRIX_STORE", raising=False)
    monkeypatch.chdir(tmp_path)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    """Exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return ended.value.code, out, err


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON that a verb prints, where it succeeds."""
    code, out, err = call(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_plan_lists_every_trial_to_run_in_its_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_sweep(tmp_path, FILE + "exclude: [{if: {grid: 4}, reason: too fine}]\n")
    plan = read(capsys, "plan", str(file), "--store", str(tmp_path / "runs"))

    assert plan["counts"] == {"to run": 2, "excluded": 1}
    assert [(row["cell"], row["seed"], row["why"]) for row in plan["trials"]] == [
        ("grid=2", 0, None), ("grid=2", 1, None), ("grid=4", None, "too fine"),
    ]  # fmt: skip
    assert not (tmp_path / "runs").exists()


def test_a_plan_tells_what_the_store_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, store = write_sweep(tmp_path), Store(tmp_path / "runs")
    first, second = [row["trial"] for row in read(capsys, "plan", str(file), "--store", str(store.root))["trials"]][:2]
    for number, state in ((first, "finished"), (second, "failed")):
        trial = begin(store, int(number, 16))
        end(trial, state, cause="diverged" if state == "failed" else None)
    plan = read(capsys, "plan", str(file), "--store", str(store.root))

    assert plan["counts"] == {"in store": 1, "to run": 3}
    assert plan["trials"][1]["why"] == "failed before (diverged)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "smok"], "no profile 'smok'"),
        (["--set", "optimizer.rl=1"], "--set: optimizer.rl is not a known key"),
        (["--set", "data.name=cifar10", "--set", "data.path=/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    code, out, err = call(capsys, "plan", str(write_sweep(tmp_path)), *arguments)

    assert (code, out) == (2, "")
    assert said in err


def test_set_changes_the_trials_that_are_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_sweep(tmp_path))
    plain = {row["trial"] for row in read(capsys, "plan", file)["trials"]}
    changed = {row["trial"] for row in read(capsys, "plan", file, "--set", "optimizer.lr=0.5")["trials"]}
    paced = {row["trial"] for row in read(capsys, "plan", file, "--set", "schedule.checkpoint_epochs=5")["trials"]}

    assert plain.isdisjoint(changed)
    assert plain == paced


def test_list_shows_the_shipped_sweeps_and_those_of_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(submit(tmp_path / "runs"), 0)
    listed = read(capsys, "list", "--store", str(tmp_path / "runs"))

    assert "quickstart" in {row["name"] for row in listed["shipped"]}
    assert listed["stored"] == [{"name": SWEEP, "trials": "1 finished, 3 waiting", "title": "Mask grid"}]


def test_list_survives_a_sweep_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submit(tmp_path / "runs", "bad")
    (tmp_path / "runs" / "sweeps" / "bad" / "plan.json").write_text("{")
    listed = read(capsys, "list", "--store", str(tmp_path / "runs"))

    assert listed["stored"][0]["trials"].startswith("unreadable: ")


def test_status_shows_the_newest_sweep_or_the_one_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submit(tmp_path / "runs", "older")
    finish(submit(tmp_path / "runs", SWEEP), 0)
    import os

    os.utime(tmp_path / "runs" / "sweeps" / "older" / "plan.json", (1, 1))

    assert read(capsys, "status", "--store", "runs")["sweep"] == SWEEP
    assert read(capsys, "status", "older", "--store", "runs")["sweep"] == "older"


def test_status_of_a_file_is_that_of_its_sweep_and_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_sweep(tmp_path, FILE.replace("sweep: tiny", f"sweep: {SWEEP}")))
    submit(tmp_path / "runs", SWEEP)
    submit(tmp_path / "runs", f"{SWEEP}@smoke")

    assert read(capsys, "status", file)["sweep"] == SWEEP
    assert read(capsys, "status", file, "--profile", "smoke")["sweep"] == f"{SWEEP}@smoke"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status"], "holds no sweep yet"),
        (["status", "no-such"], "holds no sweep 'no-such'"),
        (["status", "quickstart"], "was never run in the store"),
        (["show", "0123"], "holds no trial '0123'"),
        (["show", ""], "holds no trial ''"),
        (["show", "../.."], "holds no trial '../..'"),
        (["report"], "holds no sweep yet"),
    ],
)
def test_what_an_empty_store_lacks_is_told_with_exit_code_two(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    code, out, err = call(capsys, *arguments)

    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("arguments", [["status", "--sroe", "x"], ["no-such-verb"], ["check"], ["ui", "--port", "0"], ["show", "a", "b"]])
def test_a_wrong_option_is_one_message_and_no_traceback(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, _, err = call(capsys, *arguments)

    assert code == 2
    assert err


def test_show_tells_all_of_one_trial_by_its_first_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = submit(tmp_path / "runs")
    finish(store, 0)
    report(begin(store, 0x1000), [1, 2])
    shown = read(capsys, "show", trial_id(0)[:14])

    assert (shown["trial"], shown["sweeps"]) == (trial_id(0), [SWEEP])
    assert shown["recipe"]["recipe"] == RECIPE
    assert shown["status"]["state"] == "finished"
    assert shown["result"]["metrics"] == {"knn.top1": 53.0}
    assert shown["last_report"]["epoch"] == 3


def test_first_digits_of_several_trials_are_refused_with_the_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = submit(tmp_path / "runs")
    for number in (0, 1):
        finish(store, number)
    code, _, err = call(capsys, "show", "000")

    assert code == 2
    assert trial_id(0) in err
    assert trial_id(1) in err


@pytest.mark.parametrize("name", ["recipe.json", "status.json", "result.json"])
def test_a_damaged_record_is_told_with_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    trial = finish(submit(tmp_path / "runs"), 0)
    (trial.path / name).write_text("{")
    code, _, err = call(capsys, "show", trial.id)

    assert code == 2
    assert f"{trial.path / name} is damaged" in err
