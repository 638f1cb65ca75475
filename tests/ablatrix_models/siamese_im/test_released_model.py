"""The proof: three optimiser steps of the released model, replayed from its own weights, inputs and masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ablatrix_models.augment import RelativeGeometry, TwoViews
from ablatrix_models.descent import Descent
from ablatrix_models.methods.siameseim import SiameseIM
from ablatrix_models.recipe import siameseim as config
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.optimize import Optimizer
from ablatrix_models.recipe.patch_mask import PatchMask
from ablatrix_models.siamese_im.positions import relative_embedding
from golden import load_golden

GOLDEN = "sim_tiny_model_three_steps_BN_proj_and_decoder"
SETTINGS = config.SiameseIM(dim=24, heads=4, mask=PatchMask(ratio=0.5625, min_block=1))
OPTIMIZER = Optimizer(name="adamw", lr=0.01, betas=(0.9, 0.95), weight_decay=0.05, clip_norm=1.0)
BACKBONE = ViT(patch=4, width=16, depth=2, heads=4)
STEPS = 3

# The start of a released parameter's name -> ours. The longest that fits is taken.
ONLINE = {
    "cls_token": "encoder.cls_token",
    "patch_embed.proj": "encoder.patch_embedding",
    "blocks": "encoder.blocks",
    "decoder_embed": "head.embed",
    "projector_decoder_blocks": "head.blocks",
    "mask_token": "decoder.mask_token",
    "predictor_decoder_blocks": "decoder.blocks",
    "decoder_pred": "decoder.head",
    "decoder_pos_mlp": "decoder.embed_positions",
}
TARGET = {f"mm_{name}": f"target_{ours}" for name, ours in ONLINE.items() if not ours.startswith("decoder.")}


def our_name(released: str) -> str:
    start = max((start for start in ONLINE | TARGET if released.startswith(start)), key=len)
    return (ONLINE | TARGET)[start] + released.removeprefix(start)


def released_model(golden: dict[str, np.ndarray]) -> SiameseIM:
    method = SiameseIM(SETTINGS, BACKBONE, image_size=16)
    names = [key.removeprefix("init_param__") for key in golden if key.startswith("init_param__") and "pos_embed" not in key]
    state = {our_name(name): torch.from_numpy(golden[f"init_param__{name}"]) for name in names}
    missing, unexpected = method.load_state_dict(state, strict=False)
    assert not unexpected
    assert {key.split(".")[-1] for key in missing} <= {"num_batches_tracked", "_extra_state"}
    return method.train()


def step_inputs(golden: dict[str, np.ndarray], step: int) -> tuple[TwoViews, Tensor]:
    arrays = {
        key.removeprefix(f"step{step}__"): torch.from_numpy(np.asarray(golden[key])) for key in golden if key.startswith(f"step{step}__")
    }
    geometry = RelativeGeometry(
        row_offset=arrays["delta_i"],
        column_offset=arrays["delta_j"],
        row_scale=arrays["delta_h"],
        column_scale=arrays["delta_w"],
        flipped=arrays["relative_flip"].bool(),
        mirrored_offset=arrays["flip_delta_j"],
    )
    return TwoViews(arrays["view_a_images_B3HW"], arrays["view_b_images_B3HW"], geometry), arrays["mask_1_is_removed_B44"].flatten(1).bool()


def descent_of(method: SiameseIM) -> Descent:
    return Descent(OPTIMIZER, method.parameter_groups(), torch.device("cpu"))


def train_step(method: SiameseIM, descent: Descent, golden: dict[str, np.ndarray], step: int) -> tuple[float, float]:
    """One step as pretraining takes it; the loss and the gradient norm before clipping."""
    momentum = float(golden[f"step{step}__ema_momentum"])
    method.settings = replace(SETTINGS, momentum=momentum, momentum_schedule="constant")
    method.before_step()
    losses = (method.masked_loss(*inputs)[0] for inputs in [step_inputs(golden, step)])
    loss, norm = descent.step(losses, factor=float(golden[f"step{step}__lr"]) / OPTIMIZER.lr)
    assert norm is not None
    return loss.item(), norm.item()


def keep(seen: dict[str, Tensor], name: str, activation: Any) -> None:
    seen[name] = activation.detach().clone()


def test_three_steps_meet_the_released_losses_gradient_norms_and_parameters() -> None:
    golden = load_golden(GOLDEN)
    method = released_model(golden)
    descent = descent_of(method)

    trace = [train_step(method, descent, golden, step) for step in range(STEPS)]

    assert [loss for loss, _ in trace] == pytest.approx([float(golden[f"step{step}__loss"]) for step in range(STEPS)], rel=1e-5)
    norms = [float(golden[f"step{step}__grad_norm_before_clip_to_1"]) for step in range(STEPS)]
    assert [norm for _, norm in trace] == pytest.approx(norms, rel=1e-4)
    state = method.state_dict()
    after = [key for key in golden if key.startswith("after_3_steps__")]
    assert len(after) == 14
    for key in after:
        ours = state[our_name(key.removeprefix("after_3_steps__"))]
        torch.testing.assert_close(ours, torch.from_numpy(golden[key]), rtol=0, atol=2e-3, msg=lambda text, key=key: f"{key}: {text}")


def test_the_first_step_meets_the_released_activations_and_gradients() -> None:
    golden = load_golden(GOLDEN)
    method = released_model(golden)
    seen: dict[str, Tensor] = {}
    method.head.register_forward_pre_hook(lambda _, inputs: keep(seen, "encoder_out_B_1plusVisible_16", inputs[0]))
    for module, name in (
        (method.head, "projector_out_B_1plusVisible_24"),
        (method.decoder.embed_positions, "pos_b_after_linear_B_16_24"),
        (method.decoder, "decoder_out_B_1plusVisibleplus16_24"),
        (method.target_head, "target_projector_out_incl_cls_B_17_24"),
    ):
        module.register_forward_hook(lambda _, inputs, output, name=name: keep(seen, name, output))

    train_step(method, descent_of(method), golden, 0)

    assert len(seen) == 5
    for name, activation in seen.items():
        released = torch.from_numpy(golden[f"step0__{name}"])[:, -activation.shape[1] :]  # the decoder's input tokens are dropped by ours
        torch.testing.assert_close(activation, released, rtol=1e-4, atol=1e-5)
    parameters = dict(method.named_parameters())
    keys = [key for key in golden if key.startswith("step0__clipped_grad__")]
    assert len(keys) == 8
    for key in keys:
        gradient = parameters[our_name(key.removeprefix("step0__clipped_grad__"))].grad
        torch.testing.assert_close(gradient, torch.from_numpy(golden[key]), rtol=1e-4, atol=1e-6)


def test_the_same_parameters_are_trained_and_decayed_as_in_the_release() -> None:
    golden = load_golden(GOLDEN)
    method = released_model(golden)
    names = {id(parameter): name for name, parameter in method.named_parameters()}

    decayed, undecayed = ({names[id(parameter)] for parameter in group["params"]} for group in method.parameter_groups())

    assert decayed == {our_name(name) for name in golden["weight_decayed_parameter_names"]}
    assert decayed | undecayed == {our_name(name) for name in golden["trainable_parameter_names"]}


def test_positions_enter_the_decoder_through_the_released_linear_layer() -> None:
    golden = load_golden(GOLDEN)
    method = released_model(golden)
    views, _ = step_inputs(golden, 0)
    assert views.geometry is not None

    embedded = method.decoder.embed_positions(relative_embedding(views.geometry, 4, 24))

    torch.testing.assert_close(embedded.detach(), torch.from_numpy(golden["step0__pos_b_after_linear_B_16_24"]), rtol=1e-4, atol=1e-5)
