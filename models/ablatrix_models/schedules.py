"""The learning rate over a run, as a pure function of the recipe and the step."""

from __future__ import annotations

import math

from ablatrix_models.recipe.optimize import Schedule


def learning_rate_factor(schedule: Schedule, step: int, steps_per_epoch: int) -> float:
    """What the peak learning rate is multiplied by at optimiser step `step` (from 0).

    Linear warm-up rises to 1 at its last step, or, from zero, at the step after it. The cosine runs over the rest, by whole epochs or
    by steps, as the released MoCo code (per epoch, from 0 or 1) and the SimSiam base (per step, after the warm-up) do.
    """
    warmup = schedule.warmup_steps or schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + (schedule.warmup_from == "first")) / warmup
    if schedule.shape == "constant":
        return 1.0
    if schedule.shape == "step":
        return _steps_factor(schedule, step // steps_per_epoch)
    return _cosine_factor(schedule, step, steps_per_epoch, schedule.warmup_epochs)


def _steps_factor(schedule: Schedule, epoch: int) -> float:
    """Multiplied by gamma from each milestone on; a negative milestone counts from the end."""
    passed = sum(epoch >= (m if m >= 0 else schedule.epochs + m) for m in schedule.milestones)
    return schedule.gamma**passed


def _cosine_factor(schedule: Schedule, step: int, steps_per_epoch: int, warmup_epochs: int) -> float:
    length = schedule.epochs - warmup_epochs
    if schedule.per == "epoch":
        done = step // steps_per_epoch - warmup_epochs + schedule.first_epoch
    else:
        done = step / steps_per_epoch - warmup_epochs
    return 0.5 * (1.0 + math.cos(math.pi * done / length))
