"""Which sweep of the store a command line means, and hints that are commands which work."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from ablatrix.cli import main
from ablatrix.cli.options import overrides
from ablatrix.cli.stored import stored_sweep
from ablatrix.errors import InvalidInput
from ablatrix.job import Job, write_job
from ablatrix.plan import sweep_name
from ablatrix.store import Store
from stored_sweep import SWEEP, finish, plan, submit, trial_id
from tiny_sweep import SWEEP as FILE
from tiny_sweep import make_plan, write_sweep

SET = ["schedule.epochs=3", "mixing=none"]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ABLATRIX_STORE", raising=False)
    monkeypatch.chdir(tmp_path)


def keep(store: Store, name: str, second: int, **changes: Any) -> None:
    """A plan of this name, the older the smaller `second`."""
    store.sweep(name).submit("", plan(**changes))
    os.utime(store.sweep(name).path / "plan.json", (second, second))


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_what_set_changed_is_in_a_sweeps_name_in_any_order_and_as_it_is_read() -> None:
    names = {sweep_name("tiny", "smoke", overrides(pairs)) for pairs in (SET, SET[::-1], ["schedule.epochs=9", *SET])}
    others = {sweep_name("tiny", "smoke", overrides(pairs)) for pairs in ([], ["schedule.epochs=4"], ["schedule.epochs=.nan"])}

    assert len(names) == 1
    assert next(iter(names)).startswith("tiny@smoke+")
    assert len(others | names) == 4
    assert "tiny@smoke" in others


def test_a_plan_with_set_has_a_place_and_a_record_of_its_own(tmp_path: Path) -> None:
    plain, changed = make_plan(tmp_path), make_plan(tmp_path, overrides=overrides(SET))

    assert plain.name == "tiny"
    assert changed.name == sweep_name("tiny", None, overrides(SET))
    assert (plain.as_mapping()["set"], changed.as_mapping()["set"]) == ({}, {"schedule.epochs": 3, "mixing": "none"})


def test_set_and_profile_choose_among_what_was_run(tmp_path: Path) -> None:
    store, file = Store(tmp_path / "runs"), str(write_sweep(tmp_path, FILE + "profiles: {smoke: {seeds: 1}}\n"))
    mark = sweep_name("", None, overrides(SET))
    for second, name in enumerate(("tiny", "tiny@smoke", f"tiny{mark}", f"tiny@smoke{mark}")):
        keep(store, name, second)

    for given in (file, "tiny"):
        assert stored_sweep(store, given, None).name == "tiny"
        assert stored_sweep(store, given, "paper").name == "tiny"
        assert stored_sweep(store, given, "smoke").name == "tiny@smoke"
        assert stored_sweep(store, given, None, SET).name == f"tiny{mark}"
        assert stored_sweep(store, given, "smoke", SET).name == f"tiny@smoke{mark}"
    assert stored_sweep(store, f"tiny@smoke{mark}", None).name == f"tiny@smoke{mark}"
    assert stored_sweep(store, None, None).name == f"tiny@smoke{mark}"
    assert stored_sweep(store, None, "paper").name == f"tiny{mark}"
    assert stored_sweep(store, None, "paper", SET).name == f"tiny{mark}"


def test_the_newest_is_the_newest_of_the_profile_that_is_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    keep(store, "tiny@smoke", 1)
    keep(store, "other", 2)

    assert stored_sweep(store, None, "smoke").name == "tiny@smoke"
    with pytest.raises(InvalidInput, match=r"no sweep of this profile and `--set`\. It holds: other, tiny@smoke"):
        stored_sweep(store, None, "short")


def test_a_sweep_that_only_ran_with_set_is_found_by_its_plain_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    keep(store, "tiny+aaaaaaaa", 1)
    keep(store, "tiny+bbbbbbbb", 2)

    assert stored_sweep(store, "tiny", None).name == "tiny+bbbbbbbb"
    with pytest.raises(InvalidInput, match="holds no sweep 'tiny"):
        stored_sweep(store, "tiny", None, SET)


def test_a_file_with_a_profile_called_paper_is_found_by_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    text = FILE + "profiles: {paper: {seeds: 3}}\n"
    made = make_plan(tmp_path, text, "paper")
    keep(store, made.name, 1)

    assert made.name == "tiny@paper"
    assert stored_sweep(store, str(tmp_path / "sweep.yaml"), "paper").name == "tiny@paper"


@pytest.mark.parametrize("verb", ["verify", "status", "report", "ui", "stop", "retry", "logs"])
def test_the_hint_for_a_sweep_that_never_ran_repeats_profile_set_and_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    file = str(write_sweep(tmp_path, FILE + "profiles: {smoke: {seeds: 1}}\n"))
    options = ["--profile", "smoke", "--set", "optimizer.lr=0.5", "--set", "mixing=none", "--store", str(tmp_path / "a store")]
    code = call(verb, file, *options)
    hint = capsys.readouterr().err.split("`")[1]
    words = shlex.split(hint)

    assert code == 2
    assert words[words.index("run") + 1] == file
    assert words[words.index("run") + 2 :] == options


def test_the_hint_names_no_store_where_it_is_the_usual_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("verify", str(write_sweep(tmp_path)))

    assert "--store" not in capsys.readouterr().err


def test_a_profile_that_the_file_does_not_have_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_sweep(tmp_path, FILE + "profiles: {smoke: {seeds: 1}}\n"))
    codes = [call(verb, file, "--profile", "smok") for verb in ("verify", "submit")]

    assert codes == [2, 2]
    assert capsys.readouterr().err.count("has no profile 'smok'. Did you mean 'smoke'?") == 2


def test_a_report_of_what_ran_with_set_goes_to_its_own_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, store = str(write_sweep(tmp_path, FILE.replace("sweep: tiny", f"sweep: {SWEEP}"))), submit(tmp_path / "runs")
    name = sweep_name(SWEEP, None, overrides(SET))
    keep(store, name, 1, seeds=[0])
    finish(store, 0)
    code = call("report", file, "--set", SET[0], "--set", SET[1])

    assert code == 0
    assert (store.sweep(name).report / "report.json").is_file()
    assert not store.sweep(SWEEP).report.exists()
    assert str(store.sweep(name).report) in capsys.readouterr().err


def test_set_in_a_wrong_shape_is_told_without_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call("check", str(write_sweep(tmp_path)), "--set", "optimizer.rl=1")

    assert code == 2
    assert capsys.readouterr().err.startswith("--set: optimizer.rl is not a known key.")


def test_a_search_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = "search: {algorithm: tpe, trials: 7, space: {lr: {key: optimizer.lr, low: 0.01, high: 1.0, log: true}}}\n"
    text = FILE.replace("axes:\n  grid: {key: mask.grid, levels: [2, 4]}\nseeds: 2\n", space)
    code = call("check", str(write_sweep(tmp_path, text)))

    assert code == 0
    assert "good. Search: 7 by tpe over lr. Profiles: none." in capsys.readouterr().out


def test_logs_of_a_sweep_without_a_job_say_where_logs_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = submit(tmp_path / "runs")
    codes = [call("logs", SWEEP)]
    store.sweep(SWEEP).log.touch()
    codes.append(call("logs", SWEEP))

    assert codes == [2, 2]
    assert capsys.readouterr().err.count("was never submitted as a job") == 2


def test_logs_of_a_job_that_has_not_begun_are_found_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Store(tmp_path / "runs").sweep("tiny")
    write_job(sweep, Job("tiny-1", "tiny", "http://127.0.0.1:1", "ablatrix submit", 1.0))
    waiting = call("status", str(write_sweep(tmp_path)))
    hint = capsys.readouterr().err.split("`")[1]
    nothing = call(*shlex.split(hint)[shlex.split(hint).index("logs") :])
    sweep.log.write_text("begun\n")
    code = call("logs", "tiny")

    assert (waiting, nothing, code) == (2, 2, 0)
    assert capsys.readouterr().out == "begun\n"


@pytest.mark.parametrize("verb", ["logs", "retry", "show"])
@pytest.mark.parametrize("name", ["a" * 5000, "..", "a\0b", "abc"])
def test_what_is_neither_a_sweep_nor_a_trial_is_refused(capsys: pytest.CaptureFixture[str], verb: str, name: str) -> None:
    code = call(verb, name)
    err = capsys.readouterr().err

    assert code == 2
    assert err.startswith("error: ")
    assert len(err) < 7000


def test_retry_of_a_broken_file_tells_what_is_wrong_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call("retry", str(write_sweep(tmp_path, FILE + "extra: 1\nsweep: [\n")))

    assert code == 2
    assert "sweep.yaml:" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["status", "report", "stop", "retry"])
def test_a_file_whose_sweep_has_no_name_is_told_so_and_not_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    path = write_sweep(tmp_path, FILE.replace("sweep: tiny", "sweep: My Sweep"))
    keep(Store(tmp_path / "runs"), "unnamed", 1)

    assert call(verb, str(path), "--store", str(tmp_path / "runs")) == 2
    assert f"{path}:2: sweep has the value 'My Sweep' that is refused" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{}", '{"cells": null}', "[]"])
@pytest.mark.parametrize("verb", ["status", "list", "show"])
def test_a_plan_of_another_shape_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str, text: str
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # a long path would be wrapped within words
    trial = finish(submit(tmp_path / "runs"), 0)
    (tmp_path / "runs" / "sweeps" / SWEEP / "plan.json").write_text(text)
    code = call(verb, *([trial.id] if verb == "show" else [SWEEP] if verb == "status" else []))
    out, err = capsys.readouterr()

    assert code == (2 if verb == "status" else 0)
    assert "plan.json is damaged" in out + err or verb == "show"


@pytest.mark.parametrize("arguments", [["list"], ["plan", "sweep.yaml"], ["status"], ["run", "sweep.yaml"]])
def test_a_store_that_is_a_file_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    write_sweep(tmp_path)
    (tmp_path / "file").write_text("")
    code = call(*arguments, "--store", str(tmp_path / "file"))
    err = capsys.readouterr().err

    assert code in (0, 2)
    assert code == 0 or err.startswith("error: ")


def test_counts_take_a_trial_that_cells_share_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = submit(tmp_path / "runs")
    shared = plan()
    shared["cells"][1]["trials"] = shared["cells"][0]["trials"]
    store.sweep(SWEEP).submit("", shared)
    finish(store, 0)
    call("status", "--json")

    assert json.loads(capsys.readouterr().out)["counts"] == {"finished": 1, "waiting": 1}
    assert trial_id(0)
