"""How a trained encoder is judged. The protocols are in `ablatrix_models.evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from ablatrix_models.recipe.fields import Problem, value

# Protocols that the papers report and that are not built: the first part of their metrics' names -> what they are.
NOT_BUILT: dict[str, str] = {
    "coco": "detection and segmentation on COCO",
    "voc": "detection on Pascal VOC",
    "lvis": "detection and segmentation on LVIS",
    "ade20k": "semantic segmentation on ADE20k",
    "imagenet-a": "the robustness benchmark ImageNet-A",
    "imagenet-r": "the robustness benchmark ImageNet-R",
    "imagenet-sketch": "the robustness benchmark ImageNet-Sketch",
    "imagenet-c": "the robustness benchmark ImageNet-C",
    "robustness": "the four robustness benchmarks",
}


@dataclass(frozen=True)
class Knn:
    """k nearest neighbours of test images among training images; metric `knn.top1` in percent."""

    kind: Literal["off", "cosine", "euclidean"] = value("cosine", "MoCo's weighted cosine vote, or the unweighted Euclidean one")
    features: Literal["backbone", "projection"] = value("projection", "pooled backbone features, or the head's output")
    k: int = value(200, "neighbours", low=1)
    temperature: float = value(0.1, "votes weigh exp(cosine / temperature)", low=1e-6)
    labels_per_class: int | None = value(None, "use only this many labelled images per class, drawn `draws` times", low=1)
    draws: int = value(1, "random label subsets to average over; without effect where every label is used", low=1)

    def read(self) -> tuple[str, ...]:
        """The keys beside `kind` that this protocol uses."""
        few = ("draws",) if self.labels_per_class else ()
        keys = ("features", "k", "labels_per_class", *few)
        return {"off": (), "cosine": (*keys, "temperature"), "euclidean": keys}[self.kind]


@dataclass(frozen=True)
class Linear:
    """A linear classifier on frozen features; metric `linear.top1` in percent."""

    kind: Literal["off", "moco", "cached", "lbfgs", "lars"] = value(
        "off",
        "MoCo's SGD on augmented images; Adam on features computed once; or, quicker and of no paper, L-BFGS on those, standardised; "
        "or MAE's and SiameseIM's LARS on normalised features of augmented images in large batches",
    )
    epochs: int = value(100, "passes over the training set; of `lbfgs` its iterations at most", low=1)
    batch_size: int = value(256, "images per step; `lbfgs` takes all at once", low=1)
    lr: float = value(30.0, "learning rate: of `moco` and `cached` at the start, of `lars` at its peak", low=0.0)
    final_lr: float = value(1e-6, "`cached` only: reached by exponential decay", low=0.0)
    weight_decay: float = value(0.0, "L2", low=0.0)
    milestones: tuple[int, ...] = value((60, 80), "`moco` only: epochs at which lr is multiplied by 0.1", low=1)
    warmup_epochs: int = value(10, "`lars` only: linear warm-up, by steps, before the cosine to 0", low=0, added=True)

    def read(self) -> tuple[str, ...]:
        """The keys beside `kind` that this protocol uses."""
        keys = ("epochs", "weight_decay")
        steps = (*keys, "batch_size", "lr")
        return {
            "off": (),
            "moco": (*steps, "milestones"),
            "cached": (*steps, "final_lr"),
            "lbfgs": keys,
            "lars": (*steps, "warmup_epochs"),
        }[self.kind]

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if self.kind == "lbfgs" and not self.weight_decay:
            yield Problem("weight_decay", "is 0, but without L2 the weights of separable features grow for ever. 1e-3 is a good value.")
        if self.kind == "lars":
            yield from _warmup_problems(self.warmup_epochs, self.epochs)
            if self.lr > 20:
                yield Problem("lr", f"is {self.lr:g}, which suits `moco`. The published value of `lars` is 6.4, for batches of 16,384.")
        if self.kind != "cached":
            return
        if not 0 < self.final_lr <= self.lr:
            yield Problem("final_lr", f"is {self.final_lr:g}, but lr decays to it from {self.lr:g}. Use a value above 0 and up to lr.")
        if self.lr > 1:
            yield Problem("lr", f"is {self.lr:g}, which suits `moco` and not the Adam of `cached`. The published value is 0.01.")


@dataclass(frozen=True)
class Finetune:
    """Training the whole network with a share of the labels; metric `finetune.top1` in percent."""

    kind: Literal["off", "sgd", "vit"] = value(
        "off",
        "SGD with its own learning rate for the classifier (MixMask, Table 10); "
        "or, of a ViT, AdamW with layer decay and strong regularisation (MAE's and SiameseIM's code, methods 1.8)",
    )
    labels: float = value(1.0, "share of each class's training labels", low=0.0001, high=1.0)
    epochs: int = value(20, "passes over the labelled images; SiameseIM 100", low=1)
    batch_size: int = value(256, "images per step; SiameseIM 1024", low=1)
    lr: float = value(0.001, "`sgd`: of the pretrained network; `vit`: of the classifier, at its peak", low=0.0)
    classifier_lr: float = value(0.05, "`sgd` only: of the new linear layer", low=0.0)
    weight_decay: float = value(0.0, "L2 of `sgd`, decay of `vit`'s matrices per step; SiameseIM 0.05", low=0.0)
    milestones: tuple[int, ...] = value((12, 16), "`sgd` only: epochs at which both rates are multiplied by 0.1", low=1)
    warmup_epochs: int = value(5, "`vit` only: linear warm-up, by steps, before the cosine", low=0, added=True)
    min_lr: float = value(1e-6, "`vit` only: where the cosine ends, in the classifier", low=0.0, added=True)
    layer_decay: float = value(0.65, "`vit` only: each layer's rate over that of the layer after it", low=0.01, high=1.0, added=True)
    drop_path: float = value(0.1, "`vit` only: stochastic depth of the last block, rising linearly from 0", low=0.0, high=0.99, added=True)
    mixup: float = value(0.8, "`vit` only: alpha of mixup, which alternates at random with cutmix; 0 does without", low=0.0, added=True)
    cutmix: float = value(1.0, "`vit` only: alpha of cutmix; 0 does without", low=0.0, added=True)
    smoothing: float = value(0.1, "`vit` only: share of each label spread over all classes", low=0.0, high=0.99, added=True)
    rand_augment: int = value(
        9, "`vit` only: magnitude of timm's RandAugment, two of its operations an image; 0 does without", low=0, high=10, added=True
    )
    rand_augment_std: float = value(
        0.5, "`vit` only: standard deviation of that magnitude from one operation to the next", low=0.0, added=True
    )
    erasing: float = value(0.25, "`vit` only: probability of erasing a rectangle, with noise", low=0.0, high=1.0, added=True)

    def read(self) -> tuple[str, ...]:
        """The keys beside `kind` that this protocol uses."""
        keys = ("labels", "epochs", "batch_size", "lr", "weight_decay")
        if self.kind == "vit":
            schedule, mixed = ("warmup_epochs", "min_lr", "layer_decay"), ("mixup", "cutmix", "smoothing", "rand_augment", "erasing")
            strength = ("rand_augment_std",) if self.rand_augment else ()
            return (*keys, *schedule, "drop_path", *mixed, *strength)
        return (*keys, "classifier_lr", "milestones") if self.kind == "sgd" else ()

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if self.kind != "vit":
            return
        if self.min_lr > self.lr:
            yield Problem("min_lr", f"is {self.min_lr:g}, but lr falls to it from {self.lr:g}. Use a value up to lr.")
        yield from _warmup_problems(self.warmup_epochs, self.epochs)


@dataclass(frozen=True)
class Logistic:
    """Logistic regression on frozen CLS features with few labels; metric `logistic.top1` in percent (methods 1.8)."""

    kind: Literal["off", "cls"] = value("off", "the raw CLS output of a ViT, each image's values centred and scaled to unit length")
    labels: float = value(0.01, "share of each class's training labels", low=0.0001, high=1.0)
    penalty: float = value(0.1, "L2: penalty / (2 labelled images) times the squared weights, beside the mean cross-entropy", low=1e-9)

    def read(self) -> tuple[str, ...]:
        """The keys beside `kind` that this protocol uses."""
        return () if self.kind == "off" else ("labels", "penalty")


Protocol = TypeVar("Protocol", Knn, Linear, Finetune, Logistic)


@dataclass(frozen=True)
class Evaluate:
    """Which protocols run, and when. Test labels are only ever counted against."""

    every: int = value(0, "epochs between k-NN evaluations during training; 0 means only at the end", low=0, identity=False)
    knn: Knn = value(Knn, "k nearest neighbours")
    linear: Linear = value(Linear, "linear probe")
    finetune: Finetune = value(Finetune, "full or semi-supervised finetuning")
    logistic: Logistic = value(Logistic, "logistic regression with few labels", added=True)

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if not self.metrics():
            yield Problem("", "has every protocol off, so the trial would have no metric. Turn one on.")

    def metrics(self) -> tuple[str, ...]:
        """The names of the final metrics that these protocols yield."""
        return tuple(f"{name}.top1" for name in PROTOCOLS if getattr(self, name).kind != "off")

    def reached(self) -> Evaluate:
        """The same with every key that no protocol uses at its default: what the scores depend on."""
        return dataclasses.replace(self, **{name: _as_read(getattr(self, name)) for name in PROTOCOLS})


PROTOCOLS = ("knn", "linear", "finetune", "logistic")


def protocol_problems(evaluate: Evaluate, *, transformer: bool) -> Iterator[Problem]:
    """What protocols ask of an encoder that is, or is no, vision transformer; keys as seen from the recipe's root."""
    if transformer:
        return
    if evaluate.logistic.kind == "cls":
        yield Problem("evaluate.logistic.kind", "is cls, but the backbone is no ViT and has no CLS token. Use linear: lbfgs, or a ViT.")
    if evaluate.finetune.kind == "vit":
        yield Problem(
            "evaluate.finetune.kind", "is vit, but the backbone is no ViT, so there are no layers to decay over. Use sgd, or a ViT."
        )


def _as_read(config: Protocol) -> Protocol:
    return type(config)(**{key: getattr(config, key) for key in ("kind", *config.read())})


def _warmup_problems(warmup_epochs: int, epochs: int) -> Iterator[Problem]:
    if warmup_epochs >= epochs:
        yield Problem("warmup_epochs", f"is {warmup_epochs}, so the {epochs} epochs would end inside the warm-up. Use fewer.")
