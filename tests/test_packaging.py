"""The wheel: what a user gets who installs without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, ROOT]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return next(place.glob("ablatrix-*.whl"))


def test_the_wheel_holds_the_three_packages_and_the_sweeps_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"ablatrix", "ablatrix_models", "ablatrix_reports"}
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sweeps").rglob("*.yaml")}
    assert {f"ablatrix/{name}" for name in shipped} <= set(names)
    assert "ablatrix_reports/templates/page.html" in names


def test_the_shipped_sweeps_are_found_in_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import ablatrix, ablatrix.cli as cli; print(ablatrix.__file__); cli.main(['check', 'quickstart'])"

    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert all(str(tmp_path / "site") in line for line in done.stdout.splitlines())
    assert "quickstart.yaml: good." in done.stdout
