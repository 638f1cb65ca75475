from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from ablatrix_models import augment, pretrain
from ablatrix_models.data.images import ImageSet
from ablatrix_models.data.load import load
from ablatrix_models.pretrain import Diverged, Pretraining, TooFewImages, initial_method, stream_generator, train_and_evaluate
from ablatrix_models.recipe import Recipe
from ablatrix_models.session import TrialStopped
from storing_session import StoringSession
from tiny_sweep import tiny_recipe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images(recipe: Recipe) -> tuple[ImageSet, ImageSet]:
    return load(recipe.data, "train"), load(recipe.data, "test")


def run(recipe: Recipe, seed: int = 0, session: StoringSession | None = None) -> tuple[dict[str, Tensor], StoringSession]:
    session = session or StoringSession()
    train, test = images(recipe)
    method = Pretraining(recipe, seed, train, session, CPU).run(test)
    return method.state_dict(), session


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


METHODS: dict[str, Any] = {
    "moco": {},
    "moco-shuffled": {"method": {"name": "moco", "dim": 8, "queue": 64, "symmetric": True, "bn_splits": 4}},
    "simclr": {"method": {"name": "simclr", "hidden": 8, "dim": 8}},
    "byol": {"method": {"name": "byol", "hidden": 8, "dim": 8}},
    "simsiam": {"method": {"name": "simsiam", "hidden": 8, "dim": 8, "predictor_hidden": 4}},
    "adam-both": {
        "optimizer": "adam",
        "mixing": {"kind": "both", "permutation": "random"},
        "mask": {"kind": "discrete", "grid": 4, "per": "image"},
    },
}


def recipe_of(name: str, **changes: Any) -> Recipe:
    return tiny_recipe(evaluate__every=1, schedule__epochs=2, schedule__batch_size=32, **METHODS[name], **changes)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_weights_and_reports_to_the_bit(name: str) -> None:
    first, first_session = run(recipe_of(name))
    second, second_session = run(recipe_of(name))

    assert same(first, second)
    assert first_session.values() == second_session.values()
    assert [(epoch, step) for epoch, step, _ in first_session.values()] == [(1, 2), (2, 4)]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_run_stopped_at_any_step_and_resumed_ends_as_if_undisturbed(name: str, step: int) -> None:
    undisturbed, reference = run(recipe_of(name))
    session = StoringSession(stop_at=step)
    with pytest.raises(TrialStopped):
        run(recipe_of(name), session=session)
    resumed, _ = run(recipe_of(name), session=session)

    assert same(resumed, undisturbed)
    assert session.values() == reference.values()


def test_a_run_stopped_at_every_step_still_ends_the_same() -> None:
    undisturbed, reference = run(recipe_of("moco"))
    session = StoringSession()
    for _ in range(4):
        session.asked, session.stop_at = 0, 2  # one step of work each time
        with pytest.raises(TrialStopped):
            run(recipe_of("moco"), session=session)
        if torch.load(io.BytesIO(session.file or b""), weights_only=True)["step"] == 3:
            break
    session.stop_at = None
    resumed, _ = run(recipe_of("moco"), session=session)

    assert same(resumed, undisturbed)
    assert session.values() == reference.values()


def test_a_run_killed_between_checkpoints_repeats_what_was_lost() -> None:
    undisturbed, reference = run(recipe_of("moco"))
    # As after a kill in the second epoch: the first epoch's checkpoint, and a report that came after it.
    session = StoringSession()
    killed = StoringSession(stop_at=3)
    with pytest.raises(TrialStopped):
        run(recipe_of("moco"), session=killed)
    session.file, session.kept = killed.file, 1
    session.reports = [*killed.reports, (2, 4, {"train.loss": 0.0})]
    resumed, _ = run(recipe_of("moco"), session=session)

    assert same(resumed, undisturbed)
    assert session.values() == reference.values()


def test_a_finished_run_that_is_run_again_only_loads() -> None:
    first, session = run(recipe_of("moco"))
    again, _ = run(recipe_of("moco"), session=session)

    assert same(first, again)
    assert len(session.reports) == 2


def test_another_seed_gives_other_weights_order_and_views() -> None:
    first, _ = run(recipe_of("moco"), seed=0)
    second, _ = run(recipe_of("moco"), seed=1)

    assert not same(first, second)
    assert not same(initial_method(recipe_of("moco"), 0).state_dict(), initial_method(recipe_of("moco"), 1).state_dict())


def test_streams_of_one_seed_are_independent_and_repeatable() -> None:
    def draw(*names: str | int) -> list[int]:
        return torch.randint(2**31, (4,), generator=stream_generator(*names)).tolist()  # type: ignore[arg-type]

    assert draw(0, "views") == draw(0, "views")
    assert len({tuple(draw(*names)) for names in ((0, "views"), (1, "views"), (0, "mixing"), (0, "order", 0), (0, "order", 1))}) == 5


@pytest.mark.parametrize("mixing", ["unmix", "both", "erase", "mixmask"])
def test_cells_of_one_seed_are_paired_whatever_is_mixed(monkeypatch: pytest.MonkeyPatch, mixing: str) -> None:
    seen: list[Tensor] = []
    views = augment.two_views

    def spy(images: Tensor, *args: Any) -> augment.TwoViews:
        both = views(images, *args)
        seen.extend((images.clone(), both.a.clone(), both.b.clone()))
        return both

    monkeypatch.setattr(pretrain.augment, "two_views", spy)
    clean, mixed = tiny_recipe(mixing="none", schedule__batch_size=32), tiny_recipe(mixing=mixing, schedule__batch_size=32)
    starts = [initial_method(recipe, 5).state_dict() for recipe in (clean, mixed)]
    first, _ = run(clean, seed=5)
    of_clean = list(seen)
    seen.clear()
    second, _ = run(mixed, seed=5)

    assert same(*starts)
    assert len(of_clean) == len(seen) == 12
    assert all(torch.equal(a, b) for a, b in zip(of_clean, seen, strict=True))
    assert not same(first, second)


def test_training_leaves_the_global_random_state_and_does_not_depend_on_it() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, _ = run(recipe_of("moco"))
    after = torch.random.get_rng_state()
    torch.manual_seed(2)
    second, _ = run(recipe_of("moco"))

    assert torch.equal(before, after)
    assert same(first, second)


def test_the_initial_weights_leave_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)

    initial_method(recipe_of("moco"), 3)

    assert seeded == []


def layouts(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> set[bool]:
    """Whether the views and the weights of a step are channels-last."""
    found: set[bool] = set()
    training = Pretraining(tiny_recipe(**changes), 0, images(tiny_recipe())[0], StoringSession(), CPU)
    loss = type(training.method).loss

    def spy(self: Any, views: augment.TwoViews, *rest: Any) -> Any:
        weights = [p for p in self.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
        found.update(t.is_contiguous(memory_format=torch.channels_last) for t in (views.a, views.b, *weights))
        return loss(self, views, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(type(training.method), "loss", spy)
        training.loss._loss = training.method.loss
        training._train_step(torch.arange(16))
    return found


def test_networks_too_narrow_for_channels_last_on_a_cpu_are_trained_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layouts(monkeypatch) == {True}
    assert layouts(monkeypatch, compute__channels_last=False) == {False}
    assert layouts(monkeypatch, backbone__width=0.0625) == {False}


def test_such_a_run_is_that_of_a_recipe_without_channels_last_to_the_bit() -> None:
    asked, plain = (run(recipe_of("moco", backbone__width=0.0625, compute__channels_last=value))[0] for value in (True, False))

    assert same(asked, plain)


def test_every_image_is_seen_once_an_epoch_in_another_order_each_time() -> None:
    recipe = tiny_recipe(schedule__batch_size=16)
    training = Pretraining(recipe, 0, images(recipe)[0], StoringSession(), CPU)
    epochs = []
    for epoch in range(2):
        training.step = epoch * training.steps_per_epoch
        epochs.append(torch.cat(list(training._batches(epoch))).tolist())

    assert [sorted(order) for order in epochs] == [list(range(64))] * 2
    assert epochs[0] != epochs[1]


def test_reports_tell_loss_rate_and_the_evaluation_that_was_asked_for() -> None:
    _, session = run(tiny_recipe(evaluate__every=1, schedule__epochs=3, schedule__per="epoch", optimizer__lr=0.1))
    first, _, last = (values for _, _, values in session.reports)

    assert first["train.lr"] == pytest.approx(0.1)
    assert 0 < first["train.loss"] < 20
    assert first["train.images_per_s"] > 0
    assert 0 <= first["knn.top1"] <= 100
    assert "knn.top1" not in last  # the final evaluation measures it


def test_checkpoints_come_at_their_pace_and_at_the_end() -> None:
    class Counting(StoringSession):
        steps: list[int]

        def save_checkpoint(self, state: dict[str, Any]) -> None:
            self.steps = [*getattr(self, "steps", []), state["step"]]
            super().save_checkpoint(state)

    session = Counting()
    run(tiny_recipe(schedule__epochs=5, schedule__batch_size=32, schedule__checkpoint_epochs=2), session=session)

    assert session.steps == [4, 8, 10]


def test_a_loss_that_is_no_number_ends_the_run_with_the_next_step() -> None:
    with pytest.raises(Diverged, match=r"the loss became .* in epoch \d+, by step \d+\. Lower optimizer\.lr"):
        run(tiny_recipe(optimizer__lr=1e30, schedule__epochs=20))


def test_too_few_images_for_a_batch_are_refused() -> None:
    recipe = tiny_recipe()
    with pytest.raises(TooFewImages, match=r"10 training images do not fill one batch of 16\. Lower schedule\.batch_size"):
        Pretraining(recipe, 0, images(recipe)[0].subset(range(10)), StoringSession(), CPU)


def test_zero_epochs_leave_the_network_as_it_was_drawn() -> None:
    recipe = tiny_recipe(schedule__epochs=0)
    weights, session = run(recipe)
    train, test = images(recipe)
    metrics = train_and_evaluate(recipe, 0, train, test, StoringSession(), CPU)

    assert same(weights, initial_method(recipe, 0).state_dict())
    assert session.reports == []
    assert set(metrics) == {"knn.top1"}


def test_the_final_metrics_are_those_that_the_recipe_names() -> None:
    recipe = tiny_recipe(evaluate__linear={"kind": "lbfgs", "epochs": 3, "weight_decay": 1e-3})
    train, test = images(recipe)
    metrics = train_and_evaluate(recipe, 0, train, test, StoringSession(), CPU)

    assert tuple(metrics) == recipe.evaluate.metrics()
    assert metrics == train_and_evaluate(recipe, 0, train, test, StoringSession(), CPU)
