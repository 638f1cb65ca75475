"""MoCo v3's hyperparameters, and those of its variant with a mask. The module is `ablatrix_models.methods.mocov3`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ablatrix_models.recipe.fields import Problem, value
from ablatrix_models.recipe.patch_mask import PatchMask


@dataclass(frozen=True)
class MoCoV3:
    """MoCo v3 (Chen et al. 2021) on a ViT, the baseline of SiameseIM's Table 3; the defaults are the released ones but for the mask.

    Its encoder is the table's own, not the release's: equal but for the initialisation, which takes query, key and value as one
    matrix. `backbone.pool: cls` with `final_norm: true` is MoCo v3's feature.
    """

    name: Literal["mocov3"] = "mocov3"
    # The table says a random mask, and no more. Ratio: that of the feature rows (methods 1.9). Which views: "the view of the
    # online branch" (Tao et al. 2023, section 3.1), so both where the loss is symmetric, and never what the keys are made of.
    mask: PatchMask | None = value(
        partial(PatchMask, kind="random", ratio=0.6), "patches removed from the queries' views; empty is MoCo v3"
    )
    # The table's last row says UniGrad; MoCo v3 itself is InfoNCE. Its heads end in batch norm without affine, and the loss in
    # unit length: the table's "MoCo-like" norm, with either loss.
    loss: Literal["infonce", "unigrad"] = value("infonce", "contrast with the batch's other images, or UniGrad on the same features")
    temperature: float = value(0.2, "softmax temperature of infonce, which is scaled by twice this", low=1e-6)
    negative_weight: float | None = value(
        None, "lambda of unigrad; empty means SiameseIM's 0.02 times `dim`, as for its rows with unit features", low=0.0
    )
    symmetric: bool = value(True, "the sum of both directions; else view a alone is the query")
    hidden: int = value(4096, "width of the heads' hidden layers", low=1)
    dim: int = value(256, "width of the embedding", low=1)
    projector_layers: int = value(3, "linear layers of the projector", low=1, high=5)
    predictor_layers: int = value(2, "linear layers of the predictor", low=1, high=5)
    momentum: float = value(0.99, "EMA momentum of the key encoder at the start", low=0.0, high=1.0)
    momentum_schedule: Literal["cosine", "constant"] = value("cosine", "to 1 by cosine, at every step, or constant")
    # MoCo v3's release decays every parameter, SiameseIM's none that is a vector; the table's row was run in the latter's code.
    decay_vectors: bool = value(False, "weight decay of biases and norms too, as in MoCo v3's release")

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "mocov3"

    @property
    def one_view(self) -> bool:
        """It never uses one view alone."""
        return False

    @property
    def negatives(self) -> float:
        """Lambda of UniGrad's repulsion."""
        return 0.02 * self.dim if self.negative_weight is None else self.negative_weight

    def reached(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Of this section as plain values, what a run depends on, with what is left empty filled in."""
        mask = None if self.mask is None else {key: plain["mask"][key] for key in self.mask.read()}
        unread = "temperature" if self.loss == "unigrad" else "negative_weight"
        return {key: kept for key, kept in (plain | {"mask": mask, "negative_weight": self.negatives}).items() if key != unread}

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if self.loss == "infonce" and self.negative_weight is not None:
            yield Problem(
                "negative_weight", f"is {self.negative_weight:g}, but infonce weighs no negatives. Use loss: unigrad, or leave it out."
            )
