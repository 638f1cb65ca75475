"""Which encoder. The networks are in `ablatrix_models.backbones`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.fields import Problem, value


@dataclass(frozen=True)
class ResNet:
    """A residual network (He et al. 2016) without its classifier; features are the pooled last stage."""

    name: Literal["resnet18", "resnet50"] = value("resnet18", "depth")
    stem: Literal["cifar", "imagenet"] = value("cifar", "3x3 stride 1, or 7x7 stride 2")
    max_pool: bool | None = value(None, "keep the stem's max-pool; empty means only with the imagenet stem")
    width: float = value(1.0, "multiplies every channel count; below 1 for CPU profiles", low=0.01, high=4.0)

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "resnet18|resnet50"

    @property
    def pools(self) -> bool:
        """Whether the stem ends in a max-pool."""
        return self.stem == "imagenet" if self.max_pool is None else self.max_pool

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if round(64 * self.width) < 1:
            yield Problem("width", f"is {self.width:g}, so the first stage would have no channel. Use at least 0.016.")


Backbone = ResNet
