"""Finetuning: the share of labels, the copy, the two rates, and that test labels choose nothing."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from ablatrix_models.batchnorm import SplitBatchNorm
from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate import finetune
from ablatrix_models.evaluate.finetune import finetune_top1
from ablatrix_models.recipe.evaluate import Finetune

CONFIG = Finetune(kind="sgd", epochs=4, batch_size=32, lr=0.05, classifier_lr=0.5, milestones=(3,))


def trained_parts(config, method, train, test, data, monkeypatch, seed: int = 0) -> tuple[nn.Sequential, nn.Linear]:
    """The finetuned encoder and classifier, caught on their way to the test images."""
    caught: list[nn.Sequential] = []
    real = finetune.extract

    def extract(encode, *args, **options):
        caught.append(encode)
        return real(encode, *args, **options)

    monkeypatch.setattr(finetune, "extract", extract)
    finetune_top1(config, method, train, test, data, seed=seed, device="cpu")
    encoder, classifier = caught[-1]
    assert isinstance(encoder, nn.Sequential)
    assert isinstance(classifier, nn.Linear)
    return encoder, classifier


def test_finetuning_learns_and_beats_a_frozen_start(method, train, test, data) -> None:
    still = dataclasses.replace(CONFIG, lr=0.0, classifier_lr=0.0)

    before, after = (finetune_top1(c, method, train, test, data, seed=0, device="cpu") for c in (still, CONFIG))

    assert after > 60
    assert after > before + 15


def test_the_score_is_a_function_of_the_seed_and_not_of_the_global_generator(method, train, test, data) -> None:
    few = dataclasses.replace(CONFIG, epochs=1)
    scores = []

    for seed, noise in ((0, 1), (0, 2), (1, 1), (2, 1), (3, 1)):
        torch.manual_seed(noise)
        scores.append(finetune_top1(few, method, train, test, data, seed=seed, device="cpu"))

    assert scores[0] == scores[1]
    assert len(set(scores)) > 1


def test_the_seed_orders_the_images_and_not_only_the_dropout(method, train, test, data) -> None:
    method.encoder[7] = nn.Identity()
    few = dataclasses.replace(CONFIG, epochs=1)

    scores = {finetune_top1(few, method, train, test, data, seed=seed, device="cpu") for seed in range(4)}

    assert len(scores) > 1


def test_a_frozen_encoder_is_trained_all_the_same(method, train, test, data, monkeypatch) -> None:
    method.encoder.requires_grad_(False)

    encoder, _ = trained_parts(dataclasses.replace(CONFIG, epochs=1), method, train, test, data, monkeypatch)

    assert not torch.equal(encoder.get_parameter("0.weight"), method.encoder[0].weight)


def test_the_method_and_the_global_generator_are_left_as_found(method, train, test, data) -> None:
    before, modes = copy.deepcopy(method.state_dict()), [part.training for part in method.modules()]
    method.encoder.requires_grad_(False)
    state = torch.get_rng_state()

    finetune_top1(CONFIG, method, train, test, data, seed=0, device="cpu")

    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert [part.training for part in method.modules()] == modes
    assert not any(weight.requires_grad for weight in method.encoder.parameters())
    assert all(weight.grad is None for weight in method.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_permuted_test_labels_change_only_the_count(method, train, test, data) -> None:
    cyclic = [dataclasses.replace(test, labels=(test.labels + shift) % 3) for shift in range(3)]

    scores = [finetune_top1(CONFIG, method, train, relabelled, data, seed=0, device="cpu") for relabelled in cyclic]

    assert sum(scores) == pytest.approx(100)
    assert len(set(scores)) == 3


@pytest.mark.parametrize(("share", "images"), [(1.0, 150), (0.2, 30), (0.0001, 3)])
def test_the_share_of_labels_is_stratified_and_the_same_for_every_seed(share, images, method, train, test, data, monkeypatch) -> None:
    caught: list[ImageSet] = []
    real = finetune._train

    def train_on(config, method, labelled, *rest):
        caught.append(labelled)
        return real(config, method, labelled, *rest)

    monkeypatch.setattr(finetune, "_train", train_on)
    config = dataclasses.replace(CONFIG, labels=share, epochs=1)

    for seed in (0, 1):
        finetune_top1(config, method, train, test, data, seed=seed, device="cpu")

    assert len(caught[0]) == pytest.approx(images, abs=2)
    assert set(caught[0].labels.tolist()) == {0, 1, 2}
    assert torch.equal(caught[0].images, caught[1].images)


@pytest.mark.parametrize(("still", "moves"), [("lr", "classifier_lr"), ("classifier_lr", "lr")])
def test_encoder_and_classifier_have_their_own_rates(still, moves, method, train, test, data, monkeypatch) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, **{still: 0.0})
    start = {name: value.clone() for name, value in method.encoder.named_parameters()}

    encoder, classifier = trained_parts(config, method, train, test, data, monkeypatch)

    encoder_moved = any(not torch.equal(value, start[name]) for name, value in encoder.named_parameters())
    assert encoder_moved == (moves == "lr")
    assert (classifier.bias.abs().max().item() > 0) == (moves == "classifier_lr")


def test_both_rates_fall_to_a_tenth_at_each_milestone(method, train, test, data, monkeypatch) -> None:
    rates: list[list[float]] = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            rates.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    config = dataclasses.replace(CONFIG, epochs=4, batch_size=150, lr=0.02, classifier_lr=0.5, milestones=(1, 3))
    finetune_top1(config, method, train, test, data, seed=0, device="cpu")

    assert rates == [pytest.approx(pair) for pair in ([0.02, 0.5], [0.002, 0.05], [0.002, 0.05], [0.0002, 0.005])]


def test_batch_statistics_of_the_copy_move_with_the_labelled_images(method, train, test, data, monkeypatch) -> None:
    before = method.encoder[1].running_mean.clone()

    encoder, _ = trained_parts(CONFIG, method, train, test, data, monkeypatch)

    assert not torch.equal(encoder.get_buffer("1.running_mean"), before)


def test_statistics_of_the_copy_are_not_split_so_any_batch_will_do(method, train, test, data, monkeypatch) -> None:
    method.encoder[1] = SplitBatchNorm(8, splits=4)
    odd = dataclasses.replace(CONFIG, epochs=1, batch_size=51)

    encoder, _ = trained_parts(odd, method, train.subset(slice(0, 101)), test, data, monkeypatch)

    assert encoder[1].splits == 1
    assert method.encoder[1].splits == 4


def test_a_protocol_that_is_off_cannot_be_measured(method, train, test, data) -> None:
    with pytest.raises(ValueError, match="'off', so there is nothing to measure"):
        finetune_top1(Finetune(), method, train, test, data, seed=0, device="cpu")
