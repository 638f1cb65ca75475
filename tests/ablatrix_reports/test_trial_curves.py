"""The curves of a trial that has ended: drawn once, from what it reported."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from ablatrix.records import Report, encode_report
from ablatrix.store import Store
from ablatrix_reports.trial_curves import write_trial_curves
from stored_sweep import SWEEP, begin, end, finish, report, submit


@pytest.fixture
def store(tmp_path) -> Store:
    return submit(tmp_path / "runs")


def test_an_ended_trial_gets_its_loss_and_its_knn_curve_and_a_running_one_waits(store):
    ended, running = finish(store, 0), begin(store, 1)
    report(running, [1, 2])
    drawn = write_trial_curves(store, SWEEP)

    assert drawn == 2
    assert [path.name for path in ended.picture_files()] == ["knn.png", "loss.png"]
    assert running.picture_files() == []


def test_a_picture_shows_something_and_is_of_a_readable_size(store):
    trial = finish(store, 0)
    write_trial_curves(store, SWEEP)
    pixels = np.asarray(Image.open(trial.pictures / "loss.png").convert("L"))

    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 600
    assert 0.001 < (pixels < 128).mean() < 0.3


def test_a_curve_is_drawn_again_only_after_new_reports(store):
    trial = finish(store, 0)
    write_trial_curves(store, SWEEP)
    unchanged = write_trial_curves(store, SWEEP)
    report(trial, [4])
    os.utime(trial.metrics_file, ns=(1 << 62, 1 << 62))

    assert (unchanged, write_trial_curves(store, SWEEP)) == (0, 2)


def test_a_trial_without_a_knn_curve_is_not_read_again_at_every_look(store, monkeypatch):
    trial = begin(store, 0)
    trial.metrics_file.write_text("".join(encode_report(Report(epoch, epoch, 1.0, {"train.loss": 1.0 / epoch})) for epoch in (1, 2)))
    end(trial)
    first = write_trial_curves(store, SWEEP)
    monkeypatch.setattr("ablatrix.store.TrialDirectory.reports", lambda _: pytest.fail("it was read again"))

    assert (first, write_trial_curves(store, SWEEP)) == (1, 0)


def test_equal_reports_give_equal_bytes(store):
    first, second = finish(store, 0), finish(store, 0)
    write_trial_curves(store, SWEEP)
    before = (first.pictures / "loss.png").read_bytes()
    (first.pictures / "loss.png").unlink()
    write_trial_curves(store, SWEEP)

    assert (second.pictures / "loss.png").read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "{damaged\n", encode_report(Report(1, 1, 1.0, {"train.loss": float("nan")}))], ids=["none", "damaged", "nan"]
)
def test_a_trial_without_a_curve_gets_no_picture_and_stops_no_other(store, text):
    broken, whole = begin(store, 0), finish(store, 1, seed=1)
    broken.metrics_file.write_text(text)
    end(broken, "failed")
    write_trial_curves(store, SWEEP)

    assert broken.picture_files() == []
    assert len(whole.picture_files()) == 2
