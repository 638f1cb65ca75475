"""Logistic regression on CLS features: its optimum, its rows, its labels, and that test labels choose nothing."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from ablatrix_models.evaluate import logistic
from ablatrix_models.evaluate.logistic import NotConverged, fit_logistic, logistic_top1, unit_rows
from ablatrix_models.recipe.evaluate import Logistic

CONFIG = Logistic(kind="cls", labels=0.5)


def drawn(images: int = 60, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % 3
    features = torch.randn(images, width, generator=generator)
    features[torch.arange(images), labels] += 1
    return unit_rows(features), labels


def test_rows_are_centred_and_of_unit_length_whatever_their_scale_and_origin() -> None:
    features = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    rows = unit_rows(features)

    assert rows.sum(dim=1).abs().max() < 1e-12
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(unit_rows(features * 7 + 3), rows)
    assert unit_rows(torch.full((1, 6), 5.0)).abs().max() == 0


def test_it_ends_where_the_slope_vanishes() -> None:
    features, labels = drawn()

    weight = fit_logistic(features, labels, 3, 0.1)

    inputs = features.double()
    slope = sum(torch.outer(torch.softmax(weight @ x, dim=0) - functional.one_hot(y, 3), x) for x, y in zip(inputs, labels, strict=True))
    assert (slope / 60 + 0.1 / 60 * weight).abs().max() < 2e-5
    assert weight.abs().max() > 1


@pytest.mark.parametrize("penalty", [0.01, 0.1, 10.0])
def test_it_finds_the_optimum_of_scikit_learn_s_newton_solver(penalty: float) -> None:
    features, labels = drawn()
    theirs = LogisticRegression(C=1 / penalty, fit_intercept=False, solver="newton-cg", tol=1e-8, max_iter=1000)

    weight = fit_logistic(features, labels, 3, penalty)

    theirs.fit(features.double().numpy(), labels.numpy())
    torch.testing.assert_close(weight, torch.from_numpy(theirs.coef_), rtol=1e-3, atol=1e-3)


def test_seeing_every_image_twice_at_twice_the_penalty_changes_nothing() -> None:
    features, labels = drawn()

    once, twice = fit_logistic(features, labels, 3, 0.1), fit_logistic(features.repeat(2, 1), labels.repeat(2), 3, 0.2)

    torch.testing.assert_close(once, twice, rtol=1e-3, atol=1e-3)


def test_classes_without_a_label_win_next_to_nothing() -> None:
    features, labels = drawn()

    weight = fit_logistic(features, labels, 5, 0.1)

    assert ((features.double() @ weight.T).argmax(dim=1) > 2).double().mean() < 0.05


def test_a_solver_that_gave_up_is_no_score(monkeypatch) -> None:
    monkeypatch.setattr(logistic, "_ITERATIONS", 1)

    with pytest.raises(NotConverged, match=r"stopped at a slope of .* Raise evaluate\.logistic\.penalty \(0\.1\)"):
        fit_logistic(*drawn(), 3, 0.1)


def test_it_reads_the_raw_cls_output_of_unaugmented_images(vit, train, test, data, monkeypatch) -> None:
    seen: list[torch.Tensor] = []
    real = logistic.fit_logistic

    def fit(features, *rest):
        seen.append(features)
        return real(features, *rest)

    monkeypatch.setattr(logistic, "fit_logistic", fit)
    logistic_top1(dataclasses.replace(CONFIG, labels=1.0), vit, train, test, data, device="cpu")

    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (data.mean, data.std))
    tokens = vit.encoder.tokens((train.images / 255 - mean) / std)[:, 0].detach()
    torch.testing.assert_close(seen[0], unit_rows(tokens), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("share", "images"), [(1.0, 150), (0.2, 30), (0.01, 3)])
def test_the_share_of_labels_is_stratified(share, images, vit, train, test, data, monkeypatch) -> None:
    seen: list[torch.Tensor] = []
    real = logistic.fit_logistic

    def fit(features, labels, *rest):
        seen.append(labels)
        return real(features, labels, *rest)

    monkeypatch.setattr(logistic, "fit_logistic", fit)
    logistic_top1(dataclasses.replace(CONFIG, labels=share), vit, train, test, data, device="cpu")

    assert len(seen[0]) == pytest.approx(images, abs=2)
    assert set(seen[0].tolist()) == {0, 1, 2}


def test_permuted_test_labels_change_only_the_count(vit, train, test, data) -> None:
    cyclic = [dataclasses.replace(test, labels=(test.labels + shift) % 3) for shift in range(3)]

    scores = [logistic_top1(CONFIG, vit, train, relabelled, data, device="cpu") for relabelled in cyclic]

    assert sum(scores) == pytest.approx(100)
    assert len(set(scores)) == 3


def test_shuffled_training_labels_leave_nothing_but_chance(vit, train, test, data) -> None:
    shuffled = dataclasses.replace(train, labels=train.labels[torch.randperm(150, generator=torch.Generator().manual_seed(0))])

    score = logistic_top1(dataclasses.replace(CONFIG, labels=1.0), vit, shuffled, test, data, device="cpu")

    assert score < 55


def test_it_is_the_same_twice_and_leaves_method_and_global_generator_as_found(vit, train, test, data) -> None:
    vit.train()
    vit.encoder.blocks[0].eval()
    before, modes = copy.deepcopy(vit.state_dict()), [part.training for part in vit.modules()]
    scores = []

    for noise in (1, 2):
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        scores.append(logistic_top1(CONFIG, vit, train, test, data, device="cpu"))
        assert torch.equal(torch.get_rng_state(), state)

    assert scores[0] == scores[1]
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    assert [part.training for part in vit.modules()] == modes
    assert all(weight.grad is None for weight in vit.parameters())


def test_bf16_reaches_the_network(vit, train, test, data) -> None:
    seen: set[torch.dtype] = set()
    vit.encoder.patch_embedding.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))

    exact, rounded = (logistic_top1(CONFIG, vit, train, test, data, device="cpu", precision=p) for p in ("fp32", "bf16"))

    assert seen == {torch.float32, torch.bfloat16}
    assert rounded == pytest.approx(exact, abs=10)


def test_it_reads_real_digits_from_an_untrained_transformer_well_above_chance(digits) -> None:
    method, train, test, data = digits

    few, many = (logistic_top1(Logistic(kind="cls", labels=share), method, train, test, data, device="cpu") for share in (0.03, 1.0))

    assert few > 50  # chance is a third
    assert many > few


def test_what_it_cannot_measure_is_refused(method, vit, train, test, data) -> None:
    with pytest.raises(ValueError, match="'off', so there is nothing to measure"):
        logistic_top1(Logistic(), vit, train, test, data, device="cpu")
    with pytest.raises(ValueError, match="TinyMethod has no CLS features"):
        logistic_top1(CONFIG, method, train, test, data, device="cpu")
