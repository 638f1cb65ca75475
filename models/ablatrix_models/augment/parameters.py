"""The random parameters of a batch of views, and their law."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ablatrix_models.recipe.augment import Augment

# Numbers of the colour transforms in `Parameters.order`, as torchvision's ColorJitter counts them.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

CROP_TRIES = 10  # torchvision gives up after ten and takes the centre


@dataclass(frozen=True)
class Parameters:
    """What was drawn for each image of a batch; every field is a CPU tensor whose first axis is the batch.

    A crop box is (top, left, height, width) in whole pixels of the image that is cropped: the source as it is, or the
    mirrored source where `Augment.flip_first` is set.
    """

    top: Tensor  # int64 (batch,)
    left: Tensor  # int64 (batch,)
    height: Tensor  # int64 (batch,)
    width: Tensor  # int64 (batch,)
    flip: Tensor  # bool (batch,)
    rotation_deg: Tensor  # float32 (batch,), counter-clockwise
    jitter: Tensor  # bool (batch,): whether any of the next five is used
    brightness: Tensor  # float32 (batch,), factor
    contrast: Tensor  # float32 (batch,), factor
    saturation: Tensor  # float32 (batch,), factor
    hue: Tensor  # float32 (batch,), shift in turns of the colour circle
    order: Tensor  # int64 (batch, 4): which colour transform has the k-th turn
    grey: Tensor  # bool (batch,)
    blur: Tensor  # bool (batch,)
    blur_sigma: Tensor  # float32 (batch,), pixels
    solarize: Tensor  # bool (batch,)

    def __len__(self) -> int:
        return len(self.top)

    def rows(self, start: int, stop: int | None, step: int = 1) -> Parameters:
        """The parameters of images `start` up to, and without, `stop`, or of every `step`-th of them."""
        return Parameters(**{field.name: getattr(self, field.name)[start:stop:step] for field in dataclasses.fields(self)})


def draw(config: Augment, count: int, height: int, width: int, generator: torch.Generator, *, clamp: bool = False) -> Parameters:
    """Draw the parameters of `count` views of images of `height` x `width` pixels.

    clamp: take the first crop box as it comes, sides that are too long cut to the image's, as MAE's and SiameseIM's linear probe
    does (methods 1.8). It reads the same random numbers.

    The law is torchvision's: `RandomResizedCrop.get_params` with its ten tries and its centre fallback, factors
    U(max(0, 1-s), 1+s), hue U(-h, h), a random order of the four. Every parameter has its own row of the generator's
    numbers, used or not, so cells that differ in one probability share all the other draws.
    Raises ValueError where `generator` is no CPU generator: a device's stream would make the result depend on the device.
    """
    if generator.device.type != "cpu":
        raise ValueError(f"augmentation draws on the CPU, but the generator is on {generator.device}. Use torch.Generator().")
    # Double precision: a float32 uniform has 2^24 values, so the edges of a large image's boxes would be favoured.
    numbers = iter(torch.rand(2 * CROP_TRIES + 17, count, dtype=torch.float64, generator=generator))

    def uniform(low: float, high: float) -> Tensor:
        return (low + (high - low) * next(numbers)).float()

    def chance(probability: float) -> Tensor:
        return next(numbers) < probability

    def block(rows: int) -> Tensor:
        return torch.stack([next(numbers) for _ in range(rows)])

    boxes = _first_boxes if clamp else _crop_boxes
    top, left, box_height, box_width = boxes(config, height, width, block(CROP_TRIES), block(CROP_TRIES), block(2))
    factors = [(max(0.0, 1.0 - strength), 1.0 + strength) for strength in config.jitter[:3]]
    return Parameters(
        top=top,
        left=left,
        height=box_height,
        width=box_width,
        flip=chance(config.flip),
        rotation_deg=uniform(-config.rotation_deg, config.rotation_deg),
        jitter=chance(config.jitter_p),
        brightness=uniform(*factors[BRIGHTNESS]),
        contrast=uniform(*factors[CONTRAST]),
        saturation=uniform(*factors[SATURATION]),
        hue=uniform(-config.jitter[HUE], config.jitter[HUE]),
        order=block(4).argsort(dim=0).T.contiguous(),
        grey=chance(config.grey_p),
        blur=chance(config.blur_p),
        blur_sigma=uniform(*config.blur_sigma),
        solarize=chance(config.solarize_p),
    )


def _crop_boxes(config: Augment, height: int, width: int, areas: Tensor, ratios: Tensor, places: Tensor) -> tuple[Tensor, ...]:
    """(top, left, height, width), each int64 (count,), from uniform numbers (tries, count) twice and (2, count).

    All tries are made at once and the first that fits is taken: the law of trying one after the other.
    """
    widths, heights = _sides(config, height * width, areas, ratios)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.to(torch.uint8).argmax(dim=0, keepdim=True)
    box_width, box_height = widths.gather(0, first)[0], heights.gather(0, first)[0]
    drawn, centred = _placed(box_height, box_width, height, width, places), _centre_box(config.crop_ratio, height, width)
    found = fits.any(dim=0)
    return tuple(torch.where(found, value, fallback) for value, fallback in zip(drawn, centred, strict=True))


def _first_boxes(config: Augment, height: int, width: int, areas: Tensor, ratios: Tensor, places: Tensor) -> tuple[Tensor, ...]:
    """The like from the first try alone, clamped to the image."""
    widths, heights = _sides(config, height * width, areas[0], ratios[0])
    return _placed(heights.clamp(1, height), widths.clamp(1, width), height, width, places)


def _sides(config: Augment, pixels: int, areas: Tensor, ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Widths and heights, int64, from uniform numbers of one shape."""
    low, high = config.crop_scale
    area = (low + (high - low) * areas) * pixels
    log_low, log_high = (math.log(bound) for bound in config.crop_ratio)
    ratio = torch.exp(log_low + (log_high - log_low) * ratios)
    return torch.sqrt(area * ratio).round().long(), torch.sqrt(area / ratio).round().long()


def _placed(box_height: Tensor, box_width: Tensor, height: int, width: int, places: Tensor) -> tuple[Tensor, ...]:
    """Boxes of these sides, anywhere in the image with equal chance."""
    top = (places[0] * (height - box_height + 1)).long()
    left = (places[1] * (width - box_width + 1)).long()
    return top, left, box_height, box_width


def _centre_box(crop_ratio: tuple[float, float], height: int, width: int) -> tuple[int, int, int, int]:
    """torchvision's fallback: the largest centred box whose ratio lies within bounds."""
    low, high = crop_ratio
    box_height, box_width = height, width
    if width / height < low:
        box_height = round(width / low)
    elif width / height > high:
        box_width = round(height * high)
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width
