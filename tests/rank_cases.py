"""Computations that must give on n ranks what they give in one process. Each takes its own rows of the same global batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablatrix_models.augment import RelativeGeometry, TwoViews
from ablatrix_models.batchnorm import SplitBatchNorm, average_running_statistics, spread_over_ranks
from ablatrix_models.data.images import ImageSet
from ablatrix_models.data.load import load
from ablatrix_models.distributed import any_rank, from_first, gather_rows, mean_over_ranks, own_rows, rank, world_size
from ablatrix_models.methods import Method, build_method
from ablatrix_models.mixing import sample_mixtures
from ablatrix_models.pretrain import Pretraining, train_and_evaluate
from ablatrix_models.recipe import Recipe
from ablatrix_models.session import MemorySession, TrialStopped
from ablatrix_models.siamese_im.unigrad import batch_norm_unit, feature_terms
from tiny_sweep import tiny_recipe

Results = Mapping[str, Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def linear(width_in: int, width: int) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width_in, width).double()


def averaged(loss: Tensor, network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The loss, and every gradient, as the mean over ranks."""
    loss.backward()
    yield "loss", mean_over_ranks(loss.detach())
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            yield f"gradient of {name}", mean_over_ranks(parameter.grad)


def gathering() -> Results:
    """A loss over all pairs of rows of the global batch."""
    layer = linear(5, 3)
    rows = gather_rows(layer(own_rows(random(8, 5))).sin())
    images = gather_rows(own_rows(random(4, 3, 2, 2)).contiguous(memory_format=torch.channels_last))
    channels_last = torch.tensor(images.is_contiguous(memory_format=torch.channels_last))
    return {
        "rows": rows.detach(),
        "images": images,
        "channels last": channels_last,
        **dict(averaged((rows @ rows.T).square().sum(), layer)),
    }


def normalised_by(norm: nn.Module, images: Tensor) -> Results:
    """Two steps of a network with batch norm in its middle, then evaluation."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    spread_over_ranks(network)
    found: dict[str, Tensor] = {}
    for step in range(2):
        network.zero_grad()
        output = network(own_rows(images))
        found |= {f"{name} {step}": value for name, value in averaged(output.square().mean(), network)}
        found[f"output {step}"] = gather_rows(output).detach()
    average_running_statistics(network)
    found |= {name: value for name, value in network.state_dict().items() if "running" in name}
    with torch.no_grad():
        return found | {"evaluated": network.eval()(images)}


def batch_norm() -> Results:
    return normalised_by(nn.BatchNorm2d(4), 3 + random(8, 3, 6, 6))


def batch_norm_channels_last() -> Results:
    return normalised_by(nn.BatchNorm2d(4), (3 + random(8, 3, 6, 6)).contiguous(memory_format=torch.channels_last))


def split_batch_norm(splits: int) -> Callable[[], Results]:
    return lambda: normalised_by(SplitBatchNorm(4, splits), 3 + random(8, 3, 6, 6))


def batch_norm_without_affine() -> Results:
    layer = nn.Sequential(linear(6, 4), nn.BatchNorm1d(4, affine=False).double())
    spread_over_ranks(layer)
    loss = (layer(own_rows(5 + random(8, 6))) * own_rows(random(8, 4, seed=2))).square().mean()
    return dict(averaged(loss, layer))


def unigrad(norm: str, *, pooled: bool = False) -> Callable[[], Results]:
    def case() -> Results:
        layer = linear(6, 6)
        prediction, target = layer(own_rows(random(6, 5, 6))), own_rows(random(6, 5, 6, seed=1))
        terms = feature_terms(prediction, target, norm=norm, negative_weight=0.7, pooled=pooled)  # type: ignore[arg-type]
        return dict(averaged(terms[0] + terms[1], layer))

    return case


def normed_units() -> Results:
    return {"units": gather_rows(batch_norm_unit(own_rows(4 + random(8, 3))))}


def agreement() -> Results:
    """Flags and values that the ranks agree on; the same in one process, whose rank is 0."""
    last = rank() != 0 or not torch.distributed.is_initialized()
    return {
        "one says so": torch.tensor(any_rank(last)),
        "none says so": torch.tensor(any_rank(False)),
        "of the first": from_first({"step": torch.tensor(7 + rank())})["step"],
    }


def framework(method: dict[str, Any], mixing: str | None = None, *, target_side: bool = False) -> Callable[[], Results]:
    """Two steps of a framework on 8 images in float64, each with the optimiser's step: losses, gradients and the state after."""

    def case() -> Results:
        recipe = Recipe.read(
            {
                "method": method,
                "backbone": NARROW if mixing else SMALL_VIT,
                "schedule": {"batch_size": 8},
                "data": {"image_size": 16},
                "mixing": {"kind": mixing or "none", "permutation": "random", "target_side": target_side},
                "mask": {"kind": "discrete", "grid": 4, "per": "image"},
            }
        )
        torch.manual_seed(0)
        learner = build_method(recipe).double()
        spread_over_ranks(learner)
        streams = [torch.Generator().manual_seed(seed) for seed in range(2)]
        found: dict[str, Tensor] = {}
        for step in range(2):
            views = TwoViews(*(own_rows(random(8, 3, 16, 16, seed=10 * step + view)) for view in range(2)), geometry())
            learner.zero_grad()
            learner.before_step()
            loss, _ = learner.loss(views, sample_mixtures(views.a, recipe.mixing, recipe.mask, streams[0]), streams[1])
            found |= {f"{name} {step}": value for name, value in averaged(loss, learner)}
            descend(learner)
            learner.after_step((step + 1) / 4, step, 4)
        average_running_statistics(learner)
        return found | {name: value for name, value in learner.state_dict().items() if not name.endswith("num_batches_tracked")}

    return case


@torch.no_grad()
def descend(learner: Method) -> None:
    for parameter in learner.parameters():
        if parameter.grad is not None:
            parameter -= 0.1 * mean_over_ranks(parameter.grad)


def geometry() -> RelativeGeometry:
    """Where view b of this rank's images lies."""
    numbers = torch.rand(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    flipped = torch.arange(8) % 3 == 1
    fields = (numbers[0], numbers[1], 0.5 + numbers[2], 0.5 + numbers[3], flipped, 1 + numbers[4])
    return RelativeGeometry(*(own_rows(field) for field in fields))


class StopsAtTheLastRank(MemorySession):
    """Is asked to stop before the third step, and only on the last rank."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def stop_requested(self) -> bool:
        self.asked += 1
        return self.asked == 3 and rank() == world_size() - 1


def pretraining(recipe: Recipe, train: ImageSet, session: MemorySession, dtype: torch.dtype) -> Pretraining:
    started = Pretraining(recipe, 0, train, session, torch.device("cpu"))
    started.method.to(dtype)  # its tables of positions are float32 by themselves
    return started


def whole_run(dtype: torch.dtype = torch.float64, **changes: Any) -> Callable[[], Results]:
    """A run that is stopped once and resumed: the final state, the checkpoint's, and every report but the wall clock's."""

    def case() -> Results:
        recipe = tiny_recipe(schedule__batch_size=32, **changes)
        train, test = load(recipe.data, "train"), load(recipe.data, "test")
        session = StopsAtTheLastRank()
        torch.set_default_dtype(dtype)
        try:
            with pytest.raises(TrialStopped):
                pretraining(recipe, train, session, dtype).run(test)
            trained = pretraining(recipe, train, session, dtype).run(test)
        finally:
            torch.set_default_dtype(torch.float32)
        found = {f"number of reports on rank {rank()}": torch.tensor(len(session.reports))}
        for epoch, _, values in from_first(session.reports):
            values = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items() if key != "train.images_per_s"}
            found |= {f"{key}, epoch {epoch}": value for key, value in values.items()}
        saved = {f"saved {name}": value for name, value in from_first(session.state)["method"].items()}
        return {name: value for name, value in {**found, **trained.state_dict(), **saved}.items() if "num_batches" not in name}

    return case


def stopped_and_resumed() -> Results:
    """A trial that the last rank is asked to stop, run again to its end; its evaluation trains a network too.

    It learns nothing, because rounding would grow through batch norm over few pixels; what resuming does to weights `whole_run` tells.
    """
    finetune = {"kind": "sgd", "epochs": 1, "batch_size": 16}
    recipe = tiny_recipe(schedule__batch_size=32, mixing="unmix", evaluate__finetune=finetune, optimizer__lr=0.0)
    train, test = load(recipe.data, "train"), load(recipe.data, "test")
    session, stops = StopsAtTheLastRank(), 0
    while True:
        try:
            metrics = train_and_evaluate(recipe, 0, train, test, session, torch.device("cpu"))
            break
        except TrialStopped:
            stops += 1
    saved = from_first(session.state)
    return {
        "stops": torch.tensor(stops),
        f"metrics on rank {rank()}": torch.tensor(len(metrics)),
        f"checkpoints on rank {rank()}": torch.tensor(int(session.state is not None)),
        **{name: torch.tensor(value) for name, value in from_first(metrics).items()},
        **{name: value for name, value in saved["method"].items() if "num_batches" not in name},
    }


NARROW = {"name": "resnet18", "width": 0.0625}
SMALL_VIT = {"name": "vit-tiny", "patch": 4, "width": 8, "depth": 1, "heads": 2}
FINE_VIT = SMALL_VIT | {"patch": 2}
MOCO = {"name": "moco", "queue": 32, "dim": 6, "momentum": 0.9}
HEADS = {"hidden": 8, "dim": 6}
MOCO_V3 = {"name": "mocov3", "momentum": 0.9, **HEADS}
TOKENS = {"dim": 16, "heads": 2}
SIAMESE_IM = {"name": "siameseim", "projector_depth": 1, "decoder_depth": 1, "mask": {"min_block": 2}, **TOKENS}
MAE = {"name": "mae", "depth": 1, **TOKENS}

CASES: dict[str, Callable[[], Results]] = {
    "gathering": gathering,
    "batch norm": batch_norm,
    "batch norm, channels last": batch_norm_channels_last,
    "batch norm without affine": batch_norm_without_affine,
    "split batch norm, two groups a rank": split_batch_norm(4),
    "split batch norm, one group a rank": split_batch_norm(2),
    "dense UniGrad": unigrad("mae-like"),
    "dense UniGrad of normed features": unigrad("moco-like"),
    "global UniGrad": unigrad("moco-like", pooled=True),
    "MoCo-like norm": normed_units,
    "agreement": agreement,
    "MoCo, batch norm over all ranks": framework(MOCO | {"bn_splits": 1}, "both"),
    "MoCo, shuffled between two groups a rank": framework(MOCO | {"bn_splits": 4}, "both"),
    "MoCo, shuffled between ranks": framework(MOCO | {"bn_splits": 2, "symmetric": False}, "mixmask"),
    "MoCo, erased": framework(MOCO | {"bn_splits": 1}, "erase"),
    "SimCLR": framework({"name": "simclr"} | HEADS, "both"),
    "BYOL": framework({"name": "byol"} | HEADS, "mixmask"),
    "BYOL, both sides": framework({"name": "byol"} | HEADS, "mixmask", target_side=True),
    "SimSiam": framework({"name": "simsiam", "predictor_hidden": 4} | HEADS, "unmix"),
    "SimSiam, both sides": framework({"name": "simsiam", "predictor_hidden": 4} | HEADS, "mixmask", target_side=True),
    "MoCo v3": framework(MOCO_V3 | {"mask": None}),
    "MoCo v3 with mask": framework(MOCO_V3),
    "MoCo v3 with mask and UniGrad": framework(MOCO_V3 | {"loss": "unigrad", "symmetric": False}),
    "SiameseIM": framework(SIAMESE_IM),
    "SiameseIM, MoCo-like": framework(SIAMESE_IM | {"target_norm": "moco-like", "loss": "global"}),
    "MAE": framework(MAE),
}

RUNS: dict[str, Callable[[], Results]] = {
    "MoCo with MixMask": whole_run(method__bn_splits=4),
    "MoCo with MixMask in two parts": whole_run(method__bn_splits=1, schedule__accumulate=2),
    "SiameseIM": whole_run(method=SIAMESE_IM, mixing="none", optimizer__name="adamw", optimizer__lr=1e-3, backbone=FINE_VIT),
    "SiameseIM, activations computed again": whole_run(method=SIAMESE_IM, mixing="none", compute__recompute=True, backbone=FINE_VIT),
}
# With a tolerance of its own. MoCo is missing: batch norm over so few pixels blows rounding up, within four steps to percents.
RUNS_IN_FLOAT32: dict[str, Callable[[], Results]] = {
    "SiameseIM": whole_run(torch.float32, method=SIAMESE_IM, mixing="none", optimizer__lr=1e-2, evaluate__every=1, backbone=FINE_VIT),
}
TRIALS: dict[str, Callable[[], Results]] = {"MoCo, stopped": stopped_and_resumed}
