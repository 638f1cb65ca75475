"""What a trial should look like in MLflow, and what of it was sent: without any MLflow."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from posixpath import normpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablatrix.records import Report, Result
from ablatrix.store import Store
from ablatrix.tracking.ledger import Ledger, SentSweep, SentTrial
from ablatrix.tracking.points import Point, Reading, final_points, key_of
from ablatrix.tracking.runs import Planned, flat, planned_trials, read_trial, sweep_status
from stored_sweep import START, begin, end, plan, report, trial_id

PLANNED = Planned(trial_id(0), "grid=2, seed 0", {})
EPOCHS = 8
actions = st.lists(
    st.one_of(
        st.tuples(st.just("report"), st.integers(1, 3)),
        st.tuples(st.just("cut back"), st.integers(0, EPOCHS)),
        st.tuples(st.just("mirror"), st.just(0)),
        st.tuples(st.just("lose the account"), st.just(0)),
    ),
    max_size=12,
)


def series(reports: list[Report], result: Result | None = None) -> list[Point]:
    """All points of a trial that is read for the first time."""
    reading = Reading()
    for line in reports:
        reading.add(line)
    return [*reading.points, *(final_points(result, reading.newest, 0) if result else ())]


class FakeRun:
    """MLflow's side of one run, and the mirror's account of it."""

    def __init__(self) -> None:
        self.points: list[tuple[str, int]] = []
        self.account: SentTrial | None = SentTrial("run")

    def mirror(self, lines: list[Report]) -> None:
        points = series(lines)
        if self.account is None:
            self.account = SentTrial("run")
            keys = {key for key, _ in self.points}
            self.account.adopt(points, {key: [epoch for k, epoch in self.points if k == key] for key in keys})
        unsent = self.account.unsent(points)
        self.account.advance(unsent)
        self.points += [(p.key, p.epoch) for p in unsent]


def lines_of(epoch: int, clock: int) -> list[Report]:
    """Two lines at one step, as after an epoch with an evaluation; `clock` makes each attempt's times its own."""
    both = [Report(epoch, 27 * epoch, clock, {"train.loss": 1.0 / epoch})]
    return both + [Report(epoch, 27 * epoch, clock, {"knn.top1": epoch})] * (epoch % 2 == 0)


@given(actions)
def test_every_point_arrives_once_however_a_trial_is_interrupted_and_mirrored(steps):
    run, lines, clock = FakeRun(), [], 0
    for action, amount in [*steps, ("report", EPOCHS), ("mirror", 0)]:
        if action == "report":
            first = 1 + max((line.epoch for line in lines), default=0)
            lines += [line for epoch in range(first, min(first + amount, EPOCHS + 1)) for line in lines_of(epoch, clock)]
        elif action == "cut back":
            lines = [line for line in lines if line.epoch <= amount]
            clock += 1000
        elif action == "mirror":
            run.mirror(lines)
        else:
            run.account = None

    wanted = [(key, line.epoch) for epoch in range(1, EPOCHS + 1) for line in lines_of(epoch, 0) for key in line.values]
    assert Counter(run.points) == Counter(wanted)


def test_final_metrics_stand_at_the_last_epoch_under_a_name_of_their_own():
    reports = [Report(3, 81, 12.5, {"knn.top1": 60.0})]

    points = series(reports, Result("t", {"knn.top1": 61.0, "linear.top1": 70.0}, 1, 1.0, 1, "h", "cpu"))

    assert [(p.key, p.epoch, p.time_ms, p.value) for p in points] == [
        ("knn.top1", 3, 12500, 60.0),
        ("final.knn.top1", 3, 12500, 61.0),
        ("final.linear.top1", 3, 12500, 70.0),
    ]


def test_a_result_beside_a_status_that_still_runs_is_finished(tmp_path):
    trial = begin(Store(tmp_path), 0)
    report(trial, [1])
    end(trial)
    begin(Store(tmp_path), 0)  # the status as it was between the two writes

    run = read_trial(trial, PLANNED, Reading())

    assert run is not None
    assert (run.status, run.tags["state"]) == ("FINISHED", "finished")


def test_a_trial_without_status_and_result_waits(tmp_path):
    trial = begin(Store(tmp_path), 0)
    (trial.path / "status.json").unlink()

    assert read_trial(trial, PLANNED, Reading()) is None


def test_a_trial_whose_status_is_lost_takes_its_times_from_its_reports(tmp_path):
    trial = begin(Store(tmp_path), 0)
    report(trial, [1, 2])
    end(trial)
    (trial.path / "status.json").unlink()

    run = read_trial(trial, PLANNED, Reading())

    assert run is not None
    assert (run.started_ms, run.ended_ms) == (int(1000 * (START + 60)), int(1000 * (START + 120)))


def test_a_recipe_becomes_dotted_names_and_texts():
    recipe = {"mask": {"grid": 2, "kind": "random", "extra": {}}, "sizes": [32, 64], "mixing": None, "lr": 0.05, "ema": True, "name": "1"}

    texts = dict(flat(recipe))

    assert texts == {
        "mask.grid": "2", "mask.kind": "random", "mask.extra": "{}", "sizes": "[32, 64]", "mixing": "null",
        "lr": "0.05", "ema": "true", "name": "1",
    }  # fmt: skip


@given(st.text(min_size=1, max_size=300))
def test_every_name_becomes_one_that_mlflow_takes(name):
    key = key_of(name)

    assert re.fullmatch(r"[/\w.\- ]{1,250}", key)
    assert normpath(key) == key
    assert key != "."
    assert not key.startswith(("..", "/"))


@pytest.mark.parametrize("name", ["knn.top1", "axis.grid", "cell.a/b", "train.images_per_s"])
def test_a_name_that_mlflow_takes_is_kept(name):
    assert key_of(name) == name


def test_excluded_cells_want_no_trials():
    wanted = plan(grids=["2", "4", "8"], seeds=[0])
    wanted["cells"][0]["excluded"] = "not in the paper"

    assert [t.name for t in planned_trials(wanted, "grid-sweep")] == ["grid=4", "grid=8"]


def test_a_runs_name_shows_only_what_tells_it_from_the_others():
    wanted = plan(grids=["2", "4"], seeds=[0, 1])
    for cell in wanted["cells"]:
        cell["levels"] = {"dataset": "cifar100", **cell["levels"]}

    names = [t.name for t in planned_trials(wanted, "s")]

    assert names == ["grid=2, seed 0", "grid=2, seed 1", "grid=4, seed 0", "grid=4, seed 1"]


def test_a_sweep_of_one_cell_names_its_runs_by_seed():
    only = plan(grids=[""], seeds=[0, 1], axes=[])
    for cell in only["cells"]:
        cell["id"] = ""

    assert [t.name for t in planned_trials(only, "s")] == ["seed 0", "seed 1"]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["FINISHED", "FINISHED"], "FINISHED"),
        (["FINISHED", "RUNNING", "FAILED"], "RUNNING"),
        (["FINISHED", None], "RUNNING"),
        (["KILLED", None, "FAILED"], "KILLED"),
        (["FINISHED", "FAILED"], "FAILED"),
    ],
)
def test_a_sweeps_status_follows_from_its_trials(states, status):
    assert sweep_status(states) == status


def test_the_account_reads_back_as_it_was_written(tmp_path):
    sent = SentSweep(
        "1", 12, parent="p", trials={"a": SentTrial("r", sent={"knn.top1": (3, 81)}, params=True, status="FINISHED", ended_ms=5)}
    )

    Ledger(tmp_path / "tracking.json", "http://one").write(sent)
    Ledger(tmp_path / "tracking.json", "http://two").write(SentSweep("2", 13))

    assert Ledger(tmp_path / "tracking.json", "http://one").read() == sent
    assert Ledger(tmp_path / "tracking.json", "http://two").read() == SentSweep("2", 13)


def test_an_unchanged_account_is_not_written_again(tmp_path):
    path = tmp_path / "tracking.json"
    Ledger(path, "http://one").write(SentSweep("1", 12))
    ledger = Ledger(path, "http://one")
    known = ledger.read()
    assert known is not None
    before = path.stat().st_mtime_ns, path.stat().st_ino

    ledger.write(known)

    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


@pytest.mark.parametrize("text", ["", "[]", "{half", '{"tracking": []}', '{"tracking": {"http://one": {"unknown": 1}}}'])
def test_an_account_that_cannot_be_read_is_no_account(tmp_path, text):
    path: Path = tmp_path / "tracking.json"
    path.write_text(text)

    assert Ledger(path, "http://one").read() is None
    Ledger(path, "http://one").write(SentSweep("1", 12))
    assert "http://one" in json.loads(path.read_text())["tracking"]
