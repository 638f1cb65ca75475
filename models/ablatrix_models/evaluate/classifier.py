"""What the trained protocols share: a new linear classifier, the training view, and the descent."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ablatrix_models import augment
from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate.features import Encoder, Precision, autocast
from ablatrix_models.recipe.augment import Augment
from ablatrix_models.recipe.data import Data
from ablatrix_models.siamese_im.schedule import learning_rate

# MoCo's classification transform: random resized crop and flip, no colour (methods 2.5)
VIEW = Augment(crop_scale=(0.08, 1.0), flip=0.5, jitter_p=0.0, grey_p=0.0, blur_p=0.0, solarize_p=0.0)

BICUBIC_VIEW = dataclasses.replace(VIEW, interpolation="bicubic")  # MAE's and SiameseIM's (methods 1.8)


def blank_classifier(width: int, classes: int) -> nn.Linear:
    """A linear layer on the CPU whose values are still to be set; the global generator, unlike in nn.Linear(), is not touched."""
    return nn.utils.skip_init(nn.Linear, width, classes)  # type: ignore[return-value]


def normal_classifier(width: int, classes: int, *, generator: torch.Generator, device: torch.device | str) -> nn.Linear:
    """A linear layer with weights N(0, 0.01) and bias 0, as MoCo's classifier starts; the same start on every device."""
    layer = blank_classifier(width, classes)
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer.to(device)


def uniform_classifier(width: int, classes: int, *, generator: torch.Generator, device: torch.device | str) -> nn.Linear:
    """A linear layer with weights and bias U(-1/sqrt(width), 1/sqrt(width)), as PyTorch starts one; the same on every device."""
    layer = blank_classifier(width, classes)
    bound = 1 / math.sqrt(width)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer.to(device)


def truncated_classifier(width: int, classes: int, *, std: float, generator: torch.Generator, device: torch.device | str) -> nn.Linear:
    """A linear layer with weights N(0, std), none beyond 2, and bias 0, as MAE's code starts one; the same on every device."""
    layer = blank_classifier(width, classes)
    nn.init.trunc_normal_(layer.weight, std=std, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer.to(device)


def training_view(
    images: Tensor, data: Data, *, generator: torch.Generator, device: torch.device | str, view: Augment = VIEW, clamp: bool = False
) -> Tensor:
    """One random view of uint8 images (batch, 3, height, width), normalised: (batch, 3, image_size, image_size) on `device`.

    clamp: see `augment.draw`.
    """
    parameters = augment.draw(view, len(images), images.shape[-2], images.shape[-1], generator, clamp=clamp)
    pixels = augment.apply(images.to(device), parameters, view, data.image_size)
    return augment.normalise(pixels, data.mean, data.std)


def features_of_views(
    method: Encoder,
    train: ImageSet,
    data: Data,
    *,
    generator: torch.Generator,
    device: torch.device | str,
    precision: Precision,
    view: Augment = VIEW,
    clamp: bool = False,
) -> Callable[[Tensor], Tensor]:
    """What gives, for indices (batch,) of `train`, the features (batch, width) float32 of a fresh view of each image, without gradient.

    Set eval mode before it is called. view, clamp: see `training_view`.
    """

    @torch.no_grad()
    def features(chosen: Tensor) -> Tensor:
        images = train.images[chosen.to(train.images.device)]
        views = training_view(images, data, generator=generator, device=device, view=view, clamp=clamp)
        with autocast(device, precision):
            return method.features(views).float()

    return features


def fit(
    logits: Callable[[Tensor], Tensor],
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    per: Literal["epoch", "step"] = "epoch",
) -> None:
    """Minimise the cross-entropy of `logits(indices)` against labels[indices] (images,); see `descend` for the rest."""

    def losses(chosen: Tensor) -> Iterable[Tensor]:
        yield functional.cross_entropy(logits(chosen), labels[chosen.to(labels.device)])

    descend(losses, len(labels), optimizer, schedule, epochs=epochs, batch_size=batch_size, generator=generator, per=per)


def descend(
    losses: Callable[[Tensor], Iterable[Tensor]],
    count: int,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    per: Literal["epoch", "step"],
) -> None:
    """Step down the sum of `losses(indices)`, each a part's scalar, in random batches of `count` images for `epochs` passes.

    Batches of a pass are of nearly equal size, at most `batch_size`: none is left with a single image, whose batch norm
    would be undefined. The schedule moves once an epoch, or at every step.
    """
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        for chosen in order.tensor_split(math.ceil(count / batch_size)):
            optimizer.zero_grad()
            for loss in losses(chosen):
                loss.backward()
            optimizer.step()
            if per == "step":
                schedule.step()
        if per == "epoch":
            schedule.step()


def warm_cosine(
    optimizer: torch.optim.Optimizer, count: int, *, epochs: int, batch_size: int, warmup_epochs: int, lowest: float = 0.0
) -> LambdaLR:
    """The rates of MAE's code, by steps: from 0 up to each group's own, then by cosine to `lowest` times that (methods 1.7, 1.8)."""
    steps = math.ceil(count / batch_size)
    return LambdaLR(optimizer, lambda step: learning_rate(1.0, step / steps, epochs, warmup_epochs, lowest))


def top1(logits: Tensor, labels: Tensor) -> float:
    """Share of rows (images, classes) whose largest entry is the label's, in percent; ties go to the lower class."""
    return 100.0 * int((logits.argmax(dim=1) == labels.to(logits.device)).sum()) / len(labels)
