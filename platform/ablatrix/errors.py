"""The exception tree. Every error that a user can meet carries its exit code.

AblatrixError (1)
├── InvalidInput (2)        a file, an option or a name that cannot be used
│   ├── SweepFileError      every problem of a sweep file, each with its line
│   └── DamagedRecord       a file of the store that cannot be read; a ValueError too
├── TrialsMissing (3)       failed or missing cells
├── NotReproduced (4)       a claim or a published number does not hold
├── Refused (5)             over budget, unsafe, or already running
├── Unreachable (6)         Ray or MLflow does not answer
└── Interrupted (130)       stopped by the user, state saved
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class AblatrixError(Exception):
    """Root of everything that Ablatrix raises on purpose."""

    exit_code = 1


class InvalidInput(AblatrixError):
    """A file, an option or a name that cannot be used."""

    exit_code = 2


class DamagedRecord(InvalidInput, ValueError):
    """A file of the store that is there and cannot be read."""

    def __init__(self, path: Path, error: Exception, remedy: str = "Take it away to run the trial again.") -> None:
        super().__init__(f"{path} is damaged ({type(error).__name__}: {error}). {remedy}")


class TrialsMissing(AblatrixError):
    """Some wanted trials failed or never ran."""

    exit_code = 3


class NotReproduced(AblatrixError):
    """A claim fails or a published number disagrees."""

    exit_code = 4


class Refused(AblatrixError):
    """Over budget, unsafe, or already running."""

    exit_code = 5


class Unreachable(AblatrixError):
    """Ray or MLflow does not answer."""

    exit_code = 6


class Interrupted(AblatrixError):
    """Stopped by the user; everything is saved."""

    exit_code = 130


@dataclass(frozen=True, order=True)
class FileProblem:
    """One problem of a file: where, and what to do. Line 0 is the command line's `--set`."""

    line: int
    message: str


class SweepFileError(InvalidInput):
    """Every problem of one sweep or recipe file."""

    def __init__(self, path: Path | str, problems: Sequence[FileProblem]) -> None:
        self.path = path
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(f"{path}:{p.line}: {p.message}" if p.line else f"--set: {p.message}" for p in self.problems))
