"""Encoders: shapes, widths, stems, and identity with torchvision where nothing is changed."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from ablatrix_models.backbones import bears_channels_last, build_backbone
from ablatrix_models.batchnorm import SplitBatchNorm
from ablatrix_models.recipe.backbone import ResNet

Name = Literal["resnet18", "resnet50"]


@pytest.mark.parametrize(("name", "width", "expected"), [("resnet18", 1.0, 512), ("resnet18", 0.25, 128), ("resnet50", 0.125, 256)])
def test_features_have_the_announced_width(name: Name, width: float, expected: int) -> None:
    encoder = build_backbone(ResNet(name=name, width=width))

    features = encoder(torch.randn(2, 3, 32, 32))

    assert encoder.width_out == expected
    assert features.shape == (2, expected)


@pytest.mark.parametrize(("name", "official"), [("resnet18", resnet18), ("resnet50", resnet50)])
def test_the_imagenet_form_is_torchvisions_without_the_classifier(name: Name, official) -> None:
    torch.manual_seed(0)
    expected = official().state_dict()
    torch.manual_seed(0)

    weights = build_backbone(ResNet(name=name, stem="imagenet")).state_dict()

    assert set(expected) - set(weights) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(weights[key], expected[key]) for key in weights)


def test_the_cifar_form_replaces_only_the_stem() -> None:
    torch.manual_seed(0)
    expected = resnet18().state_dict()
    torch.manual_seed(0)

    weights = build_backbone(ResNet(stem="cifar")).state_dict()

    assert weights["conv1.weight"].shape == (64, 3, 3, 3)
    assert all(torch.equal(weights[key], expected[key]) for key in weights if key != "conv1.weight")


@pytest.mark.parametrize(
    ("stem", "max_pool", "side"),
    [("cifar", None, 32), ("cifar", True, 16), ("imagenet", None, 8), ("imagenet", False, 16)],
)
def test_stem_and_max_pool_decide_the_first_stages_resolution(stem: Literal["cifar", "imagenet"], max_pool: bool | None, side: int) -> None:
    encoder = build_backbone(ResNet(stem=stem, max_pool=max_pool, width=0.125))
    shapes = []
    encoder.layer1.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))

    encoder(torch.randn(2, 3, 32, 32))

    assert shapes == [(2, 8, side, side)]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_width_scales_every_channel_count(name: Name) -> None:
    whole, half = (build_backbone(ResNet(name=name, width=width)) for width in (1.0, 0.5))

    pairs = zip(whole.named_parameters(), half.named_parameters(), strict=True)

    for (key, weight), (_, narrow) in pairs:
        factors = [a / b for a, b in zip(weight.shape[:2], narrow.shape[:2], strict=True)]
        assert factors[0] == 2, key
        assert factors[1:] == ([] if weight.ndim == 1 else [1] if key == "conv1.weight" else [2]), key


def test_bn_splits_replace_every_norm_layer() -> None:
    encoder = build_backbone(ResNet(width=0.125), bn_splits=4)

    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]

    assert len(norms) == 20
    assert all(isinstance(norm, SplitBatchNorm) and norm.splits == 4 for norm in norms)


def test_channels_last_images_give_the_same_features() -> None:
    torch.manual_seed(0)
    encoder = build_backbone(ResNet(width=0.25), bn_splits=2).double()
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    expected = encoder(images)

    features = encoder.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))

    torch.testing.assert_close(features, expected)


def test_split_batch_norm_groups_the_same_images_in_either_memory_format() -> None:
    torch.manual_seed(0)
    plain = build_backbone(ResNet(name="resnet18", stem="cifar", width=0.125), bn_splits=4).double().train()
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(16, 3, 16, 16, dtype=torch.float64)

    features = plain(images), last(images.contiguous(memory_format=torch.channels_last))
    for found in features:
        (found * torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)).sum().backward()

    torch.testing.assert_close(*features, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(last.bn1.running_var, plain.bn1.running_var)
    torch.testing.assert_close(last.layer4[1].conv2.weight.grad, plain.layer4[1].conv2.weight.grad, rtol=1e-7, atol=1e-9)
    assert not any(getattr(module, "consecutive", False) for module in last.modules())


def test_a_compiled_encoder_keeps_its_outputs_gradients_and_running_statistics() -> None:
    torch.manual_seed(0)
    plain = build_backbone(ResNet(width=0.125), bn_splits=2).double()
    compiled = copy.deepcopy(plain)
    compiled.compile(backend="aot_eager")  # graph and autograd as compiled, without minutes of C++
    images = torch.randn(8, 3, 16, 16, dtype=torch.float64)

    outputs = [encoder(images) for encoder in (plain, compiled)]
    for output in outputs:
        output.square().sum().backward()

    assert torch.allclose(outputs[0], outputs[1], rtol=0, atol=1e-10)
    for left, right in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(left.grad, right.grad, rtol=1e-8, atol=1e-10)  # type: ignore[arg-type]
    for left, right in zip(plain.buffers(), compiled.buffers(), strict=True):
        assert torch.allclose(left.double(), right.double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("config", "bears"),
    [
        (ResNet(width=0.0625), False),
        (ResNet(width=0.1), False),
        (ResNet(width=0.125), True),
        (ResNet(), True),
        (ResNet(name="resnet50", width=0.02), False),
        (ResNet(name="resnet50", width=0.0625), True),  # its strided 1x1 convolutions have four times as many channels
    ],
)
def test_networks_too_narrow_for_torch_s_cpu_kernels_do_not_bear_channels_last_there(config: ResNet, bears: bool) -> None:
    encoder = build_backbone(config)

    assert bears_channels_last(encoder, torch.device("cpu")) is bears
    assert bears_channels_last(encoder, torch.device("cuda"))
