from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ablatrix.errors import DamagedRecord, InvalidInput
from ablatrix.records import TrialRecipe, encode_report
from ablatrix.store import Store
from stored_sweep import begin, finish, report, submit

ID = "0123456789abcdef"


@pytest.mark.parametrize(
    "bad", ["", "abc", "g" * 16, ID.upper(), ID + "0", "../../../../etc/x", "..", "０" * 16, ID[:15] + "/", ID[:15] + "\n"]
)
def test_only_sixteen_hex_digits_are_a_trial_id(tmp_path: Path, bad: str) -> None:
    with pytest.raises(InvalidInput, match="16 hex digits are needed"):
        Store(tmp_path).trial(bad)


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../a", "/etc", "a/", "a/.."])
def test_no_sweep_name_leaves_the_store(tmp_path: Path, bad: str) -> None:
    with pytest.raises(InvalidInput, match="would leave the store"):
        Store(tmp_path).sweep(bad)


def test_a_good_id_and_name_lie_where_the_design_says(tmp_path: Path) -> None:
    store = Store(tmp_path)

    assert store.trial(ID).path == tmp_path / "trials" / ID
    assert store.sweep("grid@smoke").path == tmp_path / "sweeps" / "grid@smoke"


def test_the_option_comes_before_the_environment_before_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABLATRIX_STORE", str(tmp_path / "environment"))
    by_option, by_environment = Store.at(tmp_path / "option"), Store.at(None)
    monkeypatch.setenv("ABLATRIX_STORE", "")

    assert by_option.root == tmp_path / "option"
    assert by_environment.root == tmp_path / "environment"
    assert Store.at(None).root == tmp_path / "runs"


def test_a_store_is_absolute_and_knows_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert Store.at("~/x").root == tmp_path / "x"
    assert Store.at("y").root == tmp_path / "y"
    with pytest.raises(InvalidInput, match="cannot be a place"):
        Store.at("~nobody-of-that-name/x")


def test_an_empty_store_holds_nothing_and_is_not_made_by_looking(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")

    assert (store.trials(), store.sweeps()) == ([], [])
    assert store.free_gb() > 0
    assert not store.root.exists()


def test_a_recipe_is_written_once(tmp_path: Path) -> None:
    trial = Store(tmp_path).trial(ID)
    trial.create(TrialRecipe(ID, 1, "data", {"a": 1}))
    trial.create(TrialRecipe(ID, 2, "data", {"a": 2}))

    assert trial.recipe().seed == 1
    assert (trial.status(), trial.result(), trial.reports()) == (None, None, [])


def test_trials_and_sweeps_are_listed_by_name_without_what_is_half_made(tmp_path: Path) -> None:
    store = submit(tmp_path, "b")
    submit(tmp_path, "a")
    begin(store, 2)
    begin(store, 1)
    (tmp_path / "sweeps" / "never-submitted").mkdir()
    (tmp_path / "trials" / ".hidden").mkdir()

    assert [sweep.name for sweep in store.sweeps()] == ["a", "b"]
    assert [trial.id[-1] for trial in store.trials()] == ["1", "2"]


@pytest.mark.parametrize(
    "torn", ['{"epoch": 3, "st', '{"epoch": 3, "step": 1, "time": 0, "values": {}}', "\0\0\0\0", "é".encode()[:1].decode("latin-1")]
)
def test_a_torn_last_line_is_left_out_of_the_reports(tmp_path: Path, torn: str) -> None:
    trial = begin(submit(tmp_path), 0)
    report(trial, [1, 2])
    with trial.metrics_file.open("a") as file:
        file.write(torn)

    assert [seen.epoch for seen in trial.reports()] == [1, 2]


@pytest.mark.parametrize("name", ["recipe.json", "status.json", "result.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_a_damaged_record_is_told_with_its_file(tmp_path: Path, name: str, content: bytes) -> None:
    trial = finish(submit(tmp_path), 0)
    (trial.path / name).write_bytes(content)

    with pytest.raises(DamagedRecord, match=name):
        {"recipe.json": trial.recipe, "status.json": trial.status, "result.json": trial.result}[name]()


def test_a_damaged_plan_and_a_damaged_report_are_told_with_their_file(tmp_path: Path) -> None:
    store = submit(tmp_path)
    trial = finish(store, 0)
    trial.metrics_file.write_text("{broken}\n")
    sweep = store.sweeps()[0]
    (sweep.path / "plan.json").write_text("[]")

    with pytest.raises(DamagedRecord, match=r"metrics\.jsonl"):
        trial.reports()
    with pytest.raises(DamagedRecord, match=r"plan\.json"):
        sweep.plan()


def test_what_is_not_there_is_told_with_the_next_step(tmp_path: Path) -> None:
    store = Store(tmp_path)

    with pytest.raises(InvalidInput, match=r"no trial 0123456789abcdef in this store .* See `ablatrix list`"):
        store.trial(ID).recipe()
    with pytest.raises(InvalidInput, match=r"no sweep 'x' in this store\. See `ablatrix list`"):
        store.sweep("x").plan()


@pytest.mark.parametrize("spoilt", ["", "{", '{"epoch": 3, "step": 81', "\0\0\0\n", '{"epoch": 3}\n'])  # "": the whole line is lost
def test_the_last_line_of_a_finished_trial_is_written_anew_where_it_was_spoilt(tmp_path: Path, spoilt: str) -> None:
    trial = finish(submit(tmp_path), 0)
    lines = trial.metrics_file.read_text().splitlines(keepends=True)
    trial.metrics_file.write_text("".join(lines[:-1]) + spoilt)
    trial.mend()
    trial.mend()
    result = trial.result()
    assert result is not None

    assert [report.epoch for report in trial.reports()][:2] == [1, 2]
    assert len(trial.reports()) == 3
    assert trial.reports()[-1].values == result.metrics


def test_what_stands_behind_the_last_line_of_a_finished_trial_is_cut_off_and_the_line_is_not_doubled(tmp_path: Path) -> None:
    trial = finish(submit(tmp_path), 0)
    result, lines = trial.result(), trial.reports()
    assert result is not None
    whole = "".join(encode_report(dataclasses.replace(line, values=result.metrics) if line is lines[-1] else line) for line in lines)
    trial.metrics_file.write_text(whole + '{"epoch": 99, "st')
    trial.mend()

    assert trial.metrics_file.read_text() == whole


def test_a_late_line_of_a_fenced_attempt_behind_the_last_one_is_no_damage(tmp_path: Path) -> None:
    trial = finish(submit(tmp_path), 0)
    result, lines = trial.result(), trial.reports()
    assert result is not None
    trial.write_result(dataclasses.replace(result, attempt=2))
    last = dataclasses.replace(lines[-1], values=result.metrics, attempt=2)
    late = dataclasses.replace(lines[1], attempt=1)
    whole = "".join(encode_report(line) for line in (*lines[:-1], last, late))
    trial.metrics_file.write_text(whole)
    trial.mend()

    assert trial.metrics_file.read_text() == whole
