"""Self-supervised frameworks, one module each; `build_method` makes the one that a recipe names."""

from __future__ import annotations

from ablatrix_models.methods.byol import BYOL
from ablatrix_models.methods.contract import Method
from ablatrix_models.methods.moco import MoCo
from ablatrix_models.methods.simclr import SimCLR
from ablatrix_models.methods.simsiam import SimSiam
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe import method as config

__all__ = ["Method", "build_method"]


def build_method(recipe: Recipe) -> Method:
    """The recipe's framework, randomly initialised from torch's global generator; seed that first."""
    target_side = recipe.mixing.target_side
    match recipe.method:
        case config.MoCo() as settings:
            return MoCo(settings, recipe.backbone)
        case config.SimCLR() as settings:
            return SimCLR(settings, recipe.backbone)
        case config.BYOL() as settings:
            return BYOL(settings, recipe.backbone, target_side=target_side)
        case config.SimSiam() as settings:
            return SimSiam(settings, recipe.backbone, target_side=target_side)
