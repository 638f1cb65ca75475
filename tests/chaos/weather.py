"""One round of bad weather: a small sweep, its driver, and moments by chance."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ablatrix.store import Store

TRIALS = 12
EPOCHS = 6
PATIENCE_S = 600.0
RECIPE = f"""\
method: {{name: moco, dim: 8, queue: 64, symmetric: false, bn_splits: 1}}
backbone: {{name: resnet18, width: 0.125}}
data: {{name: digits, image_size: 8, train_images: 64, test_images: 32}}
mask: {{kind: discrete, grid: 2}}
mixing: mixmask
schedule: {{epochs: {EPOCHS}, batch_size: 16, checkpoint_epochs: 2}}
evaluate: {{knn: {{features: backbone, k: 1}}, every: 3}}
"""
SWEEP = """\
schema: 1
sweep: storm
title: "A sweep in bad weather"
recipe: storm-recipe.yaml
axes:
  grid: {key: mask.grid, levels: [2, 4]}
  lr: {key: optimizer.lr, levels: [0.03, 0.06]}
seeds: 3
metric: {name: knn.top1}
resources: {cpus: 1}
"""


@dataclass
class Weather:
    """One round: its random numbers, its places, and what was done to it."""

    seed: int
    place: Path
    pristine: Path | None = None
    random: random.Random = field(init=False)
    done: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    finished: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.place.mkdir(parents=True, exist_ok=True)
        (self.place / "storm-recipe.yaml").write_text(RECIPE)
        self.file.write_text(SWEEP)

    @property
    def file(self) -> Path:
        return self.place / "storm.yaml"

    @property
    def store(self) -> Store:
        return Store(self.place / "runs")

    def say(self, what: str) -> None:
        self.done.append(what)

    def start(self) -> subprocess.Popen[bytes]:
        """`ablatrix run` in a process group of its own."""
        self._spare_migrations()
        command = [sys.executable, "-m", "ablatrix", "run", str(self.file), "--store", str(self.store.root), "--cpus", "2", *self.options]
        with (self.place / "driver.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, process_group=0)

    def _spare_migrations(self) -> None:
        """MLflow builds a new database in seconds; `pristine` is one that it has built, and that nothing was written to."""
        database = self.store.root / "mlflow.db"
        if self.pristine and not database.exists():
            database.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.pristine, database)

    def end(self, driver: subprocess.Popen[bytes]) -> int:
        """The exit code of a run that is left alone."""
        return driver.wait(PATIENCE_S)

    def lines(self) -> int:
        """How far the whole sweep is, in reported epochs."""
        found = 0
        for trial in self.store.trials():
            with contextlib.suppress(OSError):
                found += trial.metrics_file.read_bytes().count(b"\n")
        return found

    def wait_until(self, driver: subprocess.Popen[bytes], lines: int) -> bool:
        """Whether the sweep got as far as `lines` while its driver lives."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and driver.poll() is None:
            if self.lines() >= lines:
                time.sleep(self.random.random() * 0.3)
                return True
            time.sleep(0.02)
        return False

    def moment(self, first: float = 0.0, last: float = 0.85) -> int:
        """A random moment between two shares of the sweep, in reported epochs."""
        return 1 + int(self.random.uniform(first, last) * TRIALS * EPOCHS)

    def remember_finished(self) -> None:
        """Note the status of all that is finished; it must never change any more."""
        for trial in self.store.trials():
            with contextlib.suppress(Exception):
                if trial.result() is not None and trial.id not in self.finished:
                    self.finished[trial.id] = (trial.path / "result.json").read_bytes()
