"""The suite that every framework passes. A new framework adds its line to FRAMEWORKS, and nothing else."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablatrix_models.augment import RelativeGeometry, TwoViews
from ablatrix_models.augment.geometry import same_geometry
from ablatrix_models.evaluate.features import CLSEncoder
from ablatrix_models.methods import Method, build_method
from ablatrix_models.recipe import Recipe

BATCH, SIZE, EPOCHS = 8, 16, 5


@dataclass(frozen=True)
class Framework:
    """One line of the suite: a recipe's method section, its embedding width, and what holds of it.

    forwards: encoder passes (online, momentum) of a plain step, and of one with a mixture; of a plain one alone where mixtures are refused.
    permutable: no part depends on the order of the batch. target_side: the recipe's `mixing.target_side`.
    """

    method: dict[str, Any]
    dim: int
    forwards: tuple[tuple[int, int], ...]
    permutable: bool = True
    target_side: bool = False
    backbone: dict[str, Any] = field(default_factory=lambda: {"name": "resnet18", "width": 0.0625})
    features: int = 32

    @property
    def mixes(self) -> bool:
        """Whether it takes mixtures."""
        return len(self.forwards) > 1

    @property
    def one_view(self) -> bool:
        """Whether view b goes unused."""
        return self.method["name"] == "mae" or self.method.get("views") == "same"


MOCO = {"name": "moco", "queue": 32, "dim": 6, "momentum": 0.9, "bn_splits": 1}
SMALL = {"hidden": 8, "dim": 6}
VIT = {"name": "vit-tiny", "patch": 4, "width": 8, "depth": 1, "heads": 2}
SIM = {"name": "siameseim", "dim": 16, "heads": 2, "projector_depth": 1, "decoder_depth": 1, "mask": {"min_block": 2}}
PIXELS = {"target": "pixel", "loss": "l2"}
FRAMEWORKS = {
    "moco": Framework(MOCO | {"symmetric": False, "head": "mlp"}, 6, ((1, 1), (2, 1))),
    "moco-symmetric": Framework(MOCO, 6, ((2, 2), (3, 2))),
    "moco-split": Framework(MOCO | {"bn_splits": 4}, 6, ((2, 2), (3, 2)), permutable=False),
    "simclr": Framework({"name": "simclr"} | SMALL, 6, ((2, 0), (3, 0))),
    "byol": Framework({"name": "byol"} | SMALL, 6, ((2, 2), (3, 2))),
    "byol-both-sides": Framework({"name": "byol"} | SMALL, 6, ((2, 2), (3, 3)), target_side=True),
    "simsiam": Framework({"name": "simsiam", "predictor_hidden": 4} | SMALL, 6, ((2, 0), (3, 0))),
    "simsiam-both-sides": Framework({"name": "simsiam", "predictor_hidden": 4} | SMALL, 6, ((2, 0), (3, 0)), target_side=True),
    "siameseim": Framework(SIM, 16, ((1, 1),), permutable=False, backbone=VIT, features=8),
    "siameseim-global": Framework(SIM | {"loss": "global", "target_norm": "moco-like"}, 16, ((1, 1),), False, backbone=VIT, features=8),
    "siameseim-pixels": Framework(SIM | PIXELS | {"views": "same"}, 16, ((1, 0),), False, backbone=VIT, features=8),
    "mae": Framework({"name": "mae", "dim": 16, "heads": 2, "depth": 1}, 8, ((1, 0),), False, backbone=VIT, features=8),
    "mocov3": Framework({"name": "mocov3", "mask": None} | SMALL, 6, ((2, 2),), False, backbone=VIT, features=8),
    "mocov3-masked": Framework({"name": "mocov3", "symmetric": False} | SMALL, 6, ((1, 1),), False, backbone=VIT, features=8),
}
PERMUTABLE = {name: framework for name, framework in FRAMEWORKS.items() if framework.permutable}
MIXING = {name: framework for name, framework in FRAMEWORKS.items() if framework.mixes}
UNMIXED = {name: framework for name, framework in FRAMEWORKS.items() if not framework.mixes}
every_framework = pytest.mark.parametrize("framework", FRAMEWORKS.values(), ids=FRAMEWORKS)
every_permutable_framework = pytest.mark.parametrize("framework", PERMUTABLE.values(), ids=PERMUTABLE)
every_mixing_framework = pytest.mark.parametrize("framework", MIXING.values(), ids=MIXING)


@dataclass(frozen=True)
class Mix:
    """A mixture as `ablatrix_models.mixing` makes them."""

    images: Tensor
    own: Tensor
    other: Tensor | None
    restore: Tensor


def build(framework: Framework, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Method:
    recipe = Recipe.read(
        {
            "method": framework.method,
            "backbone": framework.backbone,
            "data": {"image_size": SIZE},
            "schedule": {"batch_size": BATCH},
            "mixing": {"target_side": framework.target_side},
        }
    )
    torch.manual_seed(seed)
    return build_method(recipe).to(dtype)


def views(*, seed: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return a, b


def pair(framework: Framework, a: Tensor, b: Tensor) -> TwoViews:
    """The views as they are drawn for the framework: one for both, or two of which b shows a quarter of a, every second one mirrored."""
    if framework.one_view:
        return TwoViews(a, a, same_geometry(len(a)))
    whole, half = torch.ones(len(a), dtype=torch.float64), torch.full((len(a),), 0.5, dtype=torch.float64)
    mirrored = torch.arange(len(a)) % 2 == 0
    return TwoViews(a, b, RelativeGeometry(half / 2, half / 2, half, half, mirrored, 0.75 * whole))


def mixtures_of(framework: Framework, a: Tensor, *, seed: int = 2) -> tuple[Mix, ...]:
    """One mixture, for frameworks that take any."""
    return (mixture_of(a, seed=seed),) if framework.mixes else ()


def mixture_of(a: Tensor, *, seed: int = 2) -> Mix:
    """A mixture with weights and masks of each image's own, and random partners."""
    generator = torch.Generator().manual_seed(seed)
    partners = torch.randperm(BATCH, generator=generator)
    mask = torch.rand(BATCH, 1, SIZE, SIZE, generator=generator) < 0.6
    own = mask.to(a.dtype).mean((1, 2, 3))
    restore = partners.argsort()
    return Mix(torch.where(mask, a, a[partners]), own, (1 - own)[restore], restore)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@torch.no_grad()
def loss_of(method: Method, a: Tensor, b: Tensor, *mixtures: Mix) -> Tensor:
    return copy.deepcopy(method).loss(TwoViews(a, b, None), mixtures, generator())[0]


def train(framework: Framework, method: Method, optimizer: torch.optim.Optimizer, order: torch.Generator, steps: range) -> list[float]:
    losses = []
    for step in steps:
        a, b = views(seed=10 + step, dtype=torch.float32)
        method.before_step()
        loss, _ = method.loss(pair(framework, a, b), mixtures_of(framework, a, seed=20 + step), order)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step / EPOCHS, step, EPOCHS)
        losses.append(loss.item())
    return losses


def sgd(method: Method) -> torch.optim.Optimizer:
    return torch.optim.SGD(method.parameter_groups(), lr=0.05, momentum=0.9)


def assert_same_state(actual: Method, expected: Method) -> None:
    for (key, value), wanted in zip(actual.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(value, wanted), key


@every_framework
def test_loss_is_a_finite_scalar_with_a_gradient_for_every_trainable_parameter(framework: Framework) -> None:
    method = build(framework)
    a, b = views()

    loss, diagnostics = method.loss(pair(framework, a, b), mixtures_of(framework, a), generator())
    loss.backward()

    assert loss.shape == ()
    assert torch.isfinite(loss)
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    assert all(value.shape == () and not value.requires_grad and torch.isfinite(value) for value in diagnostics.values())


@every_framework
def test_the_parameter_groups_hold_every_trainable_parameter_once(framework: Framework) -> None:
    method = build(framework)

    grouped = [id(parameter) for group in method.parameter_groups() for parameter in group["params"]]

    assert sorted(grouped) == sorted(id(parameter) for parameter in method.parameters() if parameter.requires_grad)


@every_framework
def test_training_is_a_function_of_the_seed(framework: Framework) -> None:
    first, second, other = (build(framework, seed=seed, dtype=torch.float32) for seed in (0, 0, 1))

    losses = [train(framework, method, sgd(method), generator(), range(2)) for method in (first, second, other)]

    assert losses[0] == losses[1] != losses[2]
    assert_same_state(first, second)


@every_framework
def test_a_method_restored_from_its_state_goes_on_bit_identically(framework: Framework) -> None:
    method, order = build(framework, dtype=torch.float32), generator()
    optimizer = sgd(method)
    train(framework, method, optimizer, order, range(1))
    state = copy.deepcopy((method.state_dict(), optimizer.state_dict(), order.get_state()))
    expected = train(framework, method, optimizer, order, range(1, 3))

    restored, restored_order = build(framework, seed=9, dtype=torch.float32), torch.Generator()
    restored.load_state_dict(state[0])
    restored_optimizer = sgd(restored)
    restored_optimizer.load_state_dict(state[1])
    restored_order.set_state(state[2])
    losses = train(framework, restored, restored_optimizer, restored_order, range(1, 3))

    assert losses == expected
    assert_same_state(restored, method)


@every_mixing_framework
def test_the_loss_is_the_clean_loss_plus_the_mixtures(framework: Framework) -> None:
    method = build(framework)
    a, b = views()
    one, two = mixture_of(a), mixture_of(a, seed=5)
    plain = loss_of(method, a, b)

    extra = [loss_of(method, a, b, mixture) - plain for mixture in (one, two)]
    both = loss_of(method, a, b, one, two)
    _, diagnostics = copy.deepcopy(method).loss(TwoViews(a, b, None), (one,), generator())

    torch.testing.assert_close(both, plain + extra[0] + extra[1])
    torch.testing.assert_close(diagnostics["loss.clean"], plain.detach())
    torch.testing.assert_close(diagnostics["loss.mixture"], extra[0].detach())


@every_mixing_framework
def test_a_mixture_without_weight_leaves_the_clean_loss(framework: Framework) -> None:
    method = build(framework)
    a, b = views()
    weightless = replace(mixture_of(a), own=torch.zeros(BATCH), other=torch.zeros(BATCH))

    loss = loss_of(method, a, b, weightless)

    assert torch.equal(loss, loss_of(method, a, b))


@every_mixing_framework
def test_each_row_counts_with_its_own_weight(framework: Framework) -> None:
    method = build(framework)
    a, b = views()
    first, second = torch.eye(BATCH, dtype=a.dtype)[[1, 4]]
    mixture = replace(mixture_of(a), other=0 * first)
    plain = loss_of(method, a, b)

    one, two = (loss_of(method, a, b, replace(mixture, own=row)) - plain for row in (first, second))
    third = loss_of(method, a, b, replace(mixture, own=0 * first, other=first)) - plain
    both = loss_of(method, a, b, replace(mixture, own=0.7 * first + 0.2 * second, other=0.4 * first)) - plain

    torch.testing.assert_close(both, 0.7 * one + 0.2 * two + 0.4 * third)
    assert not torch.isclose(one, two)
    assert not torch.isclose(one, third)


@every_mixing_framework
def test_switching_off_the_second_term_equals_giving_it_no_weight(framework: Framework) -> None:
    method = build(framework)
    a, b = views()
    mixture = mixture_of(a)

    without = loss_of(method, a, b, replace(mixture, other=None))

    assert torch.equal(without, loss_of(method, a, b, replace(mixture, other=torch.zeros(BATCH))))
    assert not torch.allclose(without, loss_of(method, a, b, mixture))


@every_permutable_framework
def test_the_second_term_is_the_first_of_the_switched_images(framework: Framework) -> None:
    method = build(framework)
    a, b = views()
    mixture = mixture_of(a)
    assert mixture.other is not None
    switched = Mix(mixture.images[mixture.restore], mixture.other, None, torch.arange(BATCH))
    plain = loss_of(method, a, b)

    second = loss_of(method, a, b, replace(mixture, own=torch.zeros(BATCH))) - plain

    torch.testing.assert_close(second, loss_of(method, a, b, switched) - plain)


@every_permutable_framework
def test_the_order_of_the_batch_does_not_matter(framework: Framework) -> None:
    method = build(framework)
    a, b = views()
    mixture = mixture_of(a)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(4))
    assert mixture.other is not None
    reordered = Mix(mixture.images[order], mixture.own[order], mixture.other[order], order.argsort()[mixture.restore[order]])

    loss = loss_of(method, a[order], b[order], reordered)

    torch.testing.assert_close(loss, loss_of(method, a, b, mixture))


@pytest.mark.parametrize(
    ("framework", "mixtures"),
    [pytest.param(f, n, id=f"{name}-{n}") for name, f in FRAMEWORKS.items() for n in range(len(f.forwards))],
)
def test_nothing_is_encoded_more_often_than_needed(framework: Framework, mixtures: int) -> None:
    method = build(framework)
    a, b = views()
    counts = {"online": 0, "momentum": 0}

    def count(name: str) -> Any:
        return lambda *_: counts.__setitem__(name, counts[name] + 1)

    momentum = getattr(method, "key_encoder", None) or getattr(method, "target_encoder", None) or nn.Identity()
    for encoder, name in ((method.encoder, "online"), (momentum, "momentum")):
        # A ViT is asked for its tokens; its last module runs once in each pass.
        getattr(encoder, "blocks", encoder).register_forward_hook(count(name))
    method.loss(pair(framework, a, b), (mixture_of(a),) * mixtures, generator())

    assert (counts["online"], counts["momentum"]) == framework.forwards[mixtures]


@every_framework
def test_features_and_projections_have_their_shapes_and_leave_no_trace(framework: Framework) -> None:
    method = build(framework)
    method.loss(pair(framework, *views()), (), generator())
    before = copy.deepcopy(method).eval()
    method.eval()

    with torch.no_grad():
        features, projection = method.features(views()[0][:3]), method.project(views()[0][:3])

    assert features.shape == (3, framework.features)
    assert projection.shape == (3, framework.dim)
    assert_same_state(method, before)


@every_framework
def test_under_bf16_autocast_loss_and_state_stay_in_32_bits(framework: Framework) -> None:
    method = build(framework, dtype=torch.float32)
    a, b = views(dtype=torch.float32)
    both, mixtures = pair(framework, a, b), mixtures_of(framework, a)
    full = copy.deepcopy(method).loss(both, mixtures, generator())[0].detach()

    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = method.loss(both, mixtures, generator())
    loss.backward()

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(full.item(), abs=0.3)
    dtypes = {value.dtype for key, value in method.state_dict().items() if key != "_extra_state"}  # which holds the progress
    assert dtypes <= {torch.float32, torch.int64}


@every_framework
def test_the_cls_token_is_to_be_had_where_there_is_one(framework: Framework) -> None:
    method = build(framework).eval()
    images = views()[0][:3]

    assert hasattr(method, "cls_features") == (framework.backbone is VIT)
    if isinstance(method, CLSEncoder):
        assert method.cls_features(images).shape == (3, framework.features)
        assert not torch.allclose(method.cls_features(images), method.features(images))


@pytest.mark.parametrize("framework", UNMIXED.values(), ids=UNMIXED)
def test_mixtures_are_refused_by_frameworks_that_know_none(framework: Framework) -> None:
    a, b = views()

    with pytest.raises(ValueError, match=r"takes no mixtures, but got 1\. Use mixing: none"):
        build(framework).loss(pair(framework, a, b), (mixture_of(a),), generator())
