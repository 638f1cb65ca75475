"""The trial id: what changes a trial's result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ablatrix_models.recipe import Recipe

DIGITS = 16


def trial_id(recipe: Recipe, seed: int, data: str) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of recipe, seed and data fingerprint.

    Paths, threads, GPU shares and names stay out; equal id means the same trial, in any sweep.
    """
    return replicate_id(recipe.identity(), seed, data)


def replicate_id(identity: Mapping[str, Any], seed: int, data: str) -> str:
    """The same from `Recipe.identity()`, which the seeds of one cell share."""
    return digest({"recipe": identity, "seed": seed, "data": data})


def digest(value: Any) -> str:
    """16 hex digits over the canonical JSON (sorted keys, no spaces, shortest round-trip numbers) of plain values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
