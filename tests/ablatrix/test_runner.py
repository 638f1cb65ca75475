"""Real runs through Ray, in processes of their own; the driver's death is one of the tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ablatrix.board import read_board
from ablatrix.local_ray import _is_gone
from ablatrix.store import Store
from tiny_sweep import SWEEP, write_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RUN = "import sys; from ablatrix.cli import main; main(sys.argv[1:])"
# One level cannot be trained: at this rate the loss is no number.
FAILING = SWEEP.replace("{key: mask.grid, levels: [2, 4]}", "{key: optimizer.lr, levels: [0.06, 1.0e+30]}").replace("grid:", "lr:")
# A short cell is done while a long one is at work.
UNEVEN = SWEEP + "when: [{if: {grid: 4}, set: {schedule.epochs: 15}}]\n"


def command(file: Path, store: Path) -> list[str]:
    return [sys.executable, "-c", RUN, "run", str(file), "--store", str(store), "--cpus", "2"]


def run(file: Path, store: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(file, store), capture_output=True, text=True, check=False, timeout=500)


def states(store: Path, sweep: str = "tiny") -> dict[tuple[str, int], str]:
    board = read_board(Store(store), Store(store).sweep(sweep))
    return {(cell.cell, trial.seed): trial.state for cell in board.cells for trial in cell.trials}


def outcome(store: Path) -> dict[str, Any]:
    """Final metrics and reports of every trial, without what the clock says."""
    found: dict[str, Any] = {}
    for trial in Store(store).trials():
        result = trial.result()
        reports = [(r.epoch, r.step, {k: v for k, v in r.values.items() if k != "train.images_per_s"}) for r in trial.reports()]
        found[trial.id] = (result.metrics if result else None, reports)
    return found


def test_a_sweep_with_a_failing_cell_finishes_the_others_and_says_why(tmp_path: Path) -> None:
    file, store = write_sweep(tmp_path, FAILING), tmp_path / "runs"
    first = run(file, store)
    after_first = {trial.id: trial.status() for trial in Store(store).trials()}
    second = run(file, store)
    after_second = {trial.id: trial.status() for trial in Store(store).trials()}
    failed = [trial for trial in Store(store).trials() if trial.result() is None]

    assert first.returncode == 3, first.stderr
    assert states(store) == {
        ("lr=0.06", 0): "finished", ("lr=0.06", 1): "finished", ("lr=1e+30", 0): "failed", ("lr=1e+30", 1): "failed",
    }  # fmt: skip
    assert "2 failed (diverged):" in first.stderr
    assert all(str(trial.log) in first.stderr for trial in failed)
    assert "Traceback" not in first.stderr
    assert second.returncode == 3, second.stderr
    assert "0 trials to run, 2 in the store" in second.stderr
    assert "2 diverged before and are left alone" in second.stderr
    finished = after_first.keys() - {trial.id for trial in failed}
    assert {i: after_second[i] for i in finished} == {i: after_first[i] for i in finished}
    assert (store / "sweeps" / "tiny" / "report" / "report.html").is_file()


def kill_mid_way(file: Path, store: Path) -> None:
    """Start a run, and kill its driver once one trial is done and another is at work."""
    driver = subprocess.Popen(command(file, store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    try:
        while time.monotonic() < deadline and driver.poll() is None:
            trials = Store(store).trials()
            if any(t.result() for t in trials) and any(not t.result() and len(t.reports()) >= 2 for t in trials):
                return
            time.sleep(0.02)
        pytest.fail("the run was never mid-way")
    finally:
        # Trials end of themselves within seconds of their owner's death; a test that waits for it would be of luck.
        for process in [*psutil.Process(driver.pid).children(recursive=True), psutil.Process(driver.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        driver.wait()


def test_a_killed_run_goes_on_from_its_checkpoints_to_the_same_numbers(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, UNEVEN)
    kill_mid_way(file, tmp_path / "killed")
    done = {trial.id: trial.status() for trial in Store(tmp_path / "killed").trials() if trial.result()}
    attempts = {trial.id: status.attempt for trial in Store(tmp_path / "killed").trials() if (status := trial.status())}
    # The last report may have been made just before its checkpoint.
    begun = {t.id: t.reports()[:-1] for t in Store(tmp_path / "killed").trials() if not t.result() and len(t.reports()) > 1}
    again = run(file, tmp_path / "killed")
    undisturbed = run(file, tmp_path / "undisturbed")

    assert (again.returncode, undisturbed.returncode) == (0, 0), again.stderr + undisturbed.stderr
    assert done
    assert begun
    assert f"{4 - len(done)} trials to run, {len(done)} in the store" in again.stderr
    for trial in Store(tmp_path / "killed").trials():
        status = trial.status()
        assert status is not None
        assert status.attempt == attempts.get(trial.id, 0) + (trial.id not in done)
        assert status == done.get(trial.id, status)
        kept = begun.get(trial.id, [])
        assert trial.reports()[: len(kept)] == kept  # with their times: these epochs were not trained again
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "undisturbed")


def test_a_group_that_is_told_to_end_saves_its_trials_first(tmp_path: Path) -> None:
    file, store = write_sweep(tmp_path, UNEVEN), tmp_path / "runs"
    driver = subprocess.Popen(command(file, store), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        deadline = time.monotonic() + 400
        while driver.poll() is None and time.monotonic() < deadline and not any(len(t.reports()) >= 2 for t in Store(store).trials()):
            time.sleep(0.02)
        ours = psutil.Process(driver.pid).children(recursive=True)
        os.killpg(driver.pid, signal.SIGTERM)  # as schedulers do: Ray's daemons and workers get it too
        _, told = driver.communicate(timeout=45)  # a run whose Ray has gone waits for a minute
    finally:
        driver.kill()
        driver.wait()

    assert driver.returncode == 130, told
    assert "their checkpoints are saved" in told
    assert "stopped" in states(store).values()
    assert "lost" not in states(store).values()
    assert [process.name() for process in psutil.wait_procs(ours, timeout=10)[1] if not _is_gone(process)] == []


def test_two_sweeps_at_once_run_the_trials_that_both_want_once(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append(write_sweep(tmp_path / name, SWEEP.replace("sweep: tiny", f"sweep: {name}")))
    store = tmp_path / "runs"
    drivers = [subprocess.Popen(command(file, store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for file in files]
    codes = [driver.wait(270) for driver in drivers]
    attempts = [status.attempt for trial in Store(store).trials() if (status := trial.status())]

    assert codes == [0, 0]
    assert attempts == [1, 1, 1, 1]
    assert set(states(store, "one").values()) == set(states(store, "two").values()) == {"finished"}
