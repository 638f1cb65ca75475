"""MAE's hyperparameters. The module is `ablatrix_models.methods.mae`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ablatrix_models.recipe.backbone import width_problems
from ablatrix_models.recipe.fields import Problem, value
from ablatrix_models.recipe.patch_mask import PatchMask


@dataclass(frozen=True)
class MAE:
    """Masked autoencoder (He et al. 2022); the defaults are the released ones. Its ViT has a final norm and trains its patch embedding."""

    name: Literal["mae"] = "mae"
    mask: PatchMask = value(partial(PatchMask, kind="random", ratio=0.75), "patches removed from the image")
    norm_pixels: bool = value(True, "each target patch to mean 0 and variance 1")
    dim: int = value(512, "width of the decoder", low=4)
    heads: int = value(16, "of the decoder's attention", low=1)
    depth: int = value(8, "transformer blocks of the decoder", low=1)

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "mae"

    @property
    def one_view(self) -> bool:
        """Whether view b goes unused: always."""
        return True

    def reached(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Of this section as plain values, what a run depends on."""
        return plain | {"mask": {key: plain["mask"][key] for key in self.mask.read()}}

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        yield from width_problems("dim", self.dim, self.heads)
