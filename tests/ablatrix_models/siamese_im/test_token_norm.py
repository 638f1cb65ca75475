"""Batch norm over tokens against the released one and a literal transcription."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablatrix_models.siamese_im.token_norm import TokenBatchNorm, token_norm
from golden import load_golden


def assert_near(actual: Tensor | None, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_training_step_and_evaluation_equal_the_released_ones() -> None:
    golden = {key: torch.from_numpy(value) for key, value in load_golden("sim_token_batchnorm").items()}
    norm = TokenBatchNorm(6)
    norm.bn.load_state_dict({"weight": golden["weight"], "bias": golden["bias"]}, strict=False)
    tokens = golden["input_BLC_f32"].requires_grad_()

    output = norm(tokens)
    output.backward(golden["upstream_grad_BLC"])

    assert_near(output, golden["output_train_BLC_f32"])
    assert_near(tokens.grad, golden["grad_input_BLC"])
    assert_near(norm.bn.running_mean, golden["running_mean_after_one_step"])
    assert_near(norm.bn.running_var, golden["running_var_after_one_step"])
    assert_near(norm.eval()(tokens), golden["output_eval_after_one_step_BLC"])


def test_statistics_are_those_of_all_tokens_of_all_images() -> None:
    tokens = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = [tokens[i, j] for i in range(3) for j in range(5)]
    mean = torch.stack(rows).sum(0) / 15
    variance = torch.stack([(row - mean) ** 2 for row in rows]).sum(0) / 15

    output = TokenBatchNorm(4, dtype=torch.float64)(tokens)

    torch.testing.assert_close(output, (tokens - mean) / (variance + 1e-5).sqrt())


def test_half_precision_tokens_are_normed_in_full_precision() -> None:
    tokens = torch.randn(2, 3, 4).bfloat16()

    with torch.autocast("cpu", torch.bfloat16):
        output = TokenBatchNorm(4)(tokens)

    assert output.dtype == torch.float32


def test_it_can_be_exchanged_for_synchronised_batch_norm() -> None:
    norms = nn.Sequential(TokenBatchNorm(4))

    nn.SyncBatchNorm.convert_sync_batchnorm(norms)

    assert isinstance(norms[0], TokenBatchNorm)
    assert isinstance(norms[0].bn, nn.SyncBatchNorm)


def test_layer_norm_computes_in_32_bits_under_autocast() -> None:
    norm = token_norm("layer")(8)
    tokens = 100 + torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)

    with torch.autocast("cpu", torch.bfloat16):
        found = norm(tokens)

    assert found.dtype == torch.float32
    torch.testing.assert_close(found, nn.functional.layer_norm(tokens.float(), (8,), eps=1e-6))
