"""Split batch norm against a literal transcription, the released code's numbers, and plain batch norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ablatrix_models import batchnorm
from ablatrix_models.batchnorm import SplitBatchNorm
from golden import load_golden

LAYOUTS = {"nchw": torch.contiguous_format, "channels-last": torch.channels_last}


def literal(images: Tensor, splits: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Every group and channel on its own, in plain arithmetic."""
    output = torch.empty_like(images)
    for group in range(splits):
        for channel in range(images.shape[1]):
            pixels = images[group::splits, channel]
            centred = pixels - pixels.sum() / pixels.numel()
            deviation = (centred.square().sum() / pixels.numel() + eps).sqrt()
            output[group::splits, channel] = weight[channel] * centred / deviation + bias[channel]
    return output


def random_norm(channels: int, splits: int) -> SplitBatchNorm:
    norm = SplitBatchNorm(channels, splits).double()
    nn.init.uniform_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("splits", [2, 4])
def test_forward_and_gradients_equal_the_literal_transcription(layout: torch.memory_format, splits: int) -> None:
    torch.manual_seed(0)
    norm = random_norm(3, splits)
    images = torch.randn(8, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    upstream = torch.randn(8, 3, 4, 5, dtype=torch.float64)
    inputs = (images, norm.weight, norm.bias)
    expected = literal(images, splits, norm.weight, norm.bias, norm.eps)
    expected_gradients = torch.autograd.grad(expected, inputs, upstream)

    output = norm(images)
    gradients = torch.autograd.grad(output, inputs, upstream)

    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_output_and_running_statistics_are_those_of_the_released_code(layout: torch.memory_format) -> None:
    golden = load_golden("moco_cifar_split_batchnorm")
    norm = SplitBatchNorm(5, int(golden["num_splits"]))

    output = norm(torch.from_numpy(golden["input_NCHW"]).contiguous(memory_format=layout))

    torch.testing.assert_close(output.contiguous(), torch.from_numpy(golden["output_train_NCHW"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_mean, torch.from_numpy(golden["running_mean_after"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, torch.from_numpy(golden["running_var_after"]), rtol=1e-5, atol=1e-6)


def test_the_way_through_channels_last_memory_for_gpus_gives_the_same_numbers() -> None:
    torch.manual_seed(0)
    norm = random_norm(3, 4)
    images = torch.randn(8, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    means, variances = torch.zeros(12, dtype=torch.float64), torch.ones(12, dtype=torch.float64)

    output = batchnorm._as_last_channels(norm, images, means, variances)

    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, norm(images), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(means.view(4, 3).mean(0), norm.running_mean)
    torch.testing.assert_close(variances.view(4, 3).mean(0), norm.running_var)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_format_and_type_of_the_input_are_kept(layout: torch.memory_format, dtype: torch.dtype) -> None:
    images = torch.randn(4, 3, 2, 2, dtype=dtype).contiguous(memory_format=layout)

    output = SplitBatchNorm(3, 2)(images)

    assert output.is_contiguous(memory_format=layout)
    assert output.dtype == dtype


def test_one_split_is_plain_batch_norm() -> None:
    images = torch.randn(4, 3, 2, 2)
    plain, split = nn.BatchNorm2d(3), SplitBatchNorm(3, 1)

    output = split(images)

    assert torch.equal(output, plain(images))
    assert torch.equal(split.state_dict()["running_var"], plain.state_dict()["running_var"])


def test_an_image_changes_only_its_own_group() -> None:
    norm = SplitBatchNorm(3, 2)
    images = torch.randn(6, 3, 2, 2)
    changed = images.clone()
    changed[1] += 5.0

    before, after = norm(images), norm(changed)

    assert torch.equal(before[0::2], after[0::2])
    assert not torch.allclose(before[1::2], after[1::2])


def test_evaluation_uses_running_statistics_and_leaves_them() -> None:
    norm = SplitBatchNorm(3, 4)
    norm(torch.randn(8, 3, 2, 2))
    norm.eval()
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    mean, variance = before["running_mean"], before["running_var"]
    images = torch.randn(5, 3, 2, 2)

    output = norm(images)

    expected = (images - mean[:, None, None]) / (variance[:, None, None] + norm.eps).sqrt()
    torch.testing.assert_close(output, expected)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


def test_a_batch_that_does_not_split_evenly_is_refused_with_the_way_out() -> None:
    norm = SplitBatchNorm(3, 4)

    with pytest.raises(ValueError, match=r"batch of 6 images cannot be split into 4 .* multiple of method.bn_splits"):
        norm(torch.randn(6, 3, 2, 2))
