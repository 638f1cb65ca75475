from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ablatrix import wheel
from ablatrix.wheel import build_wheel


def test_the_wheel_installs_without_a_network_and_runs(tmp_path: Path) -> None:
    built = build_wheel(tmp_path)
    target = tmp_path / "target"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*install, str(built)], check=True, capture_output=True)
    code = "import ablatrix, sys; from ablatrix.shipped import sweeps; print(ablatrix.__file__); sys.exit('quickstart' not in sweeps())"
    ran = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(target)}, capture_output=True, text=True, check=True)

    assert str(target) in ran.stdout


def test_equal_code_makes_an_equal_wheel(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    one, other = build_wheel(tmp_path / "a"), build_wheel(tmp_path / "b")

    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_other_code_makes_a_wheel_of_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray installs a wheel once for each name."""
    before = build_wheel(tmp_path)
    files = list(wheel._files())
    monkeypatch.setattr(wheel, "_files", lambda: [(name, data + b"\n") for name, data in files])

    assert build_wheel(tmp_path).name != before.name


def test_the_wheel_names_no_requirements_and_holds_no_compiled_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as archive:
        metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("METADATA"))

        assert "Requires-Dist" not in metadata
        assert {"ablatrix/cli/app.py", "ablatrix_models/pretrain.py", "ablatrix/sweeps/quickstart.yaml"} <= set(archive.namelist())
        assert not [name for name in archive.namelist() if name.endswith(".pyc")]
