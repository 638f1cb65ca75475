"""Features of whole datasets: every image on the centre path, the network in eval mode, no gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ablatrix_models import augment
from ablatrix_models.augment.crop import Interpolation
from ablatrix_models.data.images import ImageSet
from ablatrix_models.recipe.data import DATASETS, Data

Encode = Callable[[Tensor], Tensor]
Precision = Literal["fp32", "bf16", "fp16"]


class Encoder(Protocol):
    """What a protocol asks of a trained method; every module in `ablatrix_models.methods` has it."""

    encoder: nn.Module

    def features(self, images: Tensor) -> Tensor:
        """Pooled backbone features: normalised images (batch, 3, height, width) to (batch, width)."""
        ...

    def project(self, images: Tensor) -> Tensor:
        """The head's output for the same images: (batch, dim)."""
        ...


@runtime_checkable
class CLSEncoder(Encoder, Protocol):
    """A method whose encoder has a CLS token."""

    def cls_features(self, images: Tensor) -> Tensor:
        """The encoder's raw CLS output: normalised images (batch, 3, height, width) to (batch, width)."""
        ...


@contextmanager
def eval_mode(encode: Encode) -> Iterator[None]:
    """Put the module behind `encode` (a module, or a method bound to one) in eval mode; restore every submodule's own mode.

    A plain function has no mode and is left alone.
    """
    owner = getattr(encode, "__self__", encode)
    training = [part for part in owner.modules() if part.training] if isinstance(owner, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def autocast(device: torch.device | str, precision: Precision) -> torch.autocast:
    """The forward pass's arithmetic: bfloat16, or plain float32; that of fp16 as well, whose training would need a scaled loss."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def extract(
    encode: Encode,
    data: ImageSet,
    config: Data,
    *,
    batch_size: int = 512,
    device: torch.device | str,
    precision: Precision = "fp32",
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Encode all images of `data`, in order: (images, dim) float32 on `device`.

    Images of one native size are seen whole; others lose their margin, as in the ImageNet protocol (256 pixels to 224).
    interpolation: of the resize, where there is one.
    encode: maps normalised images (batch, 3, image_size, image_size) to (batch, dim); its module already lies on `device`.
    Raises ValueError for an empty set, FloatingPointError when a feature is not finite.
    """
    if not len(data):
        raise ValueError("no images to encode: the set is empty. Check data.train_images, data.test_images and data.path.")
    resize = None if DATASETS[config.name][0] else config.store_size
    parts: list[Tensor] = []
    with eval_mode(encode), autocast(device, precision):
        for images in data.images.split(batch_size):
            pixels = augment.centre(images.to(device), config.image_size, resize, interpolation)
            parts.append(encode(augment.normalise(pixels, config.mean, config.std)).float())
    features = torch.cat(parts)
    if not features.isfinite().all():
        raise FloatingPointError("features hold NaN or infinity, so nothing can be measured: training diverged. Lower optimizer.lr.")
    return features


def width_of(encode: Encode, data: ImageSet, config: Data, *, device: torch.device | str, precision: Precision) -> int:
    """How many features `encode` gives an image; found by encoding the first of `data`, since encoders do not all tell."""
    return extract(encode, data.subset(torch.arange(1)), config, device=device, precision=precision).shape[1]
