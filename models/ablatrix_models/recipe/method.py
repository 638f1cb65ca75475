"""The frameworks' own hyperparameters, and what they ask of the other sections. The modules are in `ablatrix_models.methods`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.augment import Augment
from ablatrix_models.recipe.backbone import Backbone, ViT
from ablatrix_models.recipe.fields import Problem, value
from ablatrix_models.recipe.mae import MAE
from ablatrix_models.recipe.mocov3 import MoCoV3
from ablatrix_models.recipe.patch_mask import grid_problems
from ablatrix_models.recipe.siameseim import SiameseIM, view_problems


@dataclass(frozen=True)
class MoCo:
    """MoCo v1 (linear head) and v2 (MLP head); He et al. 2020, Chen et al. 2020."""

    name: Literal["moco"] = "moco"
    head: Literal["linear", "mlp"] = value("linear", "projection: one linear layer (v1, CIFAR demo) or two with ReLU (v2)")
    dim: int = value(128, "width of the embedding", low=1)
    queue: int = value(4096, "negatives kept; must be a multiple of the keys enqueued per step", low=1)
    momentum: float = value(0.99, "EMA momentum of the key encoder", low=0.0, high=1.0)
    temperature: float = value(0.1, "softmax temperature", low=1e-6)
    symmetric: bool = value(True, "both directions, as MixMask's CIFAR numbers imply (methods 2.6)")
    bn_splits: int = value(8, "batch norm statistics per interleaved group, emulating this many GPUs", low=1)
    shuffle_bn: bool = value(True, "shuffle the key batch before its encoder, so that groups differ from the query's; idle with one split")

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "moco"


@dataclass(frozen=True)
class SimCLR:
    """SimCLR as in the base of MixMask's small-image numbers; Chen et al. 2020."""

    name: Literal["simclr"] = "simclr"
    hidden: int = value(1024, "width of the head's hidden layer", low=1)
    dim: int = value(64, "width of the embedding", low=1)
    output_norm: bool = value(True, "affine batch norm on the embedding")
    temperature: float = value(0.5, "softmax temperature", low=1e-6)

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "simclr"


@dataclass(frozen=True)
class BYOL:
    """BYOL; Grill et al. 2020. The loss is the sum of both directions."""

    name: Literal["byol"] = "byol"
    hidden: int = value(1024, "width of the projector's and predictor's hidden layers", low=1)
    dim: int = value(64, "width of the embedding", low=1)
    momentum: float = value(0.99, "EMA momentum of the target at the start", low=0.0, high=1.0)
    momentum_schedule: Literal["cosine", "constant"] = value("cosine", "to 1 by cosine, in whole epochs, or constant")

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "byol"


@dataclass(frozen=True)
class SimSiam:
    """SimSiam; Chen and He 2021. The predictor keeps a constant learning rate."""

    name: Literal["simsiam"] = "simsiam"
    layers: int = value(2, "layers of the projector", low=1, high=4)
    hidden: int = value(2048, "width of the projector's hidden layers", low=1)
    dim: int = value(2048, "width of the embedding", low=1)
    predictor_hidden: int = value(512, "width of the predictor's bottleneck", low=1)
    constant_predictor_lr: bool = value(True, "the predictor's learning rate does not decay")

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "simsiam"


Method = MoCo | SimCLR | BYOL | SimSiam | SiameseIM | MAE | MoCoV3
MASKED = (SiameseIM, MAE, MoCoV3)  # they remove patches of a ViT's input, and take no mixtures


def one_view(method: Method) -> bool:
    """Whether the framework uses view a alone."""
    return isinstance(method, MASKED) and method.one_view


def encoder_problems(method: Method, backbone: Backbone, image_size: int) -> Iterator[Problem]:
    """Rules between a framework, its encoder and the images."""
    if isinstance(method, MASKED):
        yield from grid_problems(method.mask, backbone, image_size)
    elif isinstance(backbone, ViT):
        yield Problem("backbone.name", f"is {backbone.name}, but {method.name} is built on a ResNet here. Use resnet18 or resnet50.")


def image_problems(method: Method, a: Augment, b: Augment, mixing: str) -> Iterator[Problem]:
    """Rules between a framework and what happens to the images before it sees them."""
    if isinstance(method, MASKED) and mixing != "none":
        yield Problem("mixing.kind", f"is {mixing}, but {method.name} takes no mixtures. Use mixing: none.")
    if isinstance(method, SiameseIM):
        yield from view_problems(method, a, b)


def batch_problems(method: Method, batch_size: int) -> Iterator[Problem]:
    """Rules between a framework and the images that it sees at once."""
    if not isinstance(method, MoCo):
        return
    keys = batch_size * (2 if method.symmetric else 1)
    if method.queue % keys:
        yield Problem(
            "method.queue",
            f"is {method.queue}, no multiple of the {keys} keys that a step enqueues. Use {max(1, method.queue // keys) * keys}.",
        )
    if batch_size % method.bn_splits:
        yield Problem("method.bn_splits", f"is {method.bn_splits}, which does not divide the batch of {batch_size}. Use a divisor, or 1.")
