"""SiameseIM's hyperparameters and its encoder's; the rows of its Table 3 are values of them. The modules are in `siamese_im`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.augment import Augment
from ablatrix_models.recipe.fields import Problem, value

SINCOS_PARTS = 4  # sine and cosine of rows and of columns


@dataclass(frozen=True)
class ViT:
    """A vision transformer (Dosovitskiy et al. 2021) without classifier; features are pooled patch tokens."""

    name: Literal["vit"] = "vit"
    patch: int = value(16, "pixels per side of a patch", low=1)
    width: int = value(768, "of a token; ViT-B has 768", low=4)
    depth: int = value(12, "transformer blocks", low=1)
    heads: int = value(12, "of the attention; must divide the width", low=1)
    pool: Literal["patches", "cls"] = value("patches", "features are the mean of the patch tokens, or the CLS token")
    final_norm: bool = value(False, "layer norm after the blocks: MAE has one, SiameseIM none")
    train_patch_embedding: bool = value(False, "released SiameseIM keeps it at its random initialisation, as MoCo v3 does")

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "vit"

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        yield from width_problems("width", self.width, self.heads)


@dataclass(frozen=True)
class PatchMask:
    """Which patches of view a are removed. Every image loses equally many, so that sequences have one length."""

    kind: Literal["blockwise", "random"] = value("blockwise", "BEiT's rectangles, topped up to the exact count, or independent patches")
    ratio: float = value(0.6, "share removed; of 196 patches 0.6 removes the released 118", low=0.0, high=1.0)
    min_block: int = value(16, "smallest rectangle in patches, blockwise only", low=1)

    def visible(self, patches: int) -> int:
        """How many of `patches` stay, rounded down as in MAE."""
        return int(patches * (1 - self.ratio))


@dataclass(frozen=True)
class SiameseIM:
    """SiameseIM (Tao et al. 2023); the defaults are the released setting."""

    name: Literal["siameseim"] = "siameseim"
    target: Literal["feature", "pixel"] = value("feature", "predict the momentum network's tokens, or the pixels of the patches")
    views: Literal["two", "same"] = value("two", "the target is the second view, or the first one unmasked, with its crop and colours")
    mask: PatchMask = value(PatchMask, "patches removed from view a")
    loss: Literal["unigrad", "l2", "global"] = value("unigrad", "dense UniGrad, its attraction alone, or UniGrad on each view's mean token")
    target_norm: Literal["mae-like", "moco-like", "none"] = value(
        "mae-like", "layer norm of the target; batch norm and unit length of target and prediction; or, pixels only, none"
    )
    negative_weight: float | None = value(
        None, "lambda; empty means the released 0.02, times the width with moco-like norm, whose tokens are that much shorter", low=0.0
    )
    prediction_norm: bool = value(False, "layer norm without parameters on the prediction (released `online_ln`)")
    scored: Literal["removed", "all"] | None = value(
        None, "patches in the loss; empty means the removed ones for pixels of the same view, else all"
    )
    projector_norm: Literal["batch", "layer"] = value("batch", "norm inside the projector's blocks")
    decoder_norm: Literal["batch", "layer"] = value("batch", "norm inside the decoder's blocks")
    dim: int = value(768, "width of projector and decoder; the released argument defaults to 512, its script sets 768", low=4)
    heads: int = value(16, "of the attention in projector and decoder", low=1)
    projector_depth: int = value(2, "transformer blocks of the projector", low=0)
    decoder_depth: int = value(4, "transformer blocks of the decoder", low=1)
    momentum: float = value(0.995, "EMA momentum of the target at the start", low=0.0, high=1.0)
    momentum_schedule: Literal["cosine", "constant"] = value("cosine", "to 1 by cosine, at every step, or constant")

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "siameseim"

    @property
    def negatives(self) -> float:
        """Lambda of the repulsion: 0 with the L2 loss."""
        if self.loss == "l2":
            return 0.0
        if self.negative_weight is not None:
            return self.negative_weight
        return 0.02 * (self.dim if self.target_norm == "moco-like" else 1)

    @property
    def scores_removed_only(self) -> bool:
        """Whether visible patches stay out of the loss."""
        if self.scored is None:
            return self.target == "pixel" and self.views == "same"
        return self.scored == "removed"

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        yield from width_problems("dim", self.dim, self.heads)
        if self.target == "pixel" and self.loss != "l2":
            yield Problem("loss", f"is {self.loss}, but pixel targets have no negatives. Use l2.")
        if self.target == "pixel" and self.target_norm == "moco-like":
            yield Problem("target_norm", "is moco-like, which norms features. For pixels use mae-like (each patch) or none.")
        if self.target == "pixel" and self.prediction_norm:
            yield Problem("prediction_norm", "is true, but predicted pixels need their own scale. Use false.")
        if self.target == "feature" and self.target_norm == "none":
            yield Problem("target_norm", "is none, but features without a norm can shrink to 0. Use mae-like or moco-like.")
        if self.prediction_norm and self.target_norm == "moco-like":
            yield Problem("prediction_norm", "is true beside the moco-like norm, which norms the prediction already. Use false.")
        if self.scores_removed_only and not (self.target == "pixel" and self.views == "same"):
            yield Problem("scored", "is removed, but only pixels of the same view know which target patches were removed. Use all.")
        if self.loss == "l2" and self.negative_weight:
            yield Problem("negative_weight", f"is {self.negative_weight:g}, but the l2 loss has no negatives. Use loss: unigrad.")


def width_problems(key: str, width: int, heads: int) -> Iterator[Problem]:
    """Rules between a transformer's width, under `key`, its heads and its positions."""
    if width % SINCOS_PARTS:
        yield Problem(key, f"is {width}, but sine-cosine positions need a multiple of {SINCOS_PARTS}.")
    if width % heads:
        yield Problem("heads", f"is {heads}, which does not divide the {key} of {width}. Use a divisor.")


def grid_problems(mask: PatchMask, backbone: object, image_size: int) -> Iterator[Problem]:
    """Rules between a method that removes patches, its encoder and the images, with keys as seen from the recipe's root."""
    if not isinstance(backbone, ViT):
        yield Problem("backbone.name", "is no ViT, but removed patches are left out of the encoder. Use backbone: vit.")
        return
    if image_size % backbone.patch or image_size <= backbone.patch:
        yield Problem("backbone.patch", f"is {backbone.patch}, but images of {image_size} pixels need a smaller patch that divides them.")
        return
    grid = image_size // backbone.patch
    visible = mask.visible(grid**2)
    if not 0 < visible < grid**2:
        yield Problem("method.mask.ratio", f"is {mask.ratio:g}, so {visible} of {grid**2} patches stay. Some must stay, and some must go.")
    if mask.kind == "blockwise" and mask.min_block > (grid - 1) ** 2:
        yield Problem(
            "method.mask.min_block",
            f"is {mask.min_block}, but the largest block that fits {grid} x {grid} patches has {(grid - 1) ** 2}. Use fewer.",
        )


def view_problems(method: SiameseIM, a: Augment, b: Augment, mixing: str) -> Iterator[Problem]:
    """Rules between the method and what the views go through, with keys as seen from the recipe's root."""
    if mixing != "none":
        yield Problem("mixing.kind", f"is {mixing}, but siameseim takes no mixtures. Use mixing: none.")
    if method.views == "same":
        return
    for key, augment in (("augment", a), ("augment_b", b)):
        if augment.rotation_deg:
            yield Problem(
                f"{key}.rotation_deg", f"is {augment.rotation_deg:g}, but siameseim's positions know crops and flips alone. Use 0."
            )
