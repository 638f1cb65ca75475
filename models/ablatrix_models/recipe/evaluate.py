"""How a trained encoder is judged. The protocols are in `ablatrix_models.evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.fields import Problem, value


@dataclass(frozen=True)
class Knn:
    """k nearest neighbours of test images among training images; metric `knn.top1` in percent."""

    kind: Literal["off", "cosine", "euclidean"] = value("cosine", "MoCo's weighted cosine vote, or the unweighted Euclidean one")
    features: Literal["backbone", "projection"] = value("projection", "pooled backbone features, or the head's output")
    k: int = value(200, "neighbours", low=1)
    temperature: float = value(0.1, "votes weigh exp(cosine / temperature)", low=1e-6)
    labels_per_class: int | None = value(None, "use only this many labelled images per class, drawn `draws` times", low=1)
    draws: int = value(1, "random label subsets to average over; without effect where every label is used", low=1)


@dataclass(frozen=True)
class Linear:
    """A linear classifier on frozen features; metric `linear.top1` in percent."""

    kind: Literal["off", "moco", "cached", "lbfgs"] = value(
        "off", "MoCo's SGD on augmented images; Adam on features computed once; or, quicker and of no paper, L-BFGS on those, standardised"
    )
    epochs: int = value(100, "passes over the training set; of `lbfgs` its iterations at most", low=1)
    batch_size: int = value(256, "images per step; `lbfgs` takes all at once", low=1)
    lr: float = value(30.0, "learning rate at the start, of `moco` and `cached`", low=0.0)
    final_lr: float = value(1e-6, "`cached` only: reached by exponential decay", low=0.0)
    weight_decay: float = value(0.0, "L2", low=0.0)
    milestones: tuple[int, ...] = value((60, 80), "`moco` only: epochs at which lr is multiplied by 0.1", low=1)

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if self.kind == "lbfgs" and not self.weight_decay:
            yield Problem("weight_decay", "is 0, but without L2 the weights of separable features grow for ever. 1e-3 is a good value.")
        if self.kind != "cached":
            return
        if not 0 < self.final_lr <= self.lr:
            yield Problem("final_lr", f"is {self.final_lr:g}, but lr decays to it from {self.lr:g}. Use a value above 0 and up to lr.")
        if self.lr > 1:
            yield Problem("lr", f"is {self.lr:g}, which suits `moco` and not the Adam of `cached`. The published value is 0.01.")


@dataclass(frozen=True)
class Finetune:
    """Training the whole network with a share of the labels; metric `finetune.top1` in percent (MixMask, Table 10)."""

    kind: Literal["off", "sgd"] = value("off", "SGD with its own learning rate for the classifier")
    labels: float = value(1.0, "share of each class's training labels", low=0.0001, high=1.0)
    epochs: int = value(20, "passes over the labelled images", low=1)
    batch_size: int = value(256, "images per step", low=1)
    lr: float = value(0.001, "of the pretrained network", low=0.0)
    classifier_lr: float = value(0.05, "of the new linear layer", low=0.0)
    weight_decay: float = value(0.0, "L2", low=0.0)
    milestones: tuple[int, ...] = value((12, 16), "epochs at which both rates are multiplied by 0.1", low=1)


@dataclass(frozen=True)
class Evaluate:
    """Which protocols run, and when. Test labels are only ever counted against."""

    every: int = value(0, "epochs between k-NN evaluations during training; 0 means only at the end", low=0, identity=False)
    knn: Knn = value(Knn, "k nearest neighbours")
    linear: Linear = value(Linear, "linear probe")
    finetune: Finetune = value(Finetune, "full or semi-supervised finetuning")

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if self.knn.kind == self.linear.kind == self.finetune.kind == "off":
            yield Problem("", "has every protocol off, so the trial would have no metric. Turn one on.")

    def metrics(self) -> tuple[str, ...]:
        """The names of the final metrics that these protocols yield."""
        return tuple(f"{name}.top1" for name in ("knn", "linear", "finetune") if getattr(self, name).kind != "off")
