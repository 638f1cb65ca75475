"""Training images under strong regularisation: RandAugment, random erasing, mixup or cutmix (methods 1.8), as timm does them.

timm draws from Python's, numpy's and torch's global generators, so whoever calls this seeds them and puts them back.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.mixup import Mixup, mixup_target
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from ablatrix_models import augment
from ablatrix_models.evaluate.classifier import BICUBIC_VIEW
from ablatrix_models.recipe.data import Data
from ablatrix_models.recipe.evaluate import Finetune


class RegularisedViews:
    """Turns images and labels into what a step of finetuning sees; the crop runs on `device`, RandAugment image by image in Pillow."""

    def __init__(self, config: Finetune, data: Data, classes: int, *, generator: torch.Generator, device: torch.device | str) -> None:
        self.config, self.data, self.classes, self.generator, self.device = config, data, classes, generator, device
        level = f"rand-m{config.rand_augment}-mstd{config.rand_augment_std:g}-inc1"
        # what timm's own training transform passes on
        constants = {
            "translate_const": int(data.image_size * 0.45),
            "img_mean": tuple(min(255, round(255 * value)) for value in data.mean),
            "interpolation": Image.Resampling.BICUBIC,
            "magnitude_max": 9.99,  # at 10 timm posterizes to 0 bits, which Pillow once made black and now refuses
        }
        self._rand_augment = rand_augment_transform(level, constants)
        self._erase = RandomErasing(config.erasing, mode="pixel", max_count=1, device=str(device))
        mixes = config.mixup > 0 or config.cutmix > 0
        self._mix = Mixup(config.mixup, config.cutmix, label_smoothing=config.smoothing, num_classes=classes) if mixes else None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Views (batch, 3, image_size, image_size), normalised, and target shares (batch, classes), both on the device.

        images: uint8 (batch, 3, height, width). One mixture for the whole batch, with partners in reversed order. An odd batch to be
        mixed sees its first image twice, because timm takes even ones only.
        """
        if self._mix and len(images) % 2:
            images, labels = torch.cat([images, images[:1]]), torch.cat([labels, labels[:1]])
        labels = labels.to(self.device)
        views = augment.normalise(self._augmented(images), self.data.mean, self.data.std)
        views = self._erase(views)
        if self._mix:
            return self._mix(views, labels)
        return views, mixup_target(labels, self.classes, smoothing=self.config.smoothing)

    def _augmented(self, images: Tensor) -> Tensor:
        """Cropped, mirrored and, where asked for, RandAugmented pixels in 0..1."""
        drawn = augment.draw(BICUBIC_VIEW, len(images), images.shape[-2], images.shape[-1], self.generator)
        views = augment.apply(images.to(self.device), drawn, BICUBIC_VIEW, self.data.image_size)
        if not self.config.rand_augment:
            return views
        pixels = (views * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        changed = np.stack([np.asarray(self._rand_augment(Image.fromarray(image))) for image in pixels])
        return torch.from_numpy(changed).to(self.device).permute(0, 3, 1, 2).float().div_(255)
