"""Runs whose settings change on the way: what they may change, and that a parent's weights are a shortcut and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from ablatrix_models.data.load import load
from ablatrix_models.descent import Descent
from ablatrix_models.pretrain import train_and_evaluate
from ablatrix_models.recipe import Recipe, RecipeError
from ablatrix_models.recipe.optimize import Optimizer
from ablatrix_models.session import TrialStopped
from storing_session import StoringSession
from tiny_sweep import tiny_recipe

CPU = torch.device("cpu")
EVERY = {"schedule__epochs": 6, "evaluate__every": 1}
ADAM = {"optimizer__name": "adamw", "optimizer__lr": 0.003}
SIMSIAM = {"method": {"name": "simsiam", "hidden": 8, "dim": 8, "predictor_hidden": 4}}


def course(first: dict[str, Any], second: dict[str, Any], third: dict[str, Any], **common: Any) -> list[Recipe]:
    """Three legs of two epochs each: what is trained up to each one's end."""
    common = {**EVERY, **common}
    legs = [tiny_recipe(**{**common, "schedule__until": end, **changed}) for end, changed in ((2, first), (4, second), (0, third))]
    found = legs[:1]
    for leg in legs[1:]:
        found.append(leg.continued(found[-1]))
    return found


def trained(recipe: Recipe, session: StoringSession | None = None) -> tuple[dict[str, float], StoringSession]:
    session = session or StoringSession()
    metrics = train_and_evaluate(recipe, 0, load(recipe.data, "train"), load(recipe.data, "test"), session, CPU)
    return metrics, session


def heir_of(session: StoringSession) -> StoringSession:
    """A session that has what another saved last."""
    heir = StoringSession()
    heir.file, heir.kept, heir.reports = session.file, session.kept, session.reports[: session.kept]
    return heir


@pytest.mark.parametrize(
    ("changes", "common"),
    [
        (({"optimizer__lr": 0.06}, {"optimizer__lr": 0.12, "mask__grid": 4}, {"optimizer__lr": 0.03, "optimizer__weight_decay": 0.1}), {}),
        (({}, {"optimizer__weight_decay": 0.3}, {"mixing": "none"}), ADAM),
        (({}, {"optimizer__momentum": 0.5}, {"mixing__kind": "unmix"}), SIMSIAM),
        (({"method__temperature": 0.2}, {"method__temperature": 0.5, "augment__crop_scale": (0.5, 1.0)}, {"method__momentum": 0.9}), {}),
    ],
    ids=["sgd", "adamw", "simsiam", "method"],
)
def test_going_on_from_a_parents_weights_is_training_from_scratch_to_the_last_bit(changes: Any, common: dict[str, Any]) -> None:
    first, second, third = course(*changes, **common)
    _, one = trained(first)
    _, two = trained(second, heir_of(one))
    metrics, inherited = trained(third, heir_of(two))
    alone, scratch = trained(third)
    _, unchanged = trained(tiny_recipe(**{**EVERY, **common, **changes[0]}))

    assert metrics == alone
    assert inherited.values() == scratch.values()
    assert [line[0] for line in scratch.values()] == [1, 2, 3, 4, 5, 6, 6]
    ours, theirs = inherited.load_checkpoint(), scratch.load_checkpoint()
    assert ours is not None and theirs is not None  # noqa: PT018
    assert all(torch.equal(ours["method"][name], value) for name, value in theirs["method"].items())
    assert scratch.values()[5][2]["train.loss"] != unchanged.values()[5][2]["train.loss"]


def test_each_leg_is_trained_at_its_own_rate_of_the_one_schedule() -> None:
    *_, last = course({"optimizer__lr": 0.06}, {"optimizer__lr": 0.6}, {"optimizer__lr": 0.006})
    _, whole = trained(last)
    _, plain = trained(tiny_recipe(**EVERY, optimizer__lr=0.06))
    rates, usual = ([values["train.lr"] for *_, values in session.values()[:6]] for session in (whole, plain))

    assert rates == pytest.approx([rate * factor for rate, factor in zip(usual, (1, 1, 10, 10, 0.1, 0.1), strict=True)])


def test_a_run_that_stops_early_is_the_beginning_of_the_whole_one() -> None:
    metrics, early = trained(tiny_recipe(**EVERY, schedule__until=3))
    _, whole = trained(tiny_recipe(**EVERY))

    # At its end it has measured k-NN once, by its final evaluation.
    assert early.values()[:2] == whole.values()[:2]
    assert early.values()[2][2].items() <= whole.values()[2][2].items()
    assert (early.values()[3][0], metrics["knn.top1"]) == (3, whole.values()[2][2]["knn.top1"])
    assert len(early.values()) == 4


def test_a_course_that_is_stopped_goes_on_in_the_leg_in_which_it_was() -> None:
    *_, last = course({}, {"optimizer__lr": 0.12}, {"mask__grid": 4})
    undisturbed, whole = trained(last)
    broken = StoringSession(stop_at=11)  # a step of the second leg: epochs have 4
    with pytest.raises(TrialStopped):
        trained(last, broken)
    metrics, _ = trained(last, broken)

    assert metrics == undisturbed
    assert broken.values() == whole.values()


def test_a_restored_optimiser_keeps_its_own_settings() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    before, after = (
        Descent(Optimizer(name="sgd", weight_decay=decay, momentum=momentum), [{"params": [weight]}], CPU)
        for decay, momentum in ((0.1, 0.9), (0.2, 0.5))
    )
    before.step([weight.sum()], 1.0)
    after.load_state_dict(before.state_dict())
    group = after.optimizer.param_groups[0]

    assert (group["weight_decay"], group["momentum"]) == (0.2, 0.5)
    assert torch.equal(after.optimizer.state[weight]["momentum_buffer"], before.optimizer.state[weight]["momentum_buffer"])


def test_legs_and_parent_say_what_was_trained() -> None:
    first, second, third = course({"optimizer__lr": 0.1}, {"optimizer__lr": 0.2}, {"optimizer__lr": 0.3})

    assert (third.parent(), second.parent(), first.parent()) == (second, first, None)
    assert [(leg.schedule.end, leg.optimizer.lr) for leg in third.legs()] == [(2, 0.1), (4, 0.2), (6, 0.3)]
    assert [leg.course for leg in third.legs()] == [(), (), ()]
    assert (first.own_epochs, third.own_epochs) == (2, 2)
    assert Recipe.read(third.as_mapping()) == third


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimizer__name": "adam"}, "changes from sgd to adam in the course of training"),
        ({"method": {"name": "simclr"}}, "method.name: changes in the course of training, but the weights would not fit"),
        ({"method__dim": 16}, "method.dim: changes in the course of training, where of a framework only numbers with a fraction may"),
        ({"schedule__batch_size": 8}, "differs from its parent in more than a course may change"),
        ({"backbone__width": 0.25}, "differs from its parent in more than a course may change"),
        ({"schedule__until": 2}, "is 2, but this leg begins after epoch 0 and another follows until epoch 2"),
    ],
)
def test_what_a_course_cannot_change_is_told(changed: dict[str, Any], message: str) -> None:
    parent = tiny_recipe(**EVERY, schedule__until=2)
    with pytest.raises(RecipeError) as caught:
        tiny_recipe(**{**EVERY, **changed}).continued(parent)

    assert message in str(caught.value)


def test_a_leg_that_could_not_be_trained_alone_is_told_with_its_number() -> None:
    whole = tiny_recipe(**EVERY).continued(tiny_recipe(**EVERY, schedule__until=2)).as_mapping()
    whole["course"][0]["mask"]["grid"] = 99
    with pytest.raises(RecipeError, match=r"course\.0\.mask\.grid: is 99"):
        Recipe.read(whole)

    with pytest.raises(RecipeError, match=r"schedule\.until: is 9, but the schedule has 6 epochs"):
        tiny_recipe(**EVERY, schedule__until=9)
    assert dataclasses.replace(tiny_recipe(**EVERY).schedule, until=4).end == 4
