"""`cluster.json`: what the Ray that runs a sweep has and what is taken of it, written by the run so that others need no Ray."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ablatrix.errors import DamagedRecord
from ablatrix.records import SCHEMA, decode, encode, write_atomically
from ablatrix.store import SweepDirectory

FILE = "cluster.json"
WRITE_S = 5.0
STALE_S = 60.0


@dataclass(frozen=True)
class Occupancy:
    """One look at a cluster. `total` and `used` are amounts by Ray's names, memory in bytes.

    `shortage` says what a trial lacks where no node can hold one, as when the node that could is gone.
    """

    time: float
    nodes: int
    total: dict[str, float]
    used: dict[str, float]
    dashboard: str | None = None
    shortage: str | None = None
    schema: int = SCHEMA

    def __str__(self) -> str:
        amounts = [f"{_amount(name, self.used.get(name, 0.0))} of {_amount(name, self.total[name])} {name}" for name in sorted(self.total)]
        return f"{self.nodes} node{'s' * (self.nodes != 1)}: " + ", ".join(amounts)


def _amount(name: str, value: float) -> str:
    return f"{value / 1e9:.0f} GB" if name == "memory" else f"{value:g}"


def write_occupancy(sweep: SweepDirectory, occupancy: Occupancy) -> None:
    """Replace the record."""
    write_atomically(sweep.path / FILE, encode(occupancy))


def read_occupancy(sweep: SweepDirectory) -> Occupancy | None:
    """The last look, or None where there is none of the last minute: then nothing runs the sweep."""
    path = sweep.path / FILE
    try:
        found = decode(Occupancy, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DamagedRecord(path, error, "Take it away.") from error
    return found if time.time() - found.time < STALE_S else None
