"""SiameseIM's linear probe: LARS on normalised features of augmented images, in large batches (methods 1.8)."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim.lars import Lars
from torch import Tensor, nn

from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate.classifier import BICUBIC_VIEW, features_of_views, fit, truncated_classifier, warm_cosine
from ablatrix_models.evaluate.features import Encoder, Precision, eval_mode, width_of
from ablatrix_models.recipe.data import Data
from ablatrix_models.recipe.evaluate import Linear

NORM_EPS = 1e-6
_CHUNK = 512  # images encoded at once: a batch of 16,384 would fill a GPU with activations that nothing needs


def lars(network: nn.Module, *, lr: float, weight_decay: float = 0.0) -> Lars:
    """LARS (You et al. 2017) with momentum 0.9 and trust coefficient 0.001; vectors are neither adapted nor decayed.

    The decay joins the gradient before its norm is taken, as in the released optimiser; timm's own adds the two norms instead.
    """
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "always_adapt": True}, {"params": vectors}]
    optimizer = Lars(groups, lr=lr, momentum=0.9, trust_coeff=0.001)  # pyright: ignore[reportArgumentType] (its annotation says int)

    @torch.no_grad()
    def decay(*_: object) -> None:
        for parameter in matrices:
            if parameter.grad is not None:
                parameter.grad.add_(parameter, alpha=weight_decay)

    optimizer.register_step_pre_hook(decay)
    return optimizer


def probe_head(width: int, classes: int, *, generator: torch.Generator, device: torch.device | str) -> nn.Sequential:
    """Layer norm and batch norm, neither with parameters, then the linear layer: features (batch, width) to logits (batch, classes)."""
    norms = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False), nn.BatchNorm1d(width, eps=NORM_EPS, affine=False)
    return nn.Sequential(*norms, truncated_classifier(width, classes, std=0.01, generator=generator, device=device)).to(device)


def fit_with_lars(
    config: Linear,
    method: Encoder,
    train: ImageSet,
    data: Data,
    generator: torch.Generator,
    device: torch.device | str,
    precision: Precision,
) -> nn.Sequential:
    """Train a `probe_head` on a fresh view of every image in every epoch; returned in eval mode, `method` frozen in eval mode.

    The release drops a pass's last, incomplete batch, and its batch norm sees one GPU's part of a batch; here batches are of nearly
    equal size, and it sees all of one.
    """
    width = width_of(method.features, train, data, device=device, precision=precision)
    head = probe_head(width, len(train.classes), generator=generator, device=device)
    optimizer = lars(head, lr=config.lr, weight_decay=config.weight_decay)
    length = {"epochs": config.epochs, "batch_size": config.batch_size}
    schedule = warm_cosine(optimizer, len(train), **length, warmup_epochs=config.warmup_epochs)

    features = features_of_views(
        method, train, data, generator=generator, device=device, precision=precision, view=BICUBIC_VIEW, clamp=True
    )

    def logits(chosen: Tensor) -> Tensor:
        return head(torch.cat([features(part) for part in chosen.split(_CHUNK)]))

    with eval_mode(method.features):
        fit(logits, train.labels.to(device), optimizer, schedule, **length, generator=generator, per="step")
    return head.eval()
