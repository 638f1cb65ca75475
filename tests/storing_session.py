"""A session for tests that keeps its checkpoint as a file would."""

from __future__ import annotations

import io
from typing import Any

import torch

from ablatrix_models.session import MemorySession

WALL_CLOCK = "train.images_per_s"


class StoringSession(MemorySession):
    """Keeps the checkpoint as a file would, and asks to stop at the `stop_at`-th question."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.file: bytes | None = None
        self.kept = 0
        self.stop_at = stop_at
        self.asked = 0

    def load_checkpoint(self) -> dict[str, Any] | None:
        del self.reports[self.kept :]
        return torch.load(io.BytesIO(self.file), weights_only=True) if self.file else None

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        self.file, self.kept = file.getvalue(), len(self.reports)

    def stop_requested(self) -> bool:
        self.asked += 1
        return self.asked == self.stop_at

    def values(self) -> list[tuple[int, int, dict[str, float]]]:
        """The reports without what the clock says."""
        return [(epoch, step, {k: v for k, v in found.items() if k != WALL_CLOCK}) for epoch, step, found in self.reports]
