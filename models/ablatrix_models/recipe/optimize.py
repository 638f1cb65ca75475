"""Optimiser, schedule and arithmetic of one training run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.fields import Problem, value


@dataclass(frozen=True)
class Optimizer:
    """The optimiser and its constants."""

    name: Literal["sgd", "adam", "adamw"] = value("sgd", "`adam` adds L2 to the gradient, `adamw` decays the weights")
    lr: float = value(0.06, "learning rate at its peak", low=0.0)
    momentum: float = value(0.9, "of SGD", low=0.0, high=1.0)
    betas: tuple[float, float] = value((0.9, 0.999), "of Adam and AdamW", low=0.0, high=1.0)
    weight_decay: float = value(5e-4, "per step", low=0.0)
    clip_norm: float | None = value(None, "largest norm of all gradients together; empty does not clip", low=1e-9, added=True)


@dataclass(frozen=True)
class Schedule:
    """How long, in which batches, and how the learning rate moves."""

    epochs: int = value(200, "0 evaluates the untrained network", low=0)
    batch_size: int = value(512, "images per step; the last incomplete batch is dropped", low=2)
    shape: Literal["cosine", "step", "constant"] = value("cosine", "of the learning rate after the warm-up")
    per: Literal["epoch", "step"] = value("epoch", "the learning rate moves once an epoch, or at every step")
    first_epoch: Literal[0, 1] = value(0, "epochs count from 0, or from 1 as in the CIFAR MoCo demo, whose last epoch has lr 0")
    accumulate: int = value(
        1, "parts that a batch is computed in, one after the other; batch norm and losses see one part", low=1, added=True
    )
    warmup_epochs: int = value(0, "linear warm-up", low=0)
    warmup_steps: int = value(0, "linear warm-up in steps, instead of epochs", low=0)
    warmup_from: Literal["first", "zero"] = value(
        "first", "the warm-up's first step has the first of its equal parts, or 0 as in MAE's and SiameseIM's code", added=True
    )
    milestones: tuple[int, ...] = value((), "epochs at which the step schedule multiplies by `gamma`; negative counts from the end")
    gamma: float = value(0.1, "factor at each milestone", low=0.0, high=1.0)
    checkpoint_epochs: int = value(1, "epochs between checkpoints", low=1, identity=False)
    until: int = value(0, "the epoch at which to end and evaluate, of a schedule that is made for more; 0 is its last", low=0, added=True)

    @property
    def end(self) -> int:
        """The last epoch that is trained."""
        return self.until or self.epochs

    @property
    def part_size(self) -> int:
        """Images in each part of a batch."""
        return self.batch_size // self.accumulate

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if self.batch_size % self.accumulate or self.part_size < 2:
            yield Problem(
                "accumulate", f"is {self.accumulate}, which does not cut the batch of {self.batch_size} into equal parts of 2 or more."
            )
        if self.until > self.epochs:
            yield Problem("until", f"is {self.until}, but the schedule has {self.epochs} epochs. Use {self.epochs} or less.")
        if self.warmup_epochs and self.warmup_steps:
            yield Problem("warmup_steps", "stands beside warmup_epochs. Keep one of the two.")
        if self.epochs and self.warmup_epochs >= self.epochs:
            yield Problem("warmup_epochs", f"is {self.warmup_epochs}, so the {self.epochs} epochs would end inside the warm-up.")
        if self.shape == "step" and not self.milestones:
            yield Problem("milestones", "are needed by the step schedule.")
        early = [m for m in self.milestones if m < 0 and self.epochs + m < 0]
        if self.epochs and self.shape == "step" and early:
            yield Problem(
                "milestones",
                f"have {early[0]}, counted from the end, but there are only {self.epochs} epochs, so the learning rate would start out "
                f"multiplied. Use {-self.epochs} or later.",
            )


@dataclass(frozen=True)
class Compute:
    """Arithmetic that changes rounding, and so the result."""

    precision: Literal["fp32", "bf16", "fp16"] = value(
        "fp32", "autocast type of the forward pass; weights, EMA and losses stay fp32. fp16 scales the loss, as SiameseIM's release does"
    )
    channels_last: bool = value(
        True, "memory layout of images and convolutions; on a CPU not of ResNets narrower than 0.11, which torch's kernels cannot bear"
    )
    compile: bool = value(False, "torch.compile the encoder")
    recompute: bool = value(
        False, "transformer blocks keep no activations but compute them again: less memory, the same bits", identity=False
    )

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if self.compile and self.recompute:
            yield Problem("recompute", "is true beside compile, but torch cannot compile blocks that are computed again. Use one.")
