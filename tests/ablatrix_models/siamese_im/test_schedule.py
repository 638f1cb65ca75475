"""Momentum, learning rate and layer decay against the released schedules."""

from __future__ import annotations

import pytest

from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.optimize import Schedule
from ablatrix_models.schedules import learning_rate_factor
from ablatrix_models.siamese_im.schedule import layer_rates, learning_rate, target_momentum
from ablatrix_models.siamese_im.vit import Encoder
from golden import load_golden


@pytest.mark.parametrize("epochs", [400, 1600])
def test_momentum_equals_the_released_formula(epochs: int) -> None:
    golden = load_golden("sim_schedules_and_layer_decay")
    at = golden[f"ema_momentum_cosine_from0.995_{epochs}ep__fractional_epoch"]

    momenta = [target_momentum(0.995, epoch / epochs) for epoch in at]

    assert momenta == pytest.approx(golden[f"ema_momentum_cosine_from0.995_{epochs}ep__momentum"].tolist(), abs=1e-12)


def test_a_constant_momentum_stays() -> None:
    assert [target_momentum(0.99, progress, constant=True) for progress in (0.0, 0.5, 1.0)] == [0.99] * 3


@pytest.mark.parametrize("run", ["pretrain1600", "pretrain400", "linprobe90", "finetune100"])
def test_learning_rate_equals_the_released_one(run: str) -> None:
    golden = load_golden("sim_schedules_and_layer_decay")
    peak, warmup, epochs, minimum = golden[f"{run}__base_lr_warmup_total_min"].tolist()

    rates = [learning_rate(peak, epoch, int(epochs), int(warmup), minimum) for epoch in golden[f"{run}__fractional_epoch"].tolist()]

    assert rates == pytest.approx(golden[f"{run}__lr"].tolist(), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("run", "epochs"), [("pretrain1600", 1600), ("pretrain400", 400)])
def test_the_training_loop_s_schedule_is_the_released_one(run: str, epochs: int) -> None:
    golden = load_golden("sim_schedules_and_layer_decay")
    schedule = Schedule(epochs=epochs, warmup_epochs=40, warmup_from="zero", shape="cosine", per="step")
    peak, steps_per_epoch = float(golden[f"{run}__base_lr_warmup_total_min"][0]), 1000
    steps = [round(epoch * steps_per_epoch) for epoch in golden[f"{run}__fractional_epoch"].tolist()]
    assert [step / steps_per_epoch for step in steps] == pytest.approx(golden[f"{run}__fractional_epoch"].tolist())

    rates = [peak * learning_rate_factor(schedule, step, steps_per_epoch) for step in steps]

    assert rates == pytest.approx(golden[f"{run}__lr"].tolist(), rel=1e-9, abs=1e-15)


def test_layer_decay_equals_the_released_scales() -> None:
    golden = load_golden("sim_schedules_and_layer_decay")
    released = dict(zip(golden["finetune_layer_decay0.65__param_name"], golden["finetune_layer_decay0.65__lr_scale"], strict=True))
    ours = [name.replace("patch_embed.proj", "patch_embedding") for name in released]

    rates = layer_rates(ours, 12, 0.65)

    assert list(rates.values()) == pytest.approx(list(released.values()), rel=1e-12)


def test_layer_decay_knows_every_parameter_of_the_encoder() -> None:
    encoder = Encoder(ViT(patch=4, width=8, depth=2, heads=2), image_size=8)

    rates = layer_rates((name for name, _ in encoder.named_parameters()), 2, 0.5)

    assert set(rates.values()) == {0.125, 0.25, 0.5}
    assert {name for name, rate in rates.items() if rate == 0.125} == {"cls_token", "patch_embedding.weight", "patch_embedding.bias"}
