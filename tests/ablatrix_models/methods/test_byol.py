"""BYOL's composed loss against vectors made with the base repository's loss, and its target's motion."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ablatrix_models.augment import TwoViews
from ablatrix_models.losses import byol_regression
from ablatrix_models.methods.byol import BYOL, byol_loss
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
@pytest.mark.parametrize(("target_side", "style"), [(False, "mixed_online_only"), (True, "unmix_readme_style")])
def test_loss_and_gradients_equal_the_composed_golden(permutation: str, target_side: bool, style: str) -> None:
    golden = load_golden("mixmask_byol_loss_COMPOSED")
    p1, p2, mixed = (torch.from_numpy(golden[f"prediction_{name}"]).requires_grad_() for name in ("view1", "view2", "mixed"))
    t1, t2, mixed_target = (torch.from_numpy(golden[f"target_{name}"]) for name in ("view1", "view2", "mixed"))
    own = torch.full((len(p1),), float(golden["lambda_"]))
    restore = torch.arange(len(p1)).flip(0) if permutation == "reverse" else torch.from_numpy(golden["random_permutation"]).argsort()
    mixture = Mix(mixed, own, 1 - own, restore)

    loss, diagnostics = byol_loss((p1, p2), (t1, t2), [mixed], [mixture], [mixed_target] if target_side else None)
    loss.backward()

    assert loss.item() == pytest.approx(golden[f"{permutation}__total_{style}"], rel=1e-6)
    assert diagnostics["loss.clean"].item() == pytest.approx(golden[f"{permutation}__base_symmetric"], rel=1e-6)
    suffix = "online_only" if not target_side else "readme_style"
    for features, name in ((p1, "p1"), (p2, "p2"), (mixed, "pmixed")):
        if (key := f"{permutation}__grad_{name}_{suffix}") in golden:
            torch.testing.assert_close(features.grad, torch.from_numpy(golden[key]), rtol=1e-5, atol=1e-6)


def test_a_mixture_that_is_view_a_adds_its_direction_once_more() -> None:
    torch.manual_seed(0)
    method = BYOL(config.BYOL(hidden=8, dim=6), SMALL).double()
    a, b = torch.randn(2, 6, 3, 16, 16, dtype=torch.float64)
    prediction, target = method._predict(a), method._target(b)

    _, diagnostics = method.loss(TwoViews(a, b, None), [Mix(a, torch.ones(6), None, torch.arange(6))], torch.Generator())

    torch.testing.assert_close(diagnostics["loss.mixture"], byol_regression(prediction, target).mean().detach())


def test_the_targets_momentum_follows_the_released_schedule_in_whole_epochs() -> None:
    golden = load_golden("small_dataset_schedules")
    epochs = len(golden["byol_epoch_0based"])
    kept = []
    for epoch in (0, 1, 499, 999):
        method = BYOL(config.BYOL(hidden=8, dim=6, momentum=0.99), SMALL).double()
        for online, target in zip(method.encoder.parameters(), method.target_encoder.parameters(), strict=True):
            online.data.fill_(0.0)
            target.data.fill_(1.0)
        method.after_step(0.123, epoch, epochs)
        kept.append(next(method.target_encoder.parameters()).mean().item())

    expected = golden["byol_tau_target_keep_fraction"][[0, 1, 499, 999]]

    assert kept == pytest.approx(expected.tolist(), rel=1e-12)


def test_a_constant_momentum_stays() -> None:
    method = BYOL(config.BYOL(hidden=8, dim=6, momentum=0.9, momentum_schedule="constant"), SMALL)
    for online, target in ((method.encoder, method.target_encoder), (method.head, method.target_head)):
        for leader, follower in zip(online.parameters(), target.parameters(), strict=True):
            leader.data.fill_(0.0)
            follower.data.fill_(1.0)

    method.after_step(0.5, 5, 10)

    for network in (method.target_encoder, method.target_head):
        assert all(torch.allclose(parameter, torch.tensor(0.9)) for parameter in network.parameters())


def test_the_target_starts_as_a_copy_and_keeps_batch_norm_statistics_of_its_own() -> None:
    method = BYOL(config.BYOL(hidden=8, dim=6), SMALL)
    online, target = method.encoder.state_dict(), method.target_encoder.state_dict()
    assert all(torch.equal(online[key], target[key]) for key in online)
    a, b = torch.randn(2, 6, 3, 16, 16)

    method.loss(TwoViews(a, b, None), [Mix(a + b, torch.ones(6), None, torch.arange(6))], torch.Generator())
    before = target["bn1.running_mean"].clone()
    method.after_step(0.0, 0, 1)

    assert not torch.equal(before, online["bn1.running_mean"])
    assert torch.equal(before, target["bn1.running_mean"])
