"""Scalar random draws for rejection samplers, all derived from one torch generator."""

from __future__ import annotations

import random
from typing import Protocol

import torch


class Draws(Protocol):
    """The part of `random.Random` that the samplers use, so that a test can replay the released code's own stream."""

    def uniform(self, a: float, b: float, /) -> float:
        """A float between `a` and `b`, whichever is the larger."""
        ...

    def randint(self, a: int, b: int, /) -> int:
        """An integer in [a, b], both ends included."""
        ...

    def betavariate(self, alpha: float, beta: float, /) -> float:
        """A float in [0, 1] from Beta(alpha, beta)."""
        ...


def draw_seed(generator: torch.Generator) -> int:
    """63 random bits, to seed a stream that torch's CPU generator cannot serve itself (scalars in a loop, another device)."""
    return int(torch.randint(2**63 - 1, (), generator=generator).item())


def draws_from(generator: torch.Generator) -> Draws:
    """A stream of scalars that is a function of `generator`'s state."""
    return random.Random(draw_seed(generator))
