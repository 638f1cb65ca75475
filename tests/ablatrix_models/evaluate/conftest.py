"""A tiny method and a tiny dataset that it can only partly tell apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from ablatrix_models.data.images import ImageSet
from ablatrix_models.recipe.data import Data

CLASSES = ("red", "green", "blue")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are slowed by a second thread, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class TinyMethod(nn.Module):
    """Two convolutions with batch norm and dropout; a part of it stays in eval mode, as a frozen branch would."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.1),
        )
        self.head = nn.Linear(6, 4)

    def features(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def project(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))


@pytest.fixture
def method() -> TinyMethod:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = TinyMethod()
    built.train()
    built.encoder[1].eval()
    return built


@pytest.fixture
def data() -> Data:
    return Data(name="digits", image_size=10)


def tinted(images: int, seed: int) -> ImageSet:
    """Noise with a tint of the label's colour."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (images,), generator=generator)
    pixels = torch.randint(256, (images, 3, 10, 10), generator=generator).float() * 0.7
    pixels[torch.arange(images), labels] += 30
    return ImageSet(pixels.to(torch.uint8), labels, CLASSES)


@pytest.fixture
def train() -> ImageSet:
    return tinted(150, seed=1)


@pytest.fixture
def test() -> ImageSet:
    return tinted(90, seed=2)
