"""SiameseIM's schedules as functions of training progress (methods 1.5, 1.7 and 1.8)."""

from __future__ import annotations

import math
from collections.abc import Iterable


def target_momentum(start: float, progress: float, *, constant: bool = False) -> float:
    """EMA momentum of the target at `progress` 0..1 of the run: from `start` to 1 by cosine, or `start` throughout."""
    return start if constant else 1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2


def learning_rate(peak: float, epoch: float, epochs: int, warmup_epochs: int, minimum: float = 0.0) -> float:
    """The rate at fractional `epoch`: linear from 0 to `peak`, then cosine to `minimum`; the first step's rate is 0."""
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    done = (epoch - warmup_epochs) / (epochs - warmup_epochs)
    return minimum + (peak - minimum) * (1 + math.cos(math.pi * done)) / 2


def layer_rates(names: Iterable[str], depth: int, decay: float) -> dict[str, float]:
    """What the learning rate of each parameter of a finetuned encoder is multiplied by (layer decay; Clark et al. 2020).

    names: of `siamese_im.vit.Encoder`'s parameters, or of anything that lies after it, which keeps 1.
    """
    return {name: decay ** (depth + 1 - _layer(name, depth)) for name in names}


def _layer(name: str, depth: int) -> int:
    """0 for the embedding, 1 to `depth` for the blocks, `depth` + 1 after them."""
    if name.startswith(("cls_token", "patch_embedding")):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else depth + 1
