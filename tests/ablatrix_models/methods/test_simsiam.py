"""SimSiam's composed loss against vectors made with the base repository's loss."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from ablatrix_models.augment import TwoViews
from ablatrix_models.losses import negative_cosine
from ablatrix_models.methods.simsiam import SimSiam, simsiam_loss
from ablatrix_models.recipe import method as config
from ablatrix_models.recipe.backbone import ResNet
from golden import load_golden

SMALL = ResNet(width=0.0625)


@dataclass(frozen=True)
class Mix:
    """A mixture as `ablatrix_models.mixing` makes them."""

    images: Tensor
    own: Tensor
    other: Tensor | None
    restore: Tensor


@pytest.mark.parametrize("permutation", ["reverse", "randperm_inverse"])
@pytest.mark.parametrize(("target_side", "style"), [(False, "predictor_side_only"), (True, "unmix_readme_style")])
def test_loss_and_gradient_equal_the_composed_golden(permutation: str, target_side: bool, style: str) -> None:
    golden = load_golden("mixmask_simsiam_loss_COMPOSED")
    predictions = [torch.from_numpy(golden[f"prediction_{name}"]).requires_grad_() for name in ("view1", "view2", "mixed")]
    projections = [torch.from_numpy(golden[f"projection_{name}_stopgrad"]) for name in ("view1", "view2", "mixed")]
    own = torch.full((len(predictions[0]),), float(golden["lambda_"]))
    restore = torch.arange(len(own)).flip(0) if permutation == "reverse" else torch.from_numpy(golden["random_permutation"]).argsort()
    mixture = Mix(predictions[2], own, 1 - own, restore)

    loss, diagnostics = simsiam_loss(predictions, projections, [mixture], target_side=target_side)
    loss.backward()

    assert loss.item() == pytest.approx(golden[f"{permutation}__total_{style}"], rel=1e-5, abs=1e-7)
    assert diagnostics["loss.clean"].item() == pytest.approx(golden[f"{permutation}__base_symmetric"], abs=1e-7)
    if (key := f"{permutation}__grad_pmixed_{style}") in golden:
        torch.testing.assert_close(predictions[2].grad, torch.from_numpy(golden[key]), rtol=1e-5, atol=1e-6)


def test_a_mixture_that_is_view_a_adds_its_whole_direction() -> None:
    torch.manual_seed(0)
    method = SimSiam(config.SimSiam(hidden=8, dim=6, predictor_hidden=4), SMALL).double()
    a, b = torch.randn(2, 6, 3, 16, 16, dtype=torch.float64)
    expected = negative_cosine(method.predictor(method.project(a)), method.project(b)).mean()

    _, diagnostics = method.loss(TwoViews(a, b, None), [Mix(a, torch.ones(6), None, torch.arange(6))], torch.Generator())

    torch.testing.assert_close(diagnostics["loss.mixture"], expected.detach())


@pytest.mark.parametrize("constant", [True, False])
def test_only_the_predictor_keeps_a_constant_learning_rate(constant: bool) -> None:
    method = SimSiam(config.SimSiam(hidden=8, dim=6, predictor_hidden=4, constant_predictor_lr=constant), SMALL)

    trained, predictor = method.parameter_groups()

    assert "constant_lr" not in trained
    assert predictor.get("constant_lr", False) is constant
    assert {id(p) for p in predictor["params"]} == {id(p) for p in method.predictor.parameters()}


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_projector_has_the_asked_layers_and_batch_norm_on_its_output(layers: int) -> None:
    head = SimSiam(config.SimSiam(layers=layers, hidden=8, dim=6, predictor_hidden=4), SMALL).head

    kinds = [type(layer) for layer in head.children()]

    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * (layers - 1) + [nn.Linear, nn.BatchNorm1d]


def test_the_spread_of_embeddings_tells_collapse() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(512, 64)
    collapsed = torch.ones(512, 64)

    values = [simsiam_loss([z, z], [z, z], [], target_side=False)[1]["embedding.std"].item() for z in (embeddings, collapsed)]

    assert values == pytest.approx([1.0, 0.0], abs=0.02)
