"""Finetuning of a vision transformer as MAE's and SiameseIM's code does it (methods 1.8)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional

from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate.classifier import descend, truncated_classifier, warm_cosine
from ablatrix_models.evaluate.features import Precision, autocast
from ablatrix_models.evaluate.regularised import RegularisedViews
from ablatrix_models.recipe.data import Data
from ablatrix_models.recipe.evaluate import Finetune
from ablatrix_models.siamese_im.schedule import layer_rates
from ablatrix_models.siamese_im.token_norm import LAYER_NORM_EPS
from ablatrix_models.siamese_im.vit import Encoder

HEAD_STD = 2e-5
_PART = 128  # images in memory at once, and mixed with one another; the release mixes each GPU's part of a batch too


class FinetunedViT(nn.Module):
    """A copy of a pretrained encoder, all of it trainable, with a layer norm of its mean patch token and a new classifier.

    The encoder's own final norm, where it has one, is dropped; its fixed positions stay fixed.
    """

    def __init__(self, encoder: Encoder, classes: int, drop_path: float, generator: torch.Generator, device: torch.device | str) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        self.encoder.norm = nn.Identity()
        blocks: list[Any] = list(self.encoder.blocks)
        for block, rate in zip(blocks, torch.linspace(0, drop_path, len(blocks)).tolist(), strict=True):
            block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)
        self.norm = nn.LayerNorm(encoder.width_out, eps=LAYER_NORM_EPS, device=device)
        self.head = truncated_classifier(encoder.width_out, classes, std=HEAD_STD, generator=generator, device=device)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of normalised images (batch, 3, size, size)."""
        return self.head(self.norm(self.encoder.tokens(images)[:, 1:].mean(dim=1)))

    def parameter_groups(self, lr: float, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
        """One group for each layer and kind: rates fall by `layer_decay` a layer; vectors and the CLS token are not decayed."""
        trained = {name.removeprefix("encoder."): parameter for name, parameter in self.named_parameters()}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, rate in layer_rates(trained, len(self.encoder.blocks), layer_decay).items():
            decay = 0.0 if trained[name].ndim <= 1 or name == "cls_token" else weight_decay
            groups.setdefault((rate, decay), []).append(trained[name])
        return [{"params": some, "lr": lr * rate, "weight_decay": decay} for (rate, decay), some in groups.items()]


def finetune_vit(
    config: Finetune,
    encoder: nn.Module,
    labelled: ImageSet,
    data: Data,
    generator: torch.Generator,
    device: torch.device | str,
    precision: Precision,
) -> FinetunedViT:
    """AdamW with layer decay on regularised views; returns the last epoch's network.

    Draws from the global generators too, which the caller seeds. Batches are computed in parts of 128 images whose gradients add up;
    there is no batch norm to notice. Gradients are not clipped. Raises ValueError where `encoder` is no ViT.
    """
    if not isinstance(encoder, Encoder):
        raise ValueError(f"evaluate.finetune.kind is 'vit', but the encoder is a {type(encoder).__name__}. Use sgd, or a ViT.")
    classes = len(labelled.classes)
    model = FinetunedViT(encoder, classes, config.drop_path, generator, device).train()
    groups = model.parameter_groups(config.lr, config.layer_decay, config.weight_decay)
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.999), fused=True)
    length = {"epochs": config.epochs, "batch_size": config.batch_size}
    lowest = config.min_lr / config.lr if config.lr else 0.0
    schedule = warm_cosine(adamw, len(labelled), **length, warmup_epochs=config.warmup_epochs, lowest=lowest)
    views = RegularisedViews(config, data, classes, generator=generator, device=device)

    def losses(chosen: Tensor) -> Iterator[Tensor]:
        for part in chosen.split(_PART):
            images, targets = views(labelled.images[part.to(labelled.images.device)], labelled.labels[part.to(labelled.labels.device)])
            with autocast(device, precision):
                logits = model(images).float()
            yield functional.cross_entropy(logits, targets) * (len(part) / len(chosen))

    descend(losses, len(labelled), adamw, schedule, **length, generator=generator, per="step")
    return model
