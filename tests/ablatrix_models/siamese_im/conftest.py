"""The rows of SiameseIM's Table 3 as recipe values (methods 1.9); colours are the augmentation's and not shown here."""

from __future__ import annotations

from typing import Any

import pytest

_RANDOM = {"kind": "random", "ratio": 0.6}
_LAYER = {"projector_norm": "layer", "decoder_norm": "layer"}
_FEATURES = {"target": "feature", "loss": "unigrad", "target_norm": "moco-like", "mask": _RANDOM}
_PIXELS = {"target": "pixel", "loss": "l2", "target_norm": "mae-like", **_LAYER}

ROWS: dict[str, dict[str, Any]] = {
    "a": _PIXELS | {"views": "same", "mask": {"kind": "random", "ratio": 0.75}},
    "b-c": _FEATURES | _LAYER | {"views": "same"},
    "d": _PIXELS | {"mask": {"kind": "random", "ratio": 0.75}},
    "e-f": _FEATURES | _LAYER,
    "g": _FEATURES,
    "h": {"target_norm": "moco-like"},
    "i": {},
    "j": {"loss": "l2"},
    "k": _FEATURES | {"loss": "global"},
}


@pytest.fixture
def table3() -> dict[str, dict[str, Any]]:
    """The method section of every row, by its letter."""
    return ROWS


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each row's method section in turn."""
    return ROWS[request.param]
