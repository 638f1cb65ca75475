"""Which images. The readers are in `ablatrix_models.data`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.fields import Problem, nearest, value

# name -> (native pixels per side, or 0 where images differ in size; classes, or 0 where the files say)
DATASETS: dict[str, tuple[int, int]] = {
    "digits": (8, 10),
    "cifar10": (32, 10),
    "cifar100": (32, 100),
    "fashion-mnist": (28, 10),
    "tiny-imagenet": (64, 200),
    "imagenette": (0, 10),
    "imagenet-1k": (0, 1000),
    "folder": (0, 0),
    "parquet": (0, 0),
}


@dataclass(frozen=True)
class Data:
    """A dataset by name; `folder` and `parquet` read any directory of that layout."""

    name: str = value("digits", "one of the known datasets, or folder, or parquet")
    path: str | None = value(None, "where it lies; empty means the dataset's own place under the data root", identity=False)
    image_size: int = value(32, "pixels per side that the network sees", low=4, high=1024)
    train_images: int | None = value(None, "use only the first n training images", low=1)
    test_images: int | None = value(None, "use only the first n test images", low=1)
    held_out: int | None = value(
        None,
        "set the first n training images apart and judge on them, not on the test images: where something is chosen by the result",
        low=1,
        added=True,
    )
    mean: tuple[float, float, float] = value((0.4914, 0.4822, 0.4465), "per RGB channel, of pixels in 0..1", low=0.0, high=1.0)
    std: tuple[float, float, float] = value((0.2023, 0.1994, 0.2010), "per RGB channel, of pixels in 0..1", low=1e-6)

    @property
    def store_size(self) -> int:
        """Pixels per side that decoded images are kept at: the native size, else 8/7 of `image_size` (224 -> 256).

        8/7 is the margin of the usual ImageNet protocol, which resizes to 256 before it crops 224.
        """
        native = DATASETS[self.name][0]
        return native or -(-self.image_size * 8 // 7)

    def limit(self, split: Literal["train", "test"]) -> int | None:
        """How many images of `split` are used at most; None means all."""
        return self.train_images if split == "train" else self.test_images

    def trained_on(self, images: int) -> int:
        """How many of `images` training images are trained on: without those held out."""
        return images - (self.held_out or 0)

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if self.train_images is not None and self.trained_on(self.train_images) < 1:
            yield Problem("held_out", f"is {self.held_out}, so none of the {self.train_images} training images is left. Use fewer.")
        if self.name not in DATASETS:
            yield Problem("name", f"is {self.name!r}, which is no known dataset. {nearest(self.name, list(DATASETS))}")
        if self.name in ("folder", "parquet") and not self.path:
            yield Problem("path", f"is needed, because {self.name!r} names a layout and not a place.")
