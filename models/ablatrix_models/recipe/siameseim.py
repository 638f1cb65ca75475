"""SiameseIM's hyperparameters; the rows of its Table 3 are values of them. The modules are in `siamese_im`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ablatrix_models.recipe.augment import Augment
from ablatrix_models.recipe.backbone import width_problems
from ablatrix_models.recipe.fields import Problem, value
from ablatrix_models.recipe.patch_mask import PatchMask


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
    def one_view(self) -> bool:
        """Whether the target is view a itself, with its crop and colours, so that view b goes unused."""
        return self.views == "same"

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

    def reached(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Of this section as plain values, what a run depends on, with what is left empty filled in."""
        filled = {"negative_weight": self.negatives, "scored": "removed" if self.scores_removed_only else "all"}
        kept = plain | filled | {"mask": {key: plain["mask"][key] for key in self.mask.read()}}
        unread = ("momentum", "momentum_schedule") if self.target == "pixel" else ()
        return {key: kept[key] for key in kept if key not in unread}

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


def view_problems(method: SiameseIM, a: Augment, b: Augment) -> Iterator[Problem]:
    """Rules between the method and what the views go through, with keys as seen from the recipe's root."""
    if method.one_view:
        return
    for key, augment in (("augment", a), ("augment_b", b)):
        if augment.rotation_deg:
            yield Problem(
                f"{key}.rotation_deg", f"is {augment.rotation_deg:g}, but siameseim's positions know crops and flips alone. Use 0."
            )
