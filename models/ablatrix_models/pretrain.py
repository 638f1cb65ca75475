"""The training loop: steps, schedules, checkpoints, determinism. A run is a function of (recipe, seed, data, threads)."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ablatrix_models import augment
from ablatrix_models.backbones import bears_channels_last
from ablatrix_models.batchnorm import average_running_statistics
from ablatrix_models.collapse import embedding_metrics
from ablatrix_models.data.images import ImageSet
from ablatrix_models.data_parallel import SharedLoss, SharedSession
from ablatrix_models.descent import Descent
from ablatrix_models.distributed import mean_over_ranks, own_rows, rank, world_size
from ablatrix_models.evaluate import protocols
from ablatrix_models.methods import build_method
from ablatrix_models.methods.contract import Method
from ablatrix_models.mixing import sample_mixtures
from ablatrix_models.recipe import Recipe, RecipeError
from ablatrix_models.recipe.method import one_view
from ablatrix_models.recipe.workers import worker_problems
from ablatrix_models.schedules import learning_rate_factor
from ablatrix_models.session import Session, TrialStopped
from ablatrix_models.siamese_im.recompute import set_recompute

CHECK_STEPS = 50  # between looks at the loss
STREAMS = ("views", "mixing", "method")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Diverged(RuntimeError):
    """The loss is no finite number any more. Running again cannot help."""


class TooFewImages(ValueError):
    """The training set does not fill one batch."""


def stream_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for one purpose, independent of every other purpose and seed.

    Cells of one seed so share initial weights, data order and views, which makes them paired.
    """
    text = ":".join(map(str, (seed, *names)))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)


def initial_method(recipe: Recipe, seed: int) -> Method:
    """The untrained method of a seed; leaves the global random state as it found it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        return build_method(recipe)


def _placed(recipe: Recipe, seed: int, device: torch.device) -> tuple[Method, bool]:
    """The untrained method on its device, and whether it lies, and its images must lie, in channels-last memory."""
    method = initial_method(recipe, seed).to(device)
    # Where the layout that the recipe asks for would kill the process, the usual one is taken: slower, and the same but for rounding.
    channels_last = recipe.compute.channels_last and bears_channels_last(method, device)
    return (method.to(memory_format=torch.channels_last), True) if channels_last else (method, False)  # type: ignore[call-overload]


class Pretraining:
    """One run's state and its steps. `run` trains to the end, resuming from the session's checkpoint."""

    def __init__(self, recipe: Recipe, seed: int, train: ImageSet, session: Session, device: torch.device) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        self.session = session if world_size() == 1 else SharedSession(session)
        self.train = train
        if problems := list(worker_problems(recipe, world_size())):
            raise RecipeError(problems)
        self.steps_per_epoch = len(train) // recipe.schedule.batch_size
        if recipe.schedule.epochs and not self.steps_per_epoch:
            raise TooFewImages(
                f"{len(train)} training images do not fill one batch of {recipe.schedule.batch_size}. Lower schedule.batch_size."
            )
        self.method, self._channels_last = _placed(recipe, seed, device)
        scaled = recipe.compute.precision == "fp16"
        self.descent = Descent(recipe.optimizer, self.method.parameter_groups(), device, scaled=scaled)
        self.loss = SharedLoss(self.method)
        set_recompute(self.method, recipe.compute.recompute)
        if recipe.compute.compile:
            self.method.encoder.compile()
        self.streams = {name: stream_generator(seed, name) for name in STREAMS}
        self.step = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)

    def run(self, test: ImageSet | None = None) -> Method:
        """Train to the last epoch. With `test`, k-NN is measured every `evaluate.every` epochs."""
        self._restore()
        for epoch in range(self.step // max(1, self.steps_per_epoch), self.recipe.schedule.end):
            started, first = time.perf_counter(), self.step
            for indices in self._batches(epoch):
                if self.session.stop_requested():
                    self._save()
                    raise TrialStopped
                self._train_step(indices)
            self._end_epoch(epoch + 1, (self.step - first) / (time.perf_counter() - started), test)
        return self.method

    def _batches(self, epoch: int) -> Iterator[Tensor]:
        """The rest of this epoch's batches of indices; the order depends on seed and epoch alone."""
        size = self.recipe.schedule.batch_size
        order = torch.randperm(len(self.train), generator=stream_generator(self.seed, "order", epoch))
        for position in range(self.step - epoch * self.steps_per_epoch, self.steps_per_epoch):
            yield order[position * size : (position + 1) * size]

    def _train_step(self, indices: Tensor) -> None:
        recipe = self.recipe
        factor = learning_rate_factor(recipe.schedule, self.step, self.steps_per_epoch)
        self.method.train()
        self.method.before_step()
        parts = indices.split(recipe.schedule.part_size)
        losses = (self._loss(part, last=number == len(parts)) for number, part in enumerate(parts, 1))
        loss, _ = self.descent.step(losses, factor, parts=recipe.schedule.accumulate)
        self.step += 1
        # Kept on the device: reading it at every step would make a GPU wait.
        self.loss_sum += loss
        if self.step % CHECK_STEPS == 0 or self.step % self.steps_per_epoch == 0:
            self._check_finite()
        progress = self.step / (self.steps_per_epoch * recipe.schedule.epochs)
        self.method.after_step(progress, (self.step - 1) // self.steps_per_epoch, recipe.schedule.epochs)

    def _check_finite(self) -> None:
        loss_sum = mean_over_ranks(self.loss_sum).item()
        if not math.isfinite(loss_sum):
            epoch = 1 + (self.step - 1) // self.steps_per_epoch
            raise Diverged(f"the loss became {loss_sum} in epoch {epoch}, by step {self.step}. Lower optimizer.lr.")

    def _loss(self, indices: Tensor, *, last: bool) -> Tensor:
        """The loss of these images, of which a rank of several takes its rows; last: whether the optimiser's step comes next."""
        recipe, data = self.recipe, self.recipe.data
        images = self.train.images[own_rows(indices)].to(self.device)
        b_config = None if one_view(recipe.method) else recipe.augment_b or recipe.augment
        views = augment.two_views(images, recipe.augment, b_config, data.image_size, data.mean, data.std, self.streams["views"])
        if self._channels_last:
            views = views.channels_last()
        mixtures = sample_mixtures(views.a, recipe.mixing, recipe.mask, self.streams["mixing"])
        dtype = AUTOCAST.get(recipe.compute.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            return self.loss(views, mixtures, self.streams["method"], last=last)[0]

    def _end_epoch(self, epoch: int, steps_per_s: float, test: ImageSet | None) -> None:
        recipe = self.recipe
        values = {
            "train.loss": mean_over_ranks(self.loss_sum).item() / self.steps_per_epoch,
            "train.lr": recipe.optimizer.lr * learning_rate_factor(recipe.schedule, self.step - 1, self.steps_per_epoch),
            "train.images_per_s": steps_per_s * recipe.schedule.batch_size,
        }
        average_running_statistics(self.method)
        values |= embedding_metrics(self.method.embeddings, self.train, recipe.data, device=self.device, precision=recipe.compute.precision)
        last = epoch == recipe.schedule.end
        if test is not None and recipe.evaluate.every and epoch % recipe.evaluate.every == 0 and not last:
            # On every rank, though one reports: those that waited for it would wait at a collective that times out.
            values |= protocols.evaluate(recipe, self.method, self.train, test, seed=self.seed, device=self.device, only=("knn",))
        self.loss_sum.zero_()
        self.session.report(epoch, self.step, values)
        if last or epoch % recipe.schedule.checkpoint_epochs == 0:
            self._save()

    def _save(self) -> None:
        """Everything that the next step depends on, as tensors and plain numbers; equal on all ranks."""
        average_running_statistics(self.method)
        streams = {name: generator.get_state() for name, generator in self.streams.items()}
        state = {"step": self.step, "loss_sum": mean_over_ranks(self.loss_sum).clone(), "streams": streams}
        self.session.save_checkpoint(state | {"method": self.method.state_dict()} | self.descent.state_dict())

    def _restore(self) -> None:
        state: dict[str, Any] | None = self.session.load_checkpoint()
        if state is None:
            return
        self.method.load_state_dict(state["method"])
        self.descent.load_state_dict(state)
        for name, generator in self.streams.items():
            generator.set_state(state["streams"][name])
        self.step = state["step"]
        self.loss_sum.copy_(state["loss_sum"])


def train_and_evaluate(
    recipe: Recipe, seed: int, train: ImageSet, test: ImageSet, session: Session, device: torch.device
) -> dict[str, float]:
    """One whole trial: pretrain, leg by leg, then every protocol of the recipe. Returns the final metrics, in percent.

    With an initialised `torch.distributed` process group its ranks train together, and compute what one process would. A launcher
    makes the group (gloo on CPUs; NCCL on GPUs, each rank's own being `device` and torch's current one), and calls this on every
    rank with the same recipe, seed and data. Of the sessions, rank 0's alone is reported to, saved to and loaded from; any may ask
    to stop, and TrialStopped is raised on every rank. Rank 0 evaluates; the others return nothing, {}, once training ends. A rank
    that dies leaves the others waiting for it: the launcher then ends them. Raises RecipeError where the batch cannot be shared.
    """
    protocols.check(recipe.evaluate, train.labels)  # before hours of training, not after
    # Each leg of a course takes up the checkpoint that the one before it has left.
    *earlier, last = recipe.legs()
    for leg in earlier:
        Pretraining(leg, seed, train, session, device).run(test)
    pretraining = Pretraining(last, seed, train, session, device)
    method = pretraining.run(test)
    if world_size() > 1:
        if rank() != 0:
            return {}
        method = _of_one_process(pretraining)
    metrics = protocols.evaluate(recipe, method, train, test, seed=seed, device=device)
    session.report(recipe.schedule.end, pretraining.step, metrics)
    return metrics


def _of_one_process(pretraining: Pretraining) -> Method:
    """The trained method with its batch norms as they were: a protocol that trains it further does so on this rank alone."""
    method, _ = _placed(pretraining.recipe, pretraining.seed, pretraining.device)
    method.load_state_dict(pretraining.method.state_dict())
    return method
