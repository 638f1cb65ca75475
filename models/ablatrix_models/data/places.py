"""Where datasets and caches lie, and the one error of this package. Free of torch and numpy."""

from __future__ import annotations

import os
from pathlib import Path

from ablatrix_models.recipe.data import Data

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


class DataError(Exception):
    """Images that cannot be had: absent, broken, or not what the recipe says. Names the place and the next step."""


def cache_root() -> Path:
    """Where derived files are kept: `$ABLATRIX_CACHE`, else `~/.cache/ablatrix`. Safe to delete at any time."""
    return _directory("ABLATRIX_CACHE", Path("~/.cache/ablatrix"))


def data_root() -> Path:
    """Where named datasets are looked for: `$ABLATRIX_DATA`, else `~/.cache/ablatrix/data`."""
    return _directory("ABLATRIX_DATA", Path("~/.cache/ablatrix/data"))


def locate(config: Data) -> Path | None:
    """The directory in which `config` says its files are, existing or not; None for digits, which scikit-learn ships."""
    if config.name == "digits":
        return None
    if config.path:
        return Path(config.path).expanduser()
    place = data_root() / config.name
    if config.name == "fashion-mnist" and not place.is_dir() and DEBIAN_FASHION_MNIST.is_dir():
        return DEBIAN_FASHION_MNIST
    return place


def _directory(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()
