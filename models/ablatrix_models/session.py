"""What a training run asks of whoever runs it: somewhere to report, somewhere to save, someone to say stop."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol


class TrialStopped(Exception):
    """Raised by the training loop after it has saved a checkpoint because a stop was requested."""


class Session(Protocol):
    """The contract between `pretrain` and its caller. Nothing in it knows of sweeps, Ray or MLflow."""

    def report(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Record named values at the end of `epoch` (0 = before training) and optimiser step `step`."""
        ...

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The state last saved, or None at the start. Loadable with `weights_only=True`."""
        ...

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the saved state, atomically. Reports made before this call are kept with it."""
        ...

    def stop_requested(self) -> bool:
        """Whether the run should save and raise TrialStopped. Cheap; asked at every step."""
        ...


class MemorySession:
    """Keeps everything in memory: for tests and for using the models alone."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, int, dict[str, float]]] = []
        self.state: dict[str, Any] | None = None

    def report(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Append to `reports`."""
        self.reports.append((epoch, step, dict(values)))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The state last saved."""
        return self.state

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Keep a copy of `state`, whose tensors training goes on to change."""
        self.state = copy.deepcopy(state)

    def stop_requested(self) -> bool:
        """Never."""
        return False
