"""Sweeps for the tests of reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ablatrix.store import Store
from study import Study


@pytest.fixture
def new_study(tmp_path: Path) -> Callable[..., Study]:
    """Make a study in a fresh store: `new_study({"grid": ["2", "4"]}, seeds=(0, 1))`."""

    def make(axes: Mapping[str, Sequence[str]], **options: Any) -> Study:
        return Study(Store(tmp_path / "runs"), axes, **options)

    return make
