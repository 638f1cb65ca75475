"""SiameseIM's linear probe: the released optimiser, the norms before the classifier, the schedule, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate import lars as module
from ablatrix_models.evaluate.features import extract
from ablatrix_models.evaluate.lars import fit_with_lars, lars, probe_head
from ablatrix_models.evaluate.linear import linear_top1
from ablatrix_models.recipe.evaluate import Linear
from golden import load_golden


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("decay", ["0.0", "0.01"])
def test_the_optimiser_takes_the_released_steps(decay: str) -> None:
    golden = {key: torch.as_tensor(value) for key, value in load_golden("sim_lars_optimizer").items()}
    layer = torch.nn.Linear(7, 5)
    layer.load_state_dict({"weight": golden[f"wd{decay}__w_init"], "bias": golden[f"wd{decay}__b_init"]})
    optimizer = lars(layer, lr=float(golden["lr"]), weight_decay=float(decay))

    for step in range(3):
        layer.weight.grad, layer.bias.grad = (golden[f"wd{decay}__step{step}__grad_{name}"].clone() for name in "wb")
        optimizer.step()

        torch.testing.assert_close(layer.weight.data, golden[f"wd{decay}__step{step}__w_after"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer.bias.data, golden[f"wd{decay}__step{step}__b_after"], rtol=1e-5, atol=1e-6)


def test_scaling_all_gradients_of_a_matrix_changes_nothing_but_those_of_a_vector_do() -> None:
    ends = []
    for scale in (1.0, 100.0):
        layer = torch.nn.Linear(4, 3)
        torch.nn.init.constant_(layer.weight, 0.5)
        torch.nn.init.constant_(layer.bias, 0.0)
        layer.weight.grad, layer.bias.grad = torch.randn(3, 4, generator=generator()) * scale, torch.full((3,), scale)
        lars(layer, lr=1.0).step()
        ends.append(layer)

    torch.testing.assert_close(ends[0].weight, ends[1].weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ends[1].bias, 100 * ends[0].bias)


def test_features_pass_a_layer_norm_and_a_batch_norm_without_parameters() -> None:
    head = probe_head(400, 50, generator=generator(), device="cpu")
    features = torch.randn(64, 400, generator=generator(1), dtype=torch.float64) * 3 + 2

    logits = head.double()(features)

    rows = (features - features.mean(1, keepdim=True)) / (features.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    normed = (rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(logits, normed @ head[2].weight.T)
    assert [name for name, _ in head.named_parameters()] == ["2.weight", "2.bias"]
    assert head[2].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert head[2].bias.abs().max() == 0


def test_the_probe_equals_a_literal_transcription_where_views_cannot_differ(method, test, data) -> None:
    colours = torch.randint(256, (60, 3, 1, 1), generator=generator(3), dtype=torch.uint8).expand(60, 3, 10, 10).contiguous()
    flat = ImageSet(colours, colours[:, :, 0, 0].argmax(dim=1), test.classes)
    config = Linear(kind="lars", epochs=4, batch_size=60, lr=5.0, weight_decay=0.1, warmup_epochs=2)
    features = extract(method.features, flat, data, device="cpu").double()

    head = fit_with_lars(config, method, flat, data, generator(5), "cpu", "fp32")

    rows = (features - features.mean(1, keepdim=True)) / (features.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    inputs = (rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-6).sqrt()
    weight = torch.nn.init.trunc_normal_(torch.empty(3, 6), std=0.01, generator=generator(5)).double()
    bias, pushed, shifted = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 6, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for rate in (0.0, 2.5, 5.0, 2.5):  # a warm-up over two of four one-step epochs, then a cosine
        error = torch.softmax(inputs @ weight.T + bias, dim=1) - functional.one_hot(flat.labels, 3)
        slope = error.T @ inputs / 60 + 0.1 * weight
        pushed = 0.9 * pushed + 0.001 * weight.norm() / slope.norm() * slope
        shifted = 0.9 * shifted + error.mean(0)
        weight, bias = weight - rate * pushed, bias - rate * shifted
    torch.testing.assert_close(head[2].weight.double(), weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(head[2].bias.double(), bias, rtol=1e-4, atol=1e-5)


def test_large_batches_are_encoded_piece_by_piece(vit, train, data, monkeypatch) -> None:
    sizes: list[int] = []
    vit.encoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(module, "_CHUNK", 64)

    fit_with_lars(Linear(kind="lars", epochs=2, batch_size=16384, lr=1.0, warmup_epochs=1), vit, train, data, generator(), "cpu", "fp32")

    assert sizes == [1, *[64, 64, 22] * 2]


def test_the_head_is_scored_by_its_running_statistics(vit, train, data) -> None:
    head = fit_with_lars(
        Linear(kind="lars", epochs=2, batch_size=50, lr=1.0, warmup_epochs=1), vit, train, data, generator(), "cpu", "fp32"
    )

    assert not any(part.training for part in head.modules())
    assert head[1].num_batches_tracked == 6


def test_bf16_reaches_the_network_and_spares_the_head(vit, train, test, data) -> None:
    seen: set[torch.dtype] = set()
    vit.encoder.patch_embedding.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    config = Linear(kind="lars", epochs=2, batch_size=50, lr=1.0, warmup_epochs=1)

    score = linear_top1(config, vit, train, test, data, seed=0, device="cpu", precision="bf16")

    assert seen == {torch.bfloat16}
    assert 0 <= score <= 100


def test_it_reads_real_digits_from_an_untrained_transformer_well_above_chance(digits) -> None:
    method, train, test, data = digits

    score = linear_top1(
        Linear(kind="lars", epochs=20, batch_size=32, lr=6.4, warmup_epochs=1), method, train, test, data, seed=0, device="cpu"
    )

    assert score > 65  # chance is a third
