"""Tiny methods and a tiny dataset that they can only partly tell apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from ablatrix_models.data.images import ImageSet
from ablatrix_models.data.load import load
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.data import Data
from ablatrix_models.siamese_im.vit import Encoder

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


class TinyViTMethod(nn.Module):
    """SiameseIM's encoder, two blocks deep, on images of four patches."""

    def __init__(self, size: int, patch: int) -> None:
        super().__init__()
        self.encoder = Encoder(ViT(patch=patch, width=32, depth=2, heads=2), size)

    def features(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def project(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def cls_features(self, images: Tensor) -> Tensor:
        return self.encoder.tokens(images)[:, 0]


def vit_method(size: int, patch: int) -> TinyViTMethod:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyViTMethod(size, patch)


@pytest.fixture
def vit() -> TinyViTMethod:
    return vit_method(10, 5)


@pytest.fixture
def data() -> Data:
    return Data(name="digits", image_size=10)


@pytest.fixture(scope="session")
def digits() -> tuple[TinyViTMethod, ImageSet, ImageSet, Data]:
    """An untrained ViT and real images of a 0, a 1 or a 7, a third of each."""
    data = Data(name="digits", image_size=16)
    train, test = (of_classes(load(data, split), (0, 1, 7)) for split in ("train", "test"))
    return vit_method(16, 8), train, test, data


def of_classes(images: ImageSet, classes: tuple[int, ...]) -> ImageSet:
    rows = torch.isin(images.labels, torch.tensor(classes)).nonzero()[:, 0]
    labels = torch.tensor([classes.index(int(label)) for label in images.labels[rows]])
    return dataclasses.replace(images.subset(rows), labels=labels, classes=tuple(map(str, classes)))


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
