"""Self-supervised frameworks, one module each; `build_method` makes the one that a recipe names."""

from __future__ import annotations

from ablatrix_models.methods.byol import BYOL
from ablatrix_models.methods.contract import Method
from ablatrix_models.methods.mae import MAE
from ablatrix_models.methods.moco import MoCo
from ablatrix_models.methods.mocov3 import MoCoV3
from ablatrix_models.methods.siameseim import SiameseIM
from ablatrix_models.methods.simclr import SimCLR
from ablatrix_models.methods.simsiam import SimSiam
from ablatrix_models.recipe import Recipe, RecipeError
from ablatrix_models.recipe import method as config
from ablatrix_models.recipe.backbone import ResNet, ViT

__all__ = ["Method", "build_method"]


def build_method(recipe: Recipe) -> Method:
    """The recipe's framework, randomly initialised from torch's global generator; seed that first.

    Raises RecipeError where framework and encoder do not go together, which `Recipe.read` refuses already.
    """
    target_side, size = recipe.mixing.target_side, recipe.data.image_size
    match recipe.method, recipe.backbone:
        case config.MoCo() as settings, ResNet() as backbone:
            return MoCo(settings, backbone)
        case config.SimCLR() as settings, ResNet() as backbone:
            return SimCLR(settings, backbone)
        case config.BYOL() as settings, ResNet() as backbone:
            return BYOL(settings, backbone, target_side=target_side)
        case config.SimSiam() as settings, ResNet() as backbone:
            return SimSiam(settings, backbone, target_side=target_side)
        case config.SiameseIM() as settings, ViT() as backbone:
            return SiameseIM(settings, backbone, size)
        case config.MAE() as settings, ViT() as backbone:
            return MAE(settings, backbone, size)
        case config.MoCoV3() as settings, ViT() as backbone:
            return MoCoV3(settings, backbone, size)
        case _:
            raise RecipeError(list(config.encoder_problems(recipe.method, recipe.backbone, size)))
