"""Where the shipped sweeps, recipes and published numbers lie: in the wheel, or in the checkout when editable."""

from __future__ import annotations

import difflib
import functools
from pathlib import Path

from ablatrix import document
from ablatrix.errors import InvalidInput


def root() -> Path:
    """The `sweeps/` directory."""
    package = Path(__file__).resolve().parent
    places = (package / "sweeps", package.parents[1] / "sweeps")
    for place in places:
        if place.is_dir():
            return place
    raise InvalidInput("the shipped sweeps are missing from this installation. Install Ablatrix again.")


def sweeps() -> dict[str, Path]:
    """Shipped sweep files by name, such as `mixmask/table1-grid`."""
    return _named(root(), skip=("recipes", "published"))


def recipes() -> dict[str, Path]:
    """Shipped recipe files by name, such as `mixmask/moco-cifar`."""
    return _named(root() / "recipes", skip=())


def closest_recipe(given: str) -> str | None:
    """The shipped recipe that a wrong name comes closest to, as its error suggests it; None where none does."""
    return next(iter(difflib.get_close_matches(given, list(recipes()), n=1)), None)


@functools.cache
def published_tables() -> tuple[str, ...]:
    """The published tables that `table.published` may name, such as `mixmask/table1`."""
    files = sorted((root() / "published").glob("*.yaml"))
    return tuple(f"{path.stem}/{table}" for path in files for table in document.read(path).values["tables"])


def find_sweep(given: str) -> Path:
    """The file of SWEEP: a path, or a shipped name."""
    try:
        path = Path(given).expanduser()
        if path.exists() or path.suffix in (".yaml", ".yml"):
            return path
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a home that is nobody's, a NUL
        raise InvalidInput(f"{_short(given)} cannot be the name of a file: {getattr(error, 'strerror', None) or error}.") from None
    known = sweeps()
    if given in known:
        return known[given]
    close = difflib.get_close_matches(given, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else "`ablatrix list` shows the shipped ones."
    raise InvalidInput(f"{_short(given)} is neither a file nor a shipped sweep. {hint}")


def _short(given: str) -> str:
    return repr(given if len(given) <= 80 else f"{given[:80]}…")


def _named(place: Path, skip: tuple[str, ...]) -> dict[str, Path]:
    files = sorted(place.rglob("*.yaml")) if place.is_dir() else []
    relative = {p.relative_to(place).with_suffix("").as_posix(): p for p in files}
    return {name: path for name, path in relative.items() if name.split("/")[0] not in skip}
