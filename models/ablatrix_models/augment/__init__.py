"""Two-view augmentation of whole batches of images, on any device.

`draw` samples every random parameter, per image, on the CPU; `apply` turns uint8 images into one view on the device that
they lie on. The law of the parameters and the arithmetic are torchvision's; nothing loops over images.
"""

from ablatrix_models.augment.centre import centre
from ablatrix_models.augment.geometry import RelativeGeometry
from ablatrix_models.augment.parameters import Parameters, draw
from ablatrix_models.augment.views import TwoViews, apply, normalise, two_views

__all__ = ["Parameters", "RelativeGeometry", "TwoViews", "apply", "centre", "draw", "normalise", "two_views"]
