"""A store with one sweep, and MLflow databases that are migrated once: a fresh one takes seconds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ablatrix.store import Store
from ablatrix.tracking.address import parse
from ablatrix.tracking.client import connect
from stored_sweep import submit


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of MLflow comes in, and none goes out."""
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")})


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(parse(f"sqlite:///{path}"))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return submit(tmp_path / "runs")


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def other_uri(tmp_path: Path, empty_database: Path) -> str:
    shutil.copy(empty_database, tmp_path / "other.db")
    return f"sqlite:///{tmp_path}/other.db"
