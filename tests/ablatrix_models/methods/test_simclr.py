"""SimCLR's composed loss against vectors made with the base repository's loss."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from ablatrix_models.augment import TwoViews
from ablatrix_models.methods.simclr import SimCLR, simclr_loss
from ablatrix_models.recipe import method as config
from ablatrix_models.recipe.backbone import ResNet
from golden import load_golden


@dataclass(frozen=True)
class Mix:
    """A mixture as `ablatrix_models.mixing` makes them."""

    images: Tensor
    own: Tensor
    other: Tensor | None
    restore: Tensor


@pytest.mark.parametrize("temperature", [0.5, 0.1])
@pytest.mark.parametrize("permutation", ["reverse", "randperm_inverse"])
def test_loss_and_gradients_equal_the_composed_golden(temperature: float, permutation: str) -> None:
    golden = load_golden("mixmask_simclr_loss_COMPOSED")
    case = f"tau{temperature}_{permutation}"
    a, b, mixed = (torch.from_numpy(golden[f"raw_z_{name}"]).requires_grad_() for name in ("view1", "view2", "mixed"))
    own = torch.full((len(a),), float(golden["lambda_"]))
    partners = torch.from_numpy(golden["random_permutation"])
    restore = torch.arange(len(a)).flip(0) if permutation == "reverse" else partners.argsort()

    loss, diagnostics = simclr_loss((a, b), [(b, mixed)], [Mix(mixed, own, 1 - own, restore)], temperature)
    loss.backward()

    assert loss.item() == pytest.approx(golden[f"{case}__total"], rel=1e-6)
    assert diagnostics["loss.clean"].item() == pytest.approx(golden[f"{case}__loss_view1_view2"], rel=1e-6)
    for features, name in ((a, "z1"), (b, "z2"), (mixed, "zmixed")):
        torch.testing.assert_close(features.grad, torch.from_numpy(golden[f"{case}__grad_{name}"]), rtol=1e-5, atol=1e-6)


def test_a_mixture_that_is_view_a_repeats_the_clean_loss() -> None:
    torch.manual_seed(0)
    method = SimCLR(config.SimCLR(hidden=8, dim=6), ResNet(width=0.0625)).double()
    a, b = torch.randn(2, 6, 3, 16, 16, dtype=torch.float64)

    loss, diagnostics = method.loss(TwoViews(a, b, None), [Mix(a, torch.ones(6), None, torch.arange(6))], torch.Generator())

    torch.testing.assert_close(loss.detach(), 2 * diagnostics["loss.clean"])


def test_the_head_normalises_both_views_together_and_the_encoder_each_alone() -> None:
    method = SimCLR(config.SimCLR(hidden=8, dim=6), ResNet(width=0.0625))
    batches = {"encoder": [], "head": []}
    method.encoder.register_forward_hook(lambda module, inputs, output: batches["encoder"].append(len(inputs[0])))
    method.head.register_forward_hook(lambda module, inputs, output: batches["head"].append(len(inputs[0])))
    a, b = torch.randn(2, 6, 3, 16, 16)

    method.loss(TwoViews(a, b, None), [Mix(a, torch.ones(6), None, torch.arange(6))], torch.Generator())

    assert batches == {"encoder": [6, 6, 6], "head": [12, 12]}


@pytest.mark.parametrize("output_norm", [True, False])
def test_the_head_ends_in_batch_norm_where_asked(output_norm: bool) -> None:
    head = SimCLR(config.SimCLR(hidden=8, dim=6, output_norm=output_norm), ResNet(width=0.0625)).head

    layers = [type(layer) for layer in head.children()]

    assert layers == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear] + [nn.BatchNorm1d] * output_norm
