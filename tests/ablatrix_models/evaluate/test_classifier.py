"""The shared parts of the trained protocols."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ablatrix_models.evaluate.classifier import fit, normal_classifier, top1, training_view, uniform_classifier
from ablatrix_models.recipe.data import Data


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mocos_classifier_starts_from_a_narrow_normal_without_bias() -> None:
    layer = normal_classifier(400, 50, generator=generator(), device="cpu")

    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert layer.weight.mean().item() == pytest.approx(0.0, abs=3e-4)
    assert layer.bias.abs().max() == 0


def test_the_other_classifier_starts_as_pytorch_starts_one() -> None:
    layer, theirs = uniform_classifier(400, 50, generator=generator(), device="cpu"), torch.nn.Linear(400, 50)

    for ours, native in ((layer.weight, theirs.weight), (layer.bias, theirs.bias)):
        assert ours.abs().max() <= 0.05
        assert ours.std().item() == pytest.approx(native.std().item(), rel=0.3 if ours.ndim == 1 else 0.02)


def test_the_starts_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()

    uniform_classifier(4, 3, generator=generator(), device="cpu")
    normal_classifier(4, 3, generator=generator(), device="cpu")

    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_view_is_a_random_crop_of_the_image_without_colour_change(data, train) -> None:
    plain = train.images[:64].clone()
    plain[:] = plain[:, :, :1, :1]

    views = training_view(plain, data, generator=generator(), device="cpu")
    other = training_view(train.images[:64], data, generator=generator(), device="cpu")

    flat = (plain[:, :, 0, 0] / 255 - torch.tensor(data.mean)) / torch.tensor(data.std)
    torch.testing.assert_close(views, flat[:, :, None, None].expand_as(views), rtol=1e-4, atol=1e-4)
    assert torch.equal(other, training_view(train.images[:64], data, generator=generator(), device="cpu"))
    assert not torch.equal(other, training_view(train.images[:64], data, generator=generator(1), device="cpu"))


def test_a_training_view_shows_between_a_twelfth_and_the_whole_of_the_image() -> None:
    ramp = torch.arange(64, dtype=torch.uint8)
    both = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64, dtype=torch.uint8)])
    unscaled = Data(image_size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    views = training_view(both.expand(500, 3, 64, 64), unscaled, generator=generator(), device="cpu")[:, :2].flatten(2)

    sides = (views.amax(dim=2) - views.amin(dim=2)) * 255 / 64 * 16 / 15  # from the outer pixels' centres to the edges
    area = sides.prod(dim=1)
    assert area.min().item() == pytest.approx(0.08, abs=0.02)
    assert area.max().item() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(("images", "batch_size", "sizes"), [(8, 4, {4}), (9, 4, {3}), (3, 256, {3}), (257, 256, {128, 129})])
def test_each_pass_sees_every_image_once_in_even_batches(images: int, batch_size: int, sizes: set[int]) -> None:
    seen: list[torch.Tensor] = []
    weight = torch.zeros(2, requires_grad=True)

    def logits(chosen: torch.Tensor) -> torch.Tensor:
        seen.append(chosen)
        return weight.expand(len(chosen), 2)

    sgd = torch.optim.SGD([weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(sgd, factor=1.0)
    labels = torch.zeros(images, dtype=torch.int64)
    fit(logits, labels, sgd, schedule, epochs=2, batch_size=batch_size, generator=generator())

    assert {len(batch) for batch in seen} == sizes
    order = torch.cat(seen).view(2, images)
    assert order.sort(dim=1).values.tolist() == [list(range(images))] * 2
    assert order[0].tolist() != order[1].tolist()


def test_the_descent_equals_a_literal_transcription_in_float64() -> None:
    features = torch.randn(12, 4, generator=generator(), dtype=torch.float64)
    labels = torch.arange(12) % 3
    start = torch.randn(3, 4, generator=generator(1), dtype=torch.float64)
    weight = start.clone().requires_grad_()
    sgd = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
    steps = torch.optim.lr_scheduler.MultiStepLR(sgd, milestones=[2], gamma=0.1)

    fit(lambda c: features[c] @ weight.T, labels, sgd, steps, epochs=3, batch_size=12, generator=generator())

    expected, velocity = start.clone(), torch.zeros_like(start)
    for rate in (0.5, 0.5, 0.05):
        slope = torch.zeros_like(start)
        for x, y in zip(features, labels, strict=True):
            slope += torch.outer(functional.softmax(expected @ x, dim=0) - functional.one_hot(y, 3), x) / 12
        velocity = 0.9 * velocity + slope
        expected = expected - rate * velocity
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-10, atol=1e-12)


def test_top1_counts_rows_and_gives_ties_to_the_lower_class() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 2.0, 1.0], [3.0, 0.0, 3.0]])

    assert top1(logits, torch.tensor([0, 0, 1, 2])) == 75.0
