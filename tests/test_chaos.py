"""Two rounds of chaos in every run of the tests; `make chaos` has a hundred, of every kind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chaos.storm import build_database, one_round, undisturbed_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database in which nothing is."""
    return build_database(tmp_path_factory.mktemp("database") / "pristine.db")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pristine: Path) -> dict[str, Any]:
    """What an undisturbed run reports."""
    return undisturbed_run(tmp_path_factory.mktemp("calm"), pristine)


def test_a_machine_that_dies_spoilt_records_and_a_killed_trial_change_no_number_and_no_line(
    tmp_path: Path, pristine: Path, undisturbed: dict[str, Any]
) -> None:
    with one_round(0, "local", tmp_path / "round", undisturbed, pristine) as (weather, wrong):
        assert not wrong, "\n".join(wrong)
        assert weather.done


def test_a_full_disk_costs_no_number_and_no_line(tmp_path: Path, pristine: Path, undisturbed: dict[str, Any]) -> None:
    if not can_mount(tmp_path):
        pytest.skip("a file system of limited size cannot be mounted here (root and mount are needed)")
    with one_round(3, "disk", tmp_path / "round", undisturbed, pristine) as (weather, wrong):
        assert not wrong, "\n".join(wrong)
        assert any("filled the disk" in what for what in weather.done)


def can_mount(place: Path) -> bool:
    if os.getuid() != 0:
        return False
    (place / "mount").mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place / "mount")], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    if mounted.returncode == 0:
        subprocess.run(["umount", str(place / "mount")], check=True)
    return mounted.returncode == 0
