"""How a view is drawn from an image. The batched transforms are in `ablatrix_models.augment`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.fields import Problem, value


@dataclass(frozen=True)
class Augment:
    """One view's random transforms, with torchvision's semantics; every parameter is drawn per image."""

    crop_scale: tuple[float, float] = value((0.2, 1.0), "area of the crop, as a share of the image", low=0.001, high=1.0)
    crop_ratio: tuple[float, float] = value((0.75, 4 / 3), "width over height of the crop, log-uniform", low=0.01)
    interpolation: Literal["bilinear", "bicubic"] = value("bilinear", "of the resize; antialiased")
    flip: float = value(0.5, "probability of a horizontal flip", low=0.0, high=1.0)
    rotation_deg: float = value(0.0, "largest rotation either way, before the crop", low=0.0, high=180.0)
    jitter: tuple[float, float, float, float] = value((0.4, 0.4, 0.4, 0.1), "brightness, contrast, saturation, hue strengths", low=0.0)
    jitter_p: float = value(0.8, "probability of colour jitter", low=0.0, high=1.0)
    grey_p: float = value(0.2, "probability of greyscale", low=0.0, high=1.0)
    blur_p: float = value(0.0, "probability of Gaussian blur", low=0.0, high=1.0)
    blur_sigma: tuple[float, float] = value((0.1, 2.0), "standard deviation of the blur in pixels, uniform", low=0.001)
    solarize_p: float = value(0.0, "probability of solarizing", low=0.0, high=1.0)
    solarize_threshold: float = value(0.5, "pixels at or above this are inverted, 0..1", low=0.0, high=1.0)
    flip_first: bool = value(False, "read the crop box in the mirrored image where the flip was drawn (SiameseIM)")
    order: Literal["crop-first", "colour-first"] = value("crop-first", "MoCo crops first; the SimCLR/BYOL base jitters first")

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        for key in ("crop_scale", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, key)
            if low > high:
                yield Problem(key, f"runs from {low:g} down to {high:g}. Write the smaller bound first.")
        if self.jitter[3] > 0.5:
            yield Problem("jitter", f"has the hue strength {self.jitter[3]:g}, but at most 0.5 is a half turn of the colour circle.")
