"""Golden vectors made by the official code, read from outside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def load_golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of `golden/<name>.npz`; skips the test where the reference is absent."""
    reference = Path(os.environ.get("ABLATRIX_REFERENCE", ROOT.parent / "shared" / "reference"))
    path = reference / "golden" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no golden file {name}.npz: set ABLATRIX_REFERENCE to the directory that holds golden/")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
