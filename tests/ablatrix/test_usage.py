"""Samples of CPU and memory: right, thinned out over time, and readable whatever a kill left behind."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from ablatrix import usage
from ablatrix.store import TrialDirectory
from ablatrix.usage import UsageLog


@pytest.fixture
def trial(tmp_path: Path) -> TrialDirectory:
    return TrialDirectory(tmp_path)


def test_memory_that_is_taken_is_seen_in_megabytes(trial: TrialDirectory) -> None:
    log = UsageLog(trial.usage_file, 0.0)
    log.sample()
    taken = np.ones(100_000_000, dtype=np.uint8)
    log.sample(last=True)
    before, after = (sample.values["memory_mb"] for sample in trial.usage())

    assert taken.nbytes == 100e6
    assert 80 < after - before < 150


def test_a_core_that_is_kept_busy_counts_by_its_processor_time(trial: TrialDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    log = UsageLog(trial.usage_file, 0.0)
    log._began = log._looked = log._looked - 10.0
    monkeypatch.setattr(log, "_cpu_seconds", lambda: log._cpu_s + 5.0)
    log.sample()

    assert trial.usage()[0].values["cpu_percent"] == pytest.approx(50.0, abs=1.0)


def test_a_later_attempt_counts_on_from_the_work_before(trial: TrialDirectory) -> None:
    UsageLog(trial.usage_file, 0.0).sample()
    UsageLog(trial.usage_file, 100.0).sample()
    first, second = trial.usage()

    assert first.seconds < 10
    assert 100 <= second.seconds < 110
    assert abs(second.time - time.time()) < 60


def test_samples_become_rarer_with_age_and_the_last_one_is_always_written(trial: TrialDirectory) -> None:
    log = UsageLog(trial.usage_file, 0.0)
    log._began -= 24 * 3600.0
    for _ in range(5):
        log.sample()
    log.sample(last=True)

    assert len(trial.usage()) == 2


def test_a_line_torn_off_by_a_kill_costs_itself_alone(trial: TrialDirectory) -> None:
    UsageLog(trial.usage_file, 0.0).sample()
    with trial.usage_file.open("a") as file:
        file.write('{"seconds": 5, "ti')
    UsageLog(trial.usage_file, 9.0).sample()

    assert [int(sample.seconds) for sample in trial.usage()] == [0, 9]


def test_a_process_without_a_gpu_reports_none(trial: TrialDirectory) -> None:
    UsageLog(trial.usage_file, 0.0).sample()

    assert set(trial.usage()[0].values) == {"cpu_percent", "memory_mb", "machine_cpu_percent", "machine_memory_percent"}


def test_a_gpus_memory_is_this_processs_own_and_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 3_000_000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2_000_000)

    def no_nvml() -> int:
        raise ModuleNotFoundError("pynvml")

    monkeypatch.setattr(torch.cuda, "utilization", no_nvml)
    without = usage.gpu_usage()
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 97)

    assert without == {"gpu_memory_mb": 3.0, "gpu_memory_peak_mb": 2.0}
    assert usage.gpu_usage() == {**without, "gpu_percent": 97.0}


def test_a_disk_that_is_full_costs_the_sample_and_not_the_trial(
    trial: TrialDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ablatrix.attempt import Attempt, Heartbeat

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(UsageLog, "sample", full)
    with Heartbeat(Attempt(trial, trial.path / "stop", 1, 1), lambda: True):
        pass
    monkeypatch.setattr(UsageLog, "sample", lambda *_, **__: (_ for _ in ()).throw(psutil.AccessDenied()))
    with Heartbeat(Attempt(trial, trial.path / "stop", 1, 1), lambda: True):
        pass

    assert capsys.readouterr().out.count("The machine could not be measured") == 2
