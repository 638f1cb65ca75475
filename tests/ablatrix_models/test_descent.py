"""The optimiser's step: parts of a batch, scaling, clipping, and what a checkpoint holds of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ablatrix_models.descent import Descent
from ablatrix_models.recipe.optimize import Optimizer

CPU = torch.device("cpu")
ADAMW = Optimizer(name="adamw", lr=0.1, weight_decay=0.05)


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def descent_of(model: nn.Module, config: Optimizer = ADAMW, *, scaled: bool = False) -> Descent:
    return Descent(config, [{"params": list(model.parameters())}], CPU, scaled=scaled)


def batch(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, 5, generator=generator), torch.randn(12, 3, generator=generator)


def losses(model: nn.Module, parts: int, seed: int = 1) -> Iterator[Tensor]:
    for images, targets in zip(*(half.chunk(parts) for half in batch(seed)), strict=True):
        yield functional.mse_loss(model(images), targets)


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def test_a_batch_in_parts_takes_the_step_of_the_whole_batch() -> None:
    whole, parted = network(), network()

    loss, _ = descent_of(whole).step(losses(whole, 1), 1.0)
    mean, _ = descent_of(parted).step(losses(parted, 3), 1.0, parts=3)

    torch.testing.assert_close(mean, loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(parted.weight, whole.weight)
    torch.testing.assert_close(gradient(parted), gradient(whole))


def test_parts_are_asked_for_one_after_the_other() -> None:
    model = network()
    held: list[bool] = []

    def parts() -> Iterator[Tensor]:
        for loss in losses(model, 2):
            held.append(model.weight.grad is not None)
            yield loss

    descent_of(model).step(parts(), 1.0, parts=2)

    assert held == [False, True]  # the first part's backward pass is over, and its activations are gone


@pytest.mark.parametrize("scaled", [False, True])
def test_the_clip_shortens_the_gradient_to_its_limit_and_tells_the_length_before(scaled: bool) -> None:
    free, clipped = network(), network()
    descent_of(free).step(losses(free, 1), 1.0)
    length = gradient(free).norm()

    _, norm = descent_of(clipped, replace(ADAMW, clip_norm=0.25 * length.item()), scaled=scaled).step(losses(clipped, 1), 1.0)

    assert norm is not None
    torch.testing.assert_close(norm, length)
    torch.testing.assert_close(gradient(clipped), 0.25 * gradient(free), rtol=1e-5, atol=1e-7)


def test_a_gradient_below_the_limit_stays_as_it_is() -> None:
    free, clipped = network(), network()

    descent_of(free).step(losses(free, 1), 1.0)
    descent_of(clipped, replace(ADAMW, clip_norm=1e6)).step(losses(clipped, 1), 1.0)

    assert torch.equal(free.weight, clipped.weight)


def test_the_learning_rate_is_the_factor_of_the_peak() -> None:
    model = network()
    before = model.weight.detach().clone()
    descent = descent_of(model)

    descent.step(losses(model, 1), 0.0)

    assert torch.equal(model.weight, before)
    assert descent.optimizer.param_groups[0]["lr"] == 0.0


def test_scaling_by_a_power_of_two_changes_no_bit() -> None:
    plain, scaled = network(), network()

    for step in range(3):
        descent_of(plain).step(losses(plain, 1, step), 1.0)
        descent_of(scaled, scaled=True).step(losses(scaled, 1, step), 1.0)

    assert torch.equal(plain.weight, scaled.weight)


def test_an_overflowing_gradient_is_skipped_and_lowers_the_scale() -> None:
    model = network()
    descent = descent_of(model, replace(ADAMW, clip_norm=1.0), scaled=True)
    before, scale = model.weight.detach().clone(), descent.scaler.get_scale()

    descent.step((loss * torch.inf for loss in losses(model, 1)), 1.0)

    assert torch.equal(model.weight, before)
    assert descent.scaler.get_scale() == scale / 2


def test_a_checkpoint_holds_the_scale() -> None:
    model = network()
    descent = descent_of(model, scaled=True)
    descent.step((loss * torch.inf for loss in losses(model, 1)), 1.0)

    restored = descent_of(model, scaled=True)
    restored.load_state_dict(copy.deepcopy(descent.state_dict()))

    assert restored.scaler.get_scale() == descent.scaler.get_scale() != descent_of(model, scaled=True).scaler.get_scale()


def test_a_checkpoint_from_before_there_was_a_scaler_still_opens() -> None:
    model = network()
    descent = descent_of(model)
    descent.step(losses(model, 1), 1.0)

    restored = descent_of(model)
    restored.load_state_dict({"optimizer": descent.optimizer.state_dict()})

    assert len(restored.optimizer.state) == 2
