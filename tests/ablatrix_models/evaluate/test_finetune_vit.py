"""Finetuning of a ViT: the released groups, the copy, the schedule, and that test labels choose nothing."""

from __future__ import annotations

import copy
import dataclasses
import random

import numpy as np
import pytest
import torch
from timm.layers.drop import DropPath

from ablatrix_models.evaluate import finetune_vit as module
from ablatrix_models.evaluate.finetune import finetune_top1
from ablatrix_models.evaluate.finetune_vit import FinetunedViT, finetune_vit
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.evaluate import Finetune
from ablatrix_models.recipe.fields import build
from ablatrix_models.siamese_im.token_norm import token_norm
from ablatrix_models.siamese_im.vit import Encoder
from golden import load_golden

CONFIG = Finetune(kind="vit", epochs=3, batch_size=64, lr=0.003, weight_decay=0.05, warmup_epochs=1)
PLAIN = dataclasses.replace(CONFIG, drop_path=0.0, mixup=0.0, cutmix=0.0, smoothing=0.0, rand_augment=0, erasing=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def finetuned(config, vit, train, data, precision="fp32") -> FinetunedViT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        return finetune_vit(config, vit.encoder, train, data, generator(), "cpu", precision)


def test_rates_and_decay_of_each_parameter_are_the_released_ones() -> None:
    golden = load_golden("sim_schedules_and_layer_decay")
    names, rates, decays = (golden[f"finetune_layer_decay0.65__{key}"].tolist() for key in ("param_name", "lr_scale", "weight_decay"))
    model = FinetunedViT(Encoder(ViT(patch=4, width=8, depth=12, heads=2), 8), 3, 0.1, generator(), "cpu")
    ours = {id(parameter): name for name, parameter in model.named_parameters()}

    groups = model.parameter_groups(0.001, 0.65, 0.05)

    found = {ours[id(p)]: (group["lr"] / 0.001, group["weight_decay"]) for group in groups for p in group["params"]}
    renamed = {"cls_token": "encoder.cls_token", "fc_norm.weight": "norm.weight"}
    for name, rate, decay in zip(names, rates, decays, strict=True):
        here = renamed.get(name, name if name.startswith("head") else f"encoder.{name.replace('patch_embed.proj', 'patch_embedding')}")
        assert found[here] == (pytest.approx(rate, rel=1e-9), decay)
    assert set(found) == set(ours.values())


def test_stochastic_depth_rises_linearly_as_released() -> None:
    golden = load_golden("sim_schedules_and_layer_decay")["drop_path_rates_depth12_rate0.1"].tolist()
    model = FinetunedViT(Encoder(ViT(patch=4, width=8, depth=12, heads=2), 8), 3, 0.1, generator(), "cpu")

    rates = [(block.drop_path1.drop_prob, block.drop_path2.drop_prob) for block in model.encoder.blocks]

    assert [pair[0] for pair in rates] == pytest.approx(golden, abs=1e-7)
    assert all(first == second for first, second in rates)


def test_the_classifier_reads_the_normed_mean_patch_token_and_starts_almost_at_zero() -> None:
    encoder = Encoder(ViT(patch=4, width=32, depth=1, heads=2, final_norm=True), 8)
    images = torch.randn(5, 3, 8, 8, generator=generator())

    model = FinetunedViT(encoder, 100, 0.0, generator(), "cpu").eval()

    encoder.norm = torch.nn.Identity()  # MAE's final norm gives way to the new one
    pooled = encoder.tokens(images)[:, 1:].mean(dim=1)
    torch.testing.assert_close(model(images), token_norm("layer")(32)(pooled) @ model.head.weight.T, rtol=1e-4, atol=1e-8)
    assert model.head.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert model.head.bias.abs().max() == 0


def test_it_learns_and_beats_the_frozen_start(vit, train, test, data) -> None:
    longer = dataclasses.replace(PLAIN, epochs=12, batch_size=25, lr=0.01, layer_decay=0.8)
    still = dataclasses.replace(PLAIN, lr=0.0, min_lr=0.0)

    before, after = (finetune_top1(c, vit, train, test, data, seed=0, device="cpu") for c in (still, longer))

    assert after > 60
    assert after > before + 15


def test_every_part_is_trained_even_what_pretraining_froze(vit, train, data) -> None:
    vit.encoder.requires_grad_(False)

    model = finetuned(CONFIG, vit, train, data)

    start = dict(vit.encoder.named_parameters())
    assert all(not torch.equal(value, start[name]) for name, value in model.encoder.named_parameters())
    assert not any(weight.requires_grad for weight in vit.encoder.parameters())


def test_rates_warm_up_by_steps_and_fall_to_the_lowest_one(vit, train, data, monkeypatch) -> None:
    rates: list[float] = []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            rates.append(max(group["lr"] for group in self.param_groups))
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    finetuned(dataclasses.replace(PLAIN, batch_size=75, lr=0.004, min_lr=0.002), vit, train, data)

    # two steps an epoch: one epoch up, two down to the minimum, which only the end of the run would reach
    assert rates == pytest.approx([0.0, 0.002, 0.004, 0.003 + 0.001 * 2**-0.5, 0.003, 0.003 - 0.001 * 2**-0.5])


def test_a_batch_in_parts_takes_the_same_steps(vit, train, data, monkeypatch) -> None:
    # views are drawn part by part, so only images that look the same in every view can tell
    flat = dataclasses.replace(train, images=train.images[:, :, :1, :1].expand(-1, -1, 10, 10).contiguous())
    config = dataclasses.replace(PLAIN, batch_size=150)
    ends = []

    for size in (150, 40):
        monkeypatch.setattr(module, "_PART", size)
        ends.append(finetuned(config, vit, flat, data))

    for whole, parts in zip(*(end.parameters() for end in ends), strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=2e-4)


def test_the_score_is_a_function_of_the_seed_and_not_of_any_global_generator(vit, train, test, data) -> None:
    few = dataclasses.replace(CONFIG, epochs=1, warmup_epochs=0)
    scores = []

    for seed, noise in ((0, 1), (0, 2), (1, 1), (2, 1)):
        torch.manual_seed(noise)
        random.seed(noise)
        np.random.seed(noise)
        scores.append(finetune_top1(few, vit, train, test, data, seed=seed, device="cpu"))

    assert scores[0] == scores[1]
    assert len(set(scores)) > 1


def test_the_method_and_all_global_generators_are_left_as_found(vit, train, test, data) -> None:
    vit.train()
    before, modes = copy.deepcopy(vit.state_dict()), [part.training for part in vit.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    finetune_top1(CONFIG, vit, train, test, data, seed=0, device="cpu")

    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    assert [part.training for part in vit.modules()] == modes
    assert all(weight.grad is None for weight in vit.parameters())
    assert not any(isinstance(part, DropPath) for part in vit.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


def test_permuted_test_labels_change_only_the_count(vit, train, test, data) -> None:
    cyclic = [dataclasses.replace(test, labels=(test.labels + shift) % 3) for shift in range(3)]

    scores = [finetune_top1(CONFIG, vit, train, relabelled, data, seed=0, device="cpu") for relabelled in cyclic]

    assert sum(scores) == pytest.approx(100)
    assert len(set(scores)) == 3


def test_bf16_reaches_the_network_and_spares_its_weights(vit, train, data) -> None:
    model = finetuned(dataclasses.replace(CONFIG, epochs=2), vit, train, data, "bf16")

    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert not torch.equal(model.head.weight, finetuned(dataclasses.replace(CONFIG, epochs=2), vit, train, data).head.weight)


def test_an_encoder_without_blocks_is_refused(method, train, test, data) -> None:
    with pytest.raises(ValueError, match="kind is 'vit', but the encoder is a Sequential"):
        finetune_top1(CONFIG, method, train, test, data, seed=0, device="cpu")


def test_settings_that_contradict_each_other_are_refused() -> None:
    assert [p.key for p in build(Finetune, {"kind": "vit", "epochs": 5})[1]] == ["warmup_epochs"]
    assert [p.key for p in build(Finetune, {"kind": "vit", "lr": 1e-7})[1]] == ["min_lr"]
    assert build(Finetune, {"kind": "sgd", "epochs": 2, "lr": 1e-7})[1] == []
