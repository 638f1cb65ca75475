"""Measure what a trial of a recipe takes, by a few real steps. Like `trial`, this runs in a process of its own.

`python -m ablatrix.probe` reads {"recipe", "threads", "gpu"} as JSON from standard input and answers with the measure as JSON.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from ablatrix.cost import Measure
from ablatrix.errors import AblatrixError, InvalidInput
from ablatrix.schema import Resources
from ablatrix_models.recipe import Recipe

WARM_STEPS, STEPS, SECONDS = 2, 20, 10.0  # of training: so many steps before it counts, then so many, or so long
EVALUATED = 256  # images of which the k-NN evaluation is timed
PROBE_S = 600.0


def probe(recipe: Recipe, resources: Resources) -> Measure:
    """What a trial of `recipe` takes on this machine; InvalidInput where it cannot run here, with the reason."""
    order = {"recipe": recipe.as_mapping(), "threads": resources.cpus, "gpu": resources.gpus > 0}
    command = [sys.executable, "-m", "ablatrix.probe"]
    try:
        ended = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"a probe of {PROBE_S:.0f} s did not get through a few steps. Probe where the sweep is to run.") from None
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"the process ended with {ended.returncode}"]
        raise InvalidInput(f"the probe failed: {lines[-1]}")
    raw = json.loads(ended.stdout.splitlines()[-1])
    return Measure(**{**raw, "without": tuple(raw["without"])})


class _Clock:
    """A session that stops after a few steps, and remembers when each began."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.state: dict[str, Any] = {}

    def report(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Nothing: epochs of a probe are of no interest."""

    def load_checkpoint(self) -> dict[str, Any] | None:
        """A probe begins anew."""
        return None

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Keep the state, whose size counts."""
        self.state = state

    def stop_requested(self) -> bool:
        """After enough steps, or enough time."""
        self.times.append(time.perf_counter())
        counted = len(self.times) - 1 - WARM_STEPS
        return counted >= STEPS or (counted >= 1 and self.times[-1] - self.times[WARM_STEPS] > SECONDS)

    @property
    def step_s(self) -> float:
        """Seconds of a step; of very short runs the first ones count too."""
        first = WARM_STEPS if len(self.times) > WARM_STEPS + 1 else 0
        steps = len(self.times) - 1 - first
        return (self.times[-1] - self.times[first]) / steps if steps > 0 else 0.0


def measure(recipe: Recipe, threads: int, gpu: bool) -> Measure:
    """The probe itself, in this process, whose peak memory it takes for the trial's."""
    import torch

    from ablatrix_models.data.load import load
    from ablatrix_models.pretrain import Pretraining
    from ablatrix_models.session import TrialStopped

    torch.set_num_threads(threads)
    if gpu and not torch.cuda.is_available():
        raise InvalidInput("the sweep wants a GPU and this machine has none. Probe where the sweep is to run.")
    device = torch.device("cuda" if gpu else "cpu")
    began = time.perf_counter()
    train, test = load(recipe.data, "train"), load(recipe.data, "test")
    clock = _Clock()
    pretraining = Pretraining(recipe, 0, train, clock, device)
    started = time.perf_counter() - began
    try:
        method = pretraining.run()
    except TrialStopped:
        method = pretraining.method
    image_s, missing = _evaluation_s(recipe, method, train, test, device)
    steps = recipe.own_epochs * (len(train) // recipe.schedule.batch_size)
    evaluations = 1 + (math.ceil(recipe.own_epochs / recipe.evaluate.every) - 1 if recipe.evaluate.every else 0)
    seconds = started + steps * clock.step_s + max(1, evaluations) * (len(train) + len(test)) * image_s
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    gpu_memory = torch.cuda.max_memory_allocated() / 1e6 if gpu else None
    return Measure(round(seconds, 3), _size(clock.state), round(memory, 1), gpu_memory, "a probe of a few steps", missing)


def _evaluation_s(recipe: Recipe, method: Any, train: Any, test: Any, device: Any) -> tuple[float, tuple[str, ...]]:
    """Seconds of k-NN evaluation for one image, and the protocols that are not measured."""
    import dataclasses

    from ablatrix_models.evaluate import protocols

    missing = tuple(name.removesuffix(".top1") for name in recipe.evaluate.metrics() if name != "knn.top1")
    if recipe.evaluate.knn.kind == "off":
        return 0.0, missing
    few = [dataclasses.replace(part, images=part.images[:EVALUATED], labels=part.labels[:EVALUATED]) for part in (train, test)]
    sized = dataclasses.replace(recipe.evaluate.knn, k=min(recipe.evaluate.knn.k, len(few[0])), labels_per_class=None)
    recipe = dataclasses.replace(recipe, evaluate=dataclasses.replace(recipe.evaluate, knn=sized))
    began = time.perf_counter()
    protocols.evaluate(recipe, method, *few, seed=0, device=device, only=("knn",))
    return (time.perf_counter() - began) / sum(map(len, few)), missing


def _size(state: dict[str, Any]) -> float:
    """Bytes of a checkpoint."""
    import torch

    file = io.BytesIO()
    torch.save(state, file)
    return float(file.tell())


def main() -> None:
    """Answer one order; an error in one line on standard error."""
    import dataclasses

    order = json.loads(sys.stdin.read())
    if not order["gpu"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        found = measure(Recipe.read(order["recipe"]), order["threads"], order["gpu"])
    except (AblatrixError, ValueError, RuntimeError, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}\n")
        sys.exit(1)
    sys.stdout.write(json.dumps(dataclasses.asdict(found)) + "\n")


if __name__ == "__main__":
    main()
