"""Linear probes: what they learn, what they leave alone, and that test labels choose nothing."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate.features import extract
from ablatrix_models.evaluate.linear import fit_on_features, fit_on_views, fit_to_the_minimum, linear_top1
from ablatrix_models.recipe.evaluate import Linear
from ablatrix_models.recipe.fields import build

MOCO = Linear(kind="moco", epochs=3, batch_size=32, lr=3.0, milestones=(2,))
CACHED = Linear(kind="cached", epochs=20, batch_size=50, lr=0.05, final_lr=1e-4, weight_decay=5e-6)
LBFGS = Linear(kind="lbfgs", epochs=60, weight_decay=1e-3)
LARGE = Linear(kind="lars", epochs=12, batch_size=32, lr=15.0, warmup_epochs=1)
SEEDED = pytest.mark.parametrize("config", [MOCO, CACHED, LARGE], ids=["moco", "cached", "lars"])
ALL = pytest.mark.parametrize("config", [MOCO, CACHED, LBFGS, LARGE], ids=["moco", "cached", "lbfgs", "lars"])


@ALL
def test_a_probe_learns_what_the_features_tell(config, method, train, test, data) -> None:
    score = linear_top1(config, method, train, test, data, seed=0, device="cpu")

    assert score > 60  # a third is chance


@ALL
def test_shuffled_training_labels_leave_nothing_but_chance(config, method, train, test, data) -> None:
    shuffled = dataclasses.replace(train, labels=train.labels[torch.randperm(150, generator=torch.Generator().manual_seed(0))])

    score = linear_top1(config, method, shuffled, test, data, seed=0, device="cpu")

    assert score < 55


@SEEDED
def test_the_score_is_a_function_of_the_seed(config, method, train, test, data) -> None:
    few = dataclasses.replace(config, epochs=1, warmup_epochs=0)

    scores = [linear_top1(few, method, train, test, data, seed=seed, device="cpu") for seed in (0, 0, 1, 2, 3)]

    assert scores[0] == scores[1]
    assert len(set(scores)) > 1


@ALL
def test_the_method_and_the_global_generator_are_left_as_found(config, method, train, test, data) -> None:
    method.train()
    before, modes = copy.deepcopy(method.state_dict()), [part.training for part in method.modules()]
    state = torch.get_rng_state()

    linear_top1(config, method, train, test, data, seed=0, device="cpu")

    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert [part.training for part in method.modules()] == modes
    assert all(weight.grad is None for weight in method.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@ALL
def test_permuted_test_labels_change_only_the_count(config, method, train, test, data) -> None:
    cyclic = [dataclasses.replace(test, labels=(test.labels + shift) % 3) for shift in range(3)]

    scores = [linear_top1(config, method, train, relabelled, data, seed=0, device="cpu") for relabelled in cyclic]

    # one fixed prediction per image is right under exactly one of the three labellings
    assert sum(scores) == pytest.approx(100)
    assert len(set(scores)) == 3


def test_a_view_of_each_image_is_drawn_in_every_epoch_by_moco_alone(method, train, test, data) -> None:
    seen: list[int] = []
    method.encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))

    linear_top1(MOCO, method, train, test, data, seed=0, device="cpu")
    views = sum(seen)
    seen.clear()
    linear_top1(CACHED, method, train, test, data, seed=0, device="cpu")

    assert views == 3 * 150 + 90 + 1  # one more to learn the width
    assert sum(seen) == 150 + 90


def test_the_cached_probe_equals_plain_adam_with_a_geometric_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(30, 5, generator=generator), torch.arange(30) % 3
    config = Linear(kind="cached", epochs=4, batch_size=30, lr=0.1, final_lr=0.001, weight_decay=0.01)

    layer = fit_on_features(config, features, labels, 3, torch.Generator().manual_seed(7))

    again = torch.Generator().manual_seed(7)
    weight, bias = ((torch.rand(shape, generator=again) * 2 - 1).double() / 5**0.5 for shape in ((3, 5), (3,)))
    theta = torch.cat([weight, bias[:, None]], dim=1)
    inputs = torch.cat([features, torch.ones(30, 1)], dim=1).double()
    first, second = torch.zeros_like(theta), torch.zeros_like(theta)
    for step in range(1, 5):
        probabilities = torch.softmax(inputs @ theta.T, dim=1)
        slope = (probabilities - torch.nn.functional.one_hot(labels, 3)).T @ inputs / 30 + 0.01 * theta
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        rate = 0.1 * 0.01 ** ((step - 1) / 4)
        theta = theta - rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    torch.testing.assert_close(torch.cat([layer.weight, layer.bias[:, None]], dim=1).double(), theta, rtol=1e-4, atol=1e-5)


def test_mocos_probe_equals_plain_sgd_on_features_where_views_cannot_differ(method, test, data) -> None:
    generator = torch.Generator().manual_seed(3)
    colours = torch.randint(256, (60, 3, 1, 1), generator=generator, dtype=torch.uint8).expand(60, 3, 10, 10).contiguous()
    flat = ImageSet(colours, colours[:, :, 0, 0].argmax(dim=1), test.classes)
    config = Linear(kind="moco", epochs=3, batch_size=60, lr=1.0, weight_decay=0.1, milestones=(1, 2))
    features = extract(method.features, flat, data, device="cpu").double()

    layer = fit_on_views(config, method, flat, data, torch.Generator().manual_seed(5), "cpu", "fp32")

    weight = torch.empty(3, 6).normal_(std=0.01, generator=torch.Generator().manual_seed(5)).double()
    theta, velocity = torch.cat([weight, torch.zeros(3, 1)], dim=1), torch.zeros(3, 7, dtype=torch.float64)
    inputs = torch.cat([features, torch.ones(60, 1)], dim=1)
    for rate in (1.0, 0.1, 0.01):
        slope = (torch.softmax(inputs @ theta.T, dim=1) - torch.nn.functional.one_hot(flat.labels, 3)).T @ inputs / 60 + 0.1 * theta
        velocity = 0.9 * velocity + slope
        theta = theta - rate * velocity
    torch.testing.assert_close(torch.cat([layer.weight, layer.bias[:, None]], dim=1).double(), theta, rtol=1e-4, atol=1e-5)


def test_lbfgs_ends_where_the_slope_vanishes() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 5, generator=generator) * torch.tensor([1.0, 10, 0.1, 3, 1]) + 2, torch.arange(40) % 3

    layer = fit_to_the_minimum(Linear(kind="lbfgs", epochs=200, weight_decay=0.05), features, labels, 3)

    raw = features.double()
    mean, spread = raw.mean(0), raw.std(0, correction=0)
    weight = layer.weight.detach().double() * spread
    error = torch.softmax(raw @ layer.weight.detach().double().T + layer.bias.detach().double(), dim=1)
    error -= torch.nn.functional.one_hot(labels, 3)
    slope = error.T @ ((raw - mean) / spread) / 40 + 0.05 * weight
    assert weight.abs().max() > 0.1
    assert slope.abs().max() < 1e-4
    assert error.mean(0).abs().max() < 1e-4


def test_lbfgs_ignores_the_seed_and_the_scale_and_origin_of_each_feature(method, train, test, data) -> None:
    features = extract(method.features, train, data, device="cpu")
    moved = features * torch.tensor([0.01, 1, 100, 3, 1, 1]) + 5

    scores = {linear_top1(LBFGS, method, train, test, data, seed=seed, device="cpu") for seed in (0, 1)}
    here, there = (fit_to_the_minimum(LBFGS, f, train.labels, 3)(f) for f in (features, moved))

    assert len(scores) == 1
    torch.testing.assert_close(here, there, rtol=0.01, atol=0.02)


def test_a_heavy_penalty_leaves_lbfgs_with_the_class_frequencies() -> None:
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    features[:, 2] = 7.0  # a feature that never changes does no harm
    labels = torch.tensor([0] * 10 + [1] * 30)

    layer = fit_to_the_minimum(Linear(kind="lbfgs", weight_decay=1e6), features, labels, 2)

    torch.testing.assert_close(layer(features).softmax(dim=1), torch.tensor([0.25, 0.75]).expand(40, 2), rtol=0.0, atol=1e-3)


def test_a_protocol_that_is_off_cannot_be_measured(method, train, test, data) -> None:
    with pytest.raises(ValueError, match="'off', so there is nothing to measure"):
        linear_top1(Linear(), method, train, test, data, seed=0, device="cpu")


def test_constants_of_one_probe_are_refused_for_another() -> None:
    _, problems = build(Linear, {"kind": "cached"})
    _, rising = build(Linear, {"kind": "cached", "lr": 0.01, "final_lr": 0.1})
    good, none = build(Linear, {"kind": "cached", "lr": 0.01, "epochs": 500, "batch_size": 1000, "weight_decay": 5e-6})

    assert [p.key for p in problems] == ["lr"]
    assert [p.key for p in build(Linear, {"kind": "lbfgs"})[1]] == ["weight_decay"]
    assert [p.key for p in rising] == ["final_lr"]
    assert [p.key for p in build(Linear, {"kind": "lars"})[1]] == ["lr"]
    assert [p.key for p in build(Linear, {"kind": "lars", "lr": 6.4, "epochs": 10})[1]] == ["warmup_epochs"]
    assert build(Linear, {"kind": "lars", "lr": 6.4, "epochs": 90, "batch_size": 16384})[1] == []
    assert good is not None
    assert not none
