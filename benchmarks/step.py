"""How fast is a MixMask-MoCo training step, against a plain one of the released structure?

Command: python benchmarks/step.py [--batch 64] [--rounds 5] [--threads 1]. ResNet-18 at 32 pixels, symmetric MoCo, a queue of 4,096,
batch norm in 8 groups, from two given views to the updated weights. About 4 CPU-minutes; below 5 rounds a glance without a verdict.
Bars, by the lower quartile of the paired ratios: 1.1x in fp32 (channels last), and 2.0x in bf16 where the CPU multiplies it.
Before any clock starts, loss and gradients must agree in float64. Exit code: 0 passed, 1 failed, 2 inconclusive.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ablatrix_models.augment import TwoViews
from ablatrix_models.masks import sample_cells
from ablatrix_models.methods import build_method
from ablatrix_models.methods.moco import MoCo
from ablatrix_models.mixing import sample_mixtures
from ablatrix_models.optimizers import build_optimizer
from ablatrix_models.recipe import Recipe
from paired import Rounds, paired_ratios

SIZE, TOLERANCE, LEAST_ROUNDS = 32, 1e-7, 5
BARS = {"fp32": 1.1, "bf16": 2.0}
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")


def recipe(width: float = 1.0, precision: str = "fp32") -> Recipe:
    """mixmask/moco-cifar, as far as a step depends on it."""
    return Recipe.read(
        {
            "method": {"name": "moco", "queue": 4096, "momentum": 0.99, "temperature": 0.1, "symmetric": True, "bn_splits": 8},
            "backbone": {"name": "resnet18", "width": width},
            "mask": {"kind": "discrete", "grid": 2},
            "mixing": "mixmask",
            "schedule": {"batch_size": 512},
            "compute": {"precision": precision},
        }
    )


class OurStep:
    """What the training loop does with two views."""

    def __init__(self, method: MoCo, settings: Recipe) -> None:
        self.method, self.recipe = copy.deepcopy(method), settings
        self.method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(settings.optimizer, self.method.parameter_groups())
        self.mixing, self.shuffling = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        self.method.before_step()
        mixtures = sample_mixtures(a, self.recipe.mixing, self.recipe.mask, self.mixing)
        a, b = (x.contiguous(memory_format=torch.channels_last) for x in (a, b))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.compute.precision == "bf16"):
            return self.method.loss(TwoViews(a, b, None), mixtures, self.shuffling)[0]

    def __call__(self, a: Tensor, b: Tensor) -> None:
        _update(self.optimizer, self.loss(a, b))


class PlainStep:
    """The same step as it is usually written, in the structure of MoCo's CIFAR demo with MixMask's algorithm 1.

    Every direction encodes the mixture again and joins positive and negatives in one array, against a copied queue; weights
    move one by one, images lie in torch's default layout. The encoders are ours, so the figure says nothing about convolutions.
    """

    def __init__(self, method: MoCo, settings: Recipe) -> None:
        self.networks, self.recipe, self.config = copy.deepcopy(method), settings, method.settings
        self.queue, self.pointer = method.queue.T.clone(), 0
        trained = [*self.networks.encoder.parameters(), *self.networks.head.parameters()]
        o = settings.optimizer
        self.optimizer = torch.optim.SGD(trained, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)
        self.mixing, self.shuffling = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        cells = sample_cells(self.recipe.mask, 1, self.mixing)[0].to(a.dtype)
        mask = cells.repeat_interleave(SIZE // len(cells), dim=0).repeat_interleave(SIZE // len(cells), dim=1)
        mixed, share = mask * a + (1 - mask) * torch.flip(a, (0,)), mask.mean()
        self._move_keys()
        total, keys = a.new_zeros(()), []
        for query_images, key_images in ((a, b), (b, a)):
            query, mixture, key = self._query(query_images), self._query(mixed), self._key(key_images)
            total = total + self._contrast(query, key)
            total = total + share * self._contrast(mixture, key) + (1 - share) * self._contrast(torch.flip(mixture, (0,)), key)
            keys.append(key)
        self._enqueue(torch.cat(keys[::-1]))
        return total

    def __call__(self, a: Tensor, b: Tensor) -> None:
        _update(self.optimizer, self.loss(a, b))

    def _query(self, images: Tensor) -> Tensor:
        return functional.normalize(self.networks.head(self.networks.encoder(images)), dim=1)

    @torch.no_grad()
    def _key(self, images: Tensor) -> Tensor:
        order = torch.randperm(len(images), generator=self.shuffling)
        keys = functional.normalize(self.networks.key_head(self.networks.key_encoder(images[order])), dim=1)
        return keys[torch.argsort(order)]

    def _contrast(self, query: Tensor, key: Tensor) -> Tensor:
        positive = torch.einsum("nc,nc->n", query, key).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", query, self.queue.clone().detach())
        logits = torch.cat([positive, negative], dim=1) / self.config.temperature
        return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))

    @torch.no_grad()
    def _move_keys(self) -> None:
        pairs: list[tuple[nn.Module, nn.Module]] = [
            (self.networks.key_encoder, self.networks.encoder),
            (self.networks.key_head, self.networks.head),
        ]
        for follower, leader in pairs:
            for mine, theirs in zip(follower.parameters(), leader.parameters(), strict=True):
                mine.data = mine.data * self.config.momentum + theirs.data * (1.0 - self.config.momentum)

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        self.queue[:, self.pointer : self.pointer + len(keys)] = keys.T
        self.pointer = (self.pointer + len(keys)) % self.queue.shape[1]


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def views(batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, batch, 3, SIZE, SIZE, dtype=dtype, generator=generator)
    return first, second


def new_method(settings: Recipe) -> MoCo:
    torch.manual_seed(0)
    method = build_method(settings)
    assert isinstance(method, MoCo)
    return method.train()


def check_agreement() -> None:
    """The gate: two steps in float64, whose second sees the first one's queue, keys and weights."""
    settings = recipe(width=0.125)
    method = new_method(settings).double()
    steps: tuple[Any, Any] = OurStep(method, settings), PlainStep(method, settings)
    a, b = views(16, torch.float64)
    loss_error, gradient_error = 0.0, 0.0
    for _ in range(2):
        ours, plain = (step.loss(a, b) for step in steps)
        loss_error = max(loss_error, abs(ours.item() - plain.item()) / abs(plain.item()))
        for step, loss in zip(steps, (ours, plain), strict=True):
            _update(step.optimizer, loss)
        gradients = [torch.cat([p.grad.flatten() for group in s.optimizer.param_groups for p in group["params"]]) for s in steps]
        gradient_error = max(gradient_error, float((gradients[0] - gradients[1]).norm() / gradients[1].norm()))
    print(f"float64, two steps: the losses differ by {loss_error:.1e}, the gradients by {gradient_error:.1e} (relative)")
    if not max(loss_error, gradient_error) <= TOLERANCE:
        sys.exit(f"The steps are not the same computation to {TOLERANCE:g}, so their speed means nothing.")


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for bf16 products; without them it is slower than fp32."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text().split() if path.is_file() else []
    return any(flag in flags for flag in BF16_FLAGS)


def glance(cases: dict[str, Callable[[], object]], rounds: int) -> Rounds:
    """A few rounds without the care that a verdict needs."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            start = time.process_time()
            case()
            seconds[name].append(time.process_time() - start)
    return Rounds(seconds, 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="images a step; a divisor of 2048 that 8 divides")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    check_agreement()
    a, b = views(arguments.batch)
    method = new_method(recipe())
    precisions = [p for p in BARS if p != "bf16" or multiplies_bf16()]
    steps: dict[str, Any] = {"plain": PlainStep(method, recipe())}
    steps |= {precision: OurStep(method, recipe(precision=precision)) for precision in precisions}
    cases: dict[str, Callable[[], object]] = {name: (lambda step=step: step(a, b)) for name, step in steps.items()}
    # Waiting threads spin, so processor time says nothing about several of them.
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    measured = arguments.rounds >= LEAST_ROUNDS
    rounds = paired_ratios(cases, arguments.rounds, clock) if measured else glance(cases, arguments.rounds)
    return report(rounds, precisions, arguments.batch, measured)


def report(rounds: Rounds, precisions: list[str], batch: int, measured: bool) -> int:
    """Print the table; the exit code."""
    print(f"batch {batch}, {len(rounds.seconds['plain'])} rounds, others used {rounds.other_load:.1f} cores")
    print(f"{'case':<6} {'images/s':>9} {'ours is':>8} {'quartiles':>15} {'bar':>6}  verdict")
    print(f"{'plain':<6} {batch / rounds.median_seconds('plain'):>9.1f}")
    verdicts = []
    for name in precisions:
        ratio = rounds.ratio("plain", name)
        verdicts.append(rounds.verdict(ratio, BARS[name]) if measured else "none: a glance")
        quartiles = f"[{ratio.lower:.2f}, {ratio.upper:.2f}]"
        print(
            f"{name:<6} {batch / rounds.median_seconds(name):>9.1f} {ratio.median:>7.2f}x {quartiles:>15} {BARS[name]:>5}x  {verdicts[-1]}"
        )
    if "bf16" not in precisions:
        print("bf16 was left out: this CPU has no instructions for it.")
    return 1 if "failed" in verdicts else 0 if set(verdicts) <= {"passed", "none: a glance"} else 2


if __name__ == "__main__":
    sys.exit(main())
