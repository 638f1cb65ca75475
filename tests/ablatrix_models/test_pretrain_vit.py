"""SiameseIM, MAE and MoCo v3 through the training loop: what reaches them, their schedules, and exact continuation."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from ablatrix_models.augment import TwoViews
from ablatrix_models.data.load import load
from ablatrix_models.methods.contract import Method
from ablatrix_models.methods.siameseim import SiameseIM
from ablatrix_models.pretrain import Pretraining, train_and_evaluate
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.overlay import overlay
from ablatrix_models.session import MemorySession, TrialStopped

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "method": {"name": "siameseim", "dim": 16, "heads": 2, "projector_depth": 1, "decoder_depth": 1, "mask": {"min_block": 2}},
    "backbone": {"name": "vit-tiny", "patch": 2, "width": 8, "depth": 1, "heads": 2},
    "data": {"name": "digits", "image_size": 8, "train_images": 64, "test_images": 32},
    "augment": {"flip_first": True},
    "augment_b": {"flip_first": True, "jitter_p": 0.0, "grey_p": 0.0},
    "optimizer": {"name": "adamw", "lr": 1e-2, "weight_decay": 0.05, "clip_norm": 1.0},
    "schedule": {"epochs": 3, "batch_size": 16, "per": "step", "warmup_epochs": 1, "warmup_from": "zero"},
    "evaluate": {"knn": {"features": "backbone", "k": 1}},
}
MAE = {"name": "mae", "dim": 16, "heads": 2, "depth": 1}
MOCO_V3 = {"name": "mocov3", "hidden": 8, "dim": 6, "momentum": 0.9}


class Stopping(MemorySession):
    """Keeps its checkpoint as a file would, and asks to stop at the `stop_at`-th step."""

    def __init__(self, stop_at: int = 0) -> None:
        super().__init__()
        self.left, self.file = stop_at, b""

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left == 0

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        self.file = file.getvalue()

    def load_checkpoint(self) -> dict[str, Any] | None:
        return torch.load(io.BytesIO(self.file), weights_only=True) if self.file else None


def recipe_of(**changes: Any) -> Recipe:
    return Recipe.read(overlay(TINY, {key.replace("__", "."): value for key, value in changes.items()}))


def pretraining(recipe: Recipe, session: MemorySession | None = None) -> Pretraining:
    return Pretraining(recipe, 0, load(recipe.data, "train"), session or MemorySession(), CPU)


def losses(session: MemorySession) -> list[float]:
    return [values["train.loss"] for _, _, values in session.reports if "train.loss" in values]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule__accumulate": 2, "compute__precision": "bf16"},
        {"method": MAE, "compute__precision": "fp16"},
        {"method__views": "same", "method__target": "pixel", "method__loss": "l2"},
        {"method": MOCO_V3, "backbone__pool": "cls", "backbone__final_norm": True},
    ],
    ids=["fp32", "accumulated-bf16", "mae-fp16", "same-view-pixels", "moco-v3"],
)
def test_a_run_stopped_at_any_step_ends_bit_identical(changes: dict[str, Any]) -> None:
    recipe = recipe_of(**changes)
    whole = MemorySession()
    expected = pretraining(recipe, whole).run().state_dict()

    session = Stopping(stop_at=7)
    with pytest.raises(TrialStopped):
        pretraining(recipe, session).run()
    resumed = pretraining(recipe, session).run().state_dict()

    assert losses(session) == losses(whole)
    for key, value in expected.items():
        assert torch.equal(value, resumed[key]), key


@pytest.mark.parametrize("changes", [{}, {"method": MAE}], ids=["siameseim", "mae"])
def test_a_whole_trial_learns_its_own_task_and_reports_the_recipe_s_metrics(changes: dict[str, Any]) -> None:
    recipe = recipe_of(schedule__epochs=8, **changes)
    session = MemorySession()

    metrics = train_and_evaluate(recipe, 0, load(recipe.data, "train"), load(recipe.data, "test"), session, CPU)

    assert set(metrics) == {"knn.top1"}
    assert losses(session)[-1] < losses(session)[0]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[TwoViews]:
    """The views that reach SiameseIM's loss."""
    kept: list[TwoViews] = []
    loss = SiameseIM.loss

    def spy(self: SiameseIM, views: TwoViews, *rest: Any) -> tuple[Tensor, dict[str, Tensor]]:
        kept.append(views)
        return loss(self, views, *rest)

    monkeypatch.setattr(SiameseIM, "loss", spy)
    return kept


def test_two_crops_reach_the_loss_with_their_geometry(seen: list[TwoViews]) -> None:
    training = pretraining(recipe_of())

    training._train_step(torch.arange(16))

    (views,) = seen
    assert views.geometry is not None
    assert 0 < views.geometry.flipped.sum() < 16
    assert not torch.equal(views.a, views.b)


def test_a_row_of_the_same_view_has_one_crop_and_one_draw_of_colours_for_input_and_target(seen: list[TwoViews]) -> None:
    training = pretraining(recipe_of(method__views="same"))

    training._train_step(torch.arange(16))

    assert seen[0].b is seen[0].a


def test_an_accumulated_step_sees_its_parts_and_moves_the_target_once(seen: list[TwoViews], monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    move = SiameseIM.before_step
    monkeypatch.setattr(SiameseIM, "before_step", lambda self: (moved.append(len(seen)), move(self))[1])
    training = pretraining(recipe_of(schedule__accumulate=4))

    for _ in range(2):
        training._train_step(torch.arange(16))

    assert [len(views.a) for views in seen] == [4] * 8
    assert moved == [0, 4]
    assert training.step == 2


def test_the_last_step_s_momentum_belongs_to_its_place_in_the_run() -> None:
    training = pretraining(recipe_of())
    momenta = []

    for indices in training._batches(0):
        assert isinstance(training.method, SiameseIM)
        momenta.append(training.method.momentum)
        training._train_step(indices)

    assert momenta[0] == pytest.approx(0.995)
    assert momenta == sorted(momenta)
    assert momenta[3] == pytest.approx(1 - 0.005 * (1 + torch.tensor(torch.pi * 3 / 12).cos().item()) / 2)


def test_vectors_do_not_decay_and_the_warm_up_starts_at_zero() -> None:
    training = pretraining(recipe_of())
    before = {name: parameter.detach().clone() for name, parameter in training.method.named_parameters()}

    training._train_step(torch.arange(16))

    decayed, plain = training.descent.optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert {parameter.ndim for parameter in plain["params"]} == {1}
    assert all(torch.equal(parameter, before[name]) for name, parameter in training.method.named_parameters() if "target" not in name)


def test_each_epoch_tells_how_far_the_target_is_from_collapse() -> None:
    session = MemorySession()
    pretraining(recipe_of(), session).run()

    found = [(values["train.embedding_std"], values["train.embedding_rank"]) for _, _, values in session.reports]

    assert len(found) == 3
    assert all(0 < std < 1.5 and 1 <= rank <= 16 for std, rank in found)


@pytest.mark.parametrize("changes", [{}, {"method": MAE}, {"schedule__accumulate": 2, "compute__precision": "bf16"}])
def test_recomputed_activations_change_no_bit(changes: dict[str, Any]) -> None:
    kept, recomputed = MemorySession(), MemorySession()

    expected = pretraining(recipe_of(schedule__epochs=2, **changes), kept).run().state_dict()
    training = pretraining(recipe_of(schedule__epochs=2, compute__recompute=True, **changes), recomputed)
    found = training.run().state_dict()

    assert losses(recomputed) == losses(kept)
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key


def test_recomputing_holds_fewer_activations() -> None:
    def held(recompute: bool) -> int:
        training = pretraining(recipe_of(compute__recompute=recompute))
        sizes: list[int] = []

        def note(saved: Tensor) -> Tensor:
            sizes.append(saved.numel())
            return saved

        training.method.train()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            training._loss(torch.arange(16), last=True)
        return sum(sizes)

    assert held(True) < 0.5 * held(False)


def test_recomputing_is_no_part_of_the_identity() -> None:
    assert recipe_of(compute__recompute=True).identity() == recipe_of().identity()


def test_every_method_of_the_unions_is_a_method() -> None:
    assert all(isinstance(pretraining(recipe_of(**changes)).method, Method) for changes in ({}, {"method": MAE}))
