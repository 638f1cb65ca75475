"""MoCo against the released code's numbers and a slow transcription of MixMask's Algorithm 1."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ablatrix_models.augment import TwoViews
from ablatrix_models.methods.moco import MoCo
from ablatrix_models.recipe import method as config
from ablatrix_models.recipe.backbone import ResNet
from golden import load_golden

BATCH, SIZE = 8, 16
SMALL = ResNet(width=0.0625)


@dataclass(frozen=True)
class Mix:
    """A mixture as `ablatrix_models.mixing` makes them."""

    images: Tensor
    own: Tensor
    other: Tensor | None
    restore: Tensor


def reversed_mixture(images: Tensor, share: float) -> Mix:
    weights = torch.full((len(images),), share, dtype=images.dtype)
    return Mix(images, weights, 1 - weights, torch.arange(len(images)).flip(0))


def without_encoder(settings: config.MoCo, queue: Tensor) -> MoCo:
    """A MoCo whose "images" are features already; `queue` in the released layout (dim, negatives)."""
    method = MoCo(settings, SMALL)
    for name in ("encoder", "head", "key_encoder", "key_head"):
        layer = nn.Linear(len(queue), len(queue), bias=False)
        nn.init.eye_(layer.weight)
        setattr(method, name, layer.requires_grad_(not name.startswith("key")))
    method.queue.copy_(queue.T)
    return method.to(queue.dtype)


def literal_contrast(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Cross-entropy over [positive, negatives] with label 0, mean over the batch."""
    losses = []
    for query, key in zip(queries, keys, strict=True):
        logits = torch.stack([query @ key, *(query @ negative for negative in queue)]) / temperature
        losses.append(torch.logsumexp(logits, 0) - logits[0])
    return torch.stack(losses).mean()


def literal_step(method: MoCo, a: Tensor, b: Tensor, mixed: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Algorithm 1 with one mixture, in the order of the released code, encoding the switched images as well.

    Returns the loss and the keys for the queue.
    """
    settings, queue = method.settings, method.queue.clone()
    leaders = [*method.encoder.parameters(), *method.head.parameters()]
    followers = [*method.key_encoder.parameters(), *method.key_head.parameters()]
    for leader, follower in zip(leaders, followers, strict=True):
        follower.data = settings.momentum * follower.data + (1 - settings.momentum) * leader.data

    def query(images: Tensor) -> Tensor:
        return functional.normalize(method.head(method.encoder(images)), dim=1)

    def direction(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.randperm(len(two), generator=generator) if settings.bn_splits > 1 else torch.arange(len(two))
        with torch.no_grad():
            keys = functional.normalize(method.key_head(method.key_encoder(two[order])), dim=1)[order.argsort()]
        losses = [literal_contrast(query(images), keys, queue, settings.temperature) for images in (one, mixed, mixed.flip(0))]
        return losses[0] + share * losses[1] + (1 - share) * losses[2], keys

    loss, keys_b = direction(a, b)
    if not settings.symmetric:
        return loss, keys_b
    other, keys_a = direction(b, a)
    return loss + other, torch.cat([keys_a, keys_b])


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_step_equals_algorithm_1_in_loss_gradient_and_queue(symmetric: bool, splits: int) -> None:
    torch.manual_seed(0)
    method = MoCo(config.MoCo(dim=6, queue=32, momentum=0.9, symmetric=symmetric, bn_splits=splits), SMALL).double()
    with torch.no_grad():
        for parameter in method.key_encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    a, b = torch.randn(2, BATCH, 3, SIZE, SIZE, dtype=torch.float64)
    mask = torch.rand(SIZE, SIZE) < 0.4
    mixed, share = torch.where(mask, a, a.flip(0)), mask.double().mean().item()
    reference = copy.deepcopy(method)
    expected, keys = literal_step(reference, a, b, mixed, share, torch.Generator().manual_seed(1))
    expected.backward()

    method.before_step()
    loss, _ = method.loss(TwoViews(a, b, None), (reversed_mixture(mixed, share),), torch.Generator().manual_seed(1))
    loss.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-9)
    for (name, parameter), wanted in zip(method.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, wanted.grad, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(method.queue[: len(keys)], keys, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", ["B6_D8_K12_T0.2_lambda0.40625", "B8_D16_K32_T0.1_lambda0.5", "B5_D8_K10_T0.07_lambda0.0"])
def test_loss_gradient_and_queue_are_those_of_the_released_mixmask(case: str) -> None:
    golden = {key.removeprefix(f"{case}__"): value for key, value in load_golden("mixmask_moco_loss_reverse_permutation").items()}
    temperature, share = (float(case.split(mark)[1].split("_")[0]) for mark in ("_T", "_lambda"))
    queue = torch.from_numpy(golden["queue_DxK_unit_columns_before"])
    settings = config.MoCo(dim=queue.shape[0], queue=queue.shape[1], temperature=temperature, symmetric=False, bn_splits=1)
    method = without_encoder(settings, queue)
    q, k, mixed = (torch.from_numpy(golden[f"raw_{name}"]) for name in ("query_features_q", "key_features_k", "mixed_query_features"))
    q.requires_grad_()
    mixed.requires_grad_()

    loss, diagnostics = method.loss(TwoViews(q, k, None), (reversed_mixture(mixed, share),), torch.Generator())
    loss.backward()

    assert loss.item() == pytest.approx(golden["total"], rel=1e-6)
    assert diagnostics["loss.clean"].item() == pytest.approx(golden["loss_original"], rel=1e-6)
    torch.testing.assert_close(q.grad, torch.from_numpy(golden["grad_q"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mixed.grad, torch.from_numpy(golden["grad_mixed_q"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.queue.T, torch.from_numpy(golden["queue_after_enqueue"]), rtol=1e-5, atol=1e-6)
    assert method.pointer.item() == golden["queue_ptr_after"].item()


def test_the_key_encoder_moves_before_it_encodes_as_in_the_released_code() -> None:
    golden = {key: torch.from_numpy(value) for key, value in load_golden("mixmask_moco_key_ema_before_key_forward").items()}
    settings = config.MoCo(dim=4, queue=6, temperature=golden["T"].item(), momentum=golden["momentum"].item(), symmetric=False, bn_splits=1)
    method = without_encoder(settings, golden["queue_before"])
    method.encoder, method.key_encoder = nn.Linear(5, 4), nn.Linear(5, 4)
    method.encoder.load_state_dict({"weight": golden["linear_weight_q"], "bias": golden["linear_bias"]})
    method.key_encoder.load_state_dict({"weight": golden["linear_weight_k_before"], "bias": golden["linear_bias"]})

    method.before_step()
    loss, _ = method.loss(TwoViews(golden["im_q"], golden["im_k"], None), (), torch.Generator())

    torch.testing.assert_close(method.key_encoder.weight, golden["linear_weight_k_after"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.queue.T, golden["queue_after"], rtol=1e-5, atol=1e-6)
    labels = torch.zeros(3, dtype=torch.int64)
    torch.testing.assert_close(loss, functional.cross_entropy(golden["logits_over_T_original"], labels), rtol=1e-5, atol=1e-6)


def test_the_first_head_is_linear_and_the_second_has_one_relu() -> None:
    linear, mlp = (MoCo(config.MoCo(head=head, queue=8, dim=6), SMALL).head for head in ("linear", "mlp"))

    shapes = [
        [tuple(layer.weight.shape) if isinstance(layer, nn.Linear) else type(layer) for layer in head.children()] for head in (linear, mlp)
    ]

    assert shapes == [[(6, 32)], [(32, 32), nn.ReLU, (6, 32)]]


def test_keys_come_from_plain_views_in_the_order_of_the_released_code() -> None:
    queue = functional.normalize(torch.randn(4, 16, dtype=torch.float64), dim=0)
    method = without_encoder(config.MoCo(dim=4, queue=16, symmetric=True, bn_splits=1), queue)
    a, b, mixed = torch.randn(3, 3, 4, dtype=torch.float64)

    method.loss(TwoViews(a, b, None), (reversed_mixture(mixed, 0.5),), torch.Generator())

    torch.testing.assert_close(method.queue[:6], functional.normalize(torch.cat([a, b]), dim=1))
    torch.testing.assert_close(method.queue[6:], queue.T[6:])


def test_the_queue_forgets_its_oldest_keys_first() -> None:
    method = without_encoder(config.MoCo(dim=4, queue=8, symmetric=False, bn_splits=1), torch.eye(4, 8, dtype=torch.float64))
    batches = torch.randn(3, 4, 4, dtype=torch.float64)

    for batch in batches:
        method.loss(TwoViews(batch, batch, None), (), torch.Generator())

    torch.testing.assert_close(method.queue, functional.normalize(torch.cat([batches[2], batches[1]]), dim=1))


def test_more_keys_than_the_queue_holds_are_refused_with_the_way_out() -> None:
    method = without_encoder(config.MoCo(dim=4, queue=4, symmetric=False, bn_splits=1), torch.eye(4))
    images = torch.randn(6, 4)

    with pytest.raises(ValueError, match=r"queue of 4 keys cannot take the 6 keys .* Raise method.queue"):
        method.loss(TwoViews(images, images, None), (), torch.Generator())


def test_shuffling_gives_keys_other_batch_norm_groups_but_not_another_order() -> None:
    torch.manual_seed(0)
    shuffled = MoCo(config.MoCo(dim=6, queue=32, symmetric=False, bn_splits=4), SMALL).double()
    plain = MoCo(config.MoCo(dim=6, queue=32, symmetric=False, bn_splits=4, shuffle_bn=False), SMALL).double()
    plain.load_state_dict(shuffled.state_dict())
    images = torch.randn(BATCH, 3, SIZE, SIZE, dtype=torch.float64)
    for method in (shuffled, plain):
        method.loss(TwoViews(images, images, None), (), torch.Generator().manual_seed(0))
    trained = (shuffled.queue[:BATCH] - plain.queue[:BATCH]).norm(dim=1)

    for method in (shuffled, plain):
        method.key_encoder.load_state_dict(shuffled.encoder.state_dict())
        method.eval().loss(TwoViews(images, images, None), (), torch.Generator().manual_seed(0))
    evaluated = (shuffled.queue[BATCH : 2 * BATCH], plain.queue[BATCH : 2 * BATCH])

    assert trained.min() > 1e-6
    torch.testing.assert_close(*evaluated)
