"""How the images of a batch are mixed. The operators are in `ablatrix_models.mixing`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.fields import value


@dataclass(frozen=True)
class Mixing:
    """The mixture branch beside the clean two-view loss (methods 2.2-2.4)."""

    kind: Literal["none", "mixmask", "unmix", "both", "erase"] = value("none", "which mixtures are added to the clean loss")
    switch: bool = value(True, "keep the (1 - lambda) term of every mixture; lambda stays as weight without it")
    permutation: Literal["reverse", "random"] = value(
        "reverse", "MixMask's partners: the batch reversed (B-1-i), or a fresh random permutation; Un-Mix always reverses"
    )
    unmix_probability: float = value(0.5, "P of Un-Mix: mixup with probability P, else cutmix", low=0.0, high=1.0)
    unmix_beta: float = value(1.0, "Beta(b, b) that Un-Mix draws lambda from", low=0.01)
    erase_fill: Literal["zero", "gaussian"] = value("gaussian", "what fills erased pixels, in normalised space")
    target_side: bool = value(False, "BYOL and SimSiam: the mixture also passes through the target side (Un-Mix read literally)")

    def read(self) -> tuple[str, ...]:
        """The fields that this kind of mixing depends on, besides `kind`."""
        mixmask, unmix = ("permutation",), ("unmix_probability", "unmix_beta")
        common = ("switch", "target_side")
        by_kind = {
            "mixmask": mixmask + common,
            "unmix": unmix + common,
            "both": mixmask + unmix + common,
            "erase": ("erase_fill", "target_side"),
        }
        return by_kind.get(self.kind, ())

    @property
    def masks(self) -> bool:
        """Whether a mask is drawn at all."""
        return self.kind in ("mixmask", "both", "erase")
