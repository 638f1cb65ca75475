"""Extraction: order, eval mode, normalisation, precision, bad input."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate.features import eval_mode, extract
from ablatrix_models.recipe.data import Data


def modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def test_features_are_those_of_each_normalised_image_alone_in_order(method, data, test) -> None:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (data.mean, data.std))
    method.eval()

    features = extract(method.features, test, data, batch_size=7, device="cpu")

    each = [method.features(((image / 255.0 - mean) / std)[None])[0] for image in test.images]
    torch.testing.assert_close(features, torch.stack(each).detach(), rtol=1e-4, atol=1e-5)


def test_the_batch_size_changes_nothing(method, data, test) -> None:
    one, many = (extract(method.project, test, data, batch_size=size, device="cpu") for size in (1, 512))

    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)


def test_every_submodule_gets_its_own_mode_back(method, data, test) -> None:
    before = modes(method)

    with eval_mode(method.features):
        assert not any(modes(method))
    extract(method.features, test, data, device="cpu")

    assert any(before)
    assert not all(before)
    assert modes(method) == before


def test_modes_come_back_after_an_error_too(method) -> None:
    before = modes(method)

    with pytest.raises(RuntimeError, match="shapes"), eval_mode(method):
        method.head(torch.zeros(1, 99))

    assert modes(method) == before


def test_running_statistics_and_gradients_stay_untouched(method, data, test) -> None:
    method.train()
    before = {name: value.clone() for name, value in method.state_dict().items()}

    features = extract(method.project, test, data, device="cpu")

    assert not features.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_a_plain_function_can_encode(data, test) -> None:
    features = extract(lambda images: images.mean(dim=(2, 3)), test, data, device="cpu")

    assert features.shape == (90, 3)


def test_bf16_rounds_but_returns_float32(method, data, test) -> None:
    exact = extract(method.features, test, data, device="cpu")

    rounded = extract(method.features, test, data, device="cpu", precision="bf16")

    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)


def test_images_of_one_native_size_are_seen_whole_and_others_lose_their_margin() -> None:
    framed = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    framed[:, :, 1:-1, 1:-1] = 0
    images = ImageSet(framed, torch.zeros(1, dtype=torch.int64), ("only",))
    unscaled = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

    def brightest(config: Data) -> float:
        return extract(lambda x: x.amax(dim=(2, 3)), images, dataclasses.replace(config, **unscaled), device="cpu").max().item()

    assert brightest(Data(name="digits", image_size=16)) == 1
    assert brightest(Data(name="imagenette", image_size=14)) == 0  # kept at 16 pixels, of which the middle 14 are seen


def test_no_images_and_diverged_networks_are_errors(method, data, test) -> None:
    method.head.weight.data.fill_(torch.nan)

    with pytest.raises(ValueError, match="the set is empty"):
        extract(method.features, test.subset([]), data, device="cpu")
    with pytest.raises(FloatingPointError, match="training diverged"):
        extract(method.project, test, data, device="cpu")
