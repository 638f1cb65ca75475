"""What runs on a worker: one trial, in a process of its own."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from ablatrix.attempt import Attempt, Heartbeat
from ablatrix.environment import environment
from ablatrix.lease import Held, lease
from ablatrix.records import Result
from ablatrix.store import Store, TrialDirectory

LOCK_WAIT_S = 30.0
# Exit codes of the trial's process, for the worker that waits for it.
FINISHED, FAILED, STOPPED, BUSY = 0, 1, 3, 4


@dataclass(frozen=True)
class Order:
    """All that a worker is told; the rest it reads from the store."""

    store: str
    trial: str
    stop_file: str
    threads: int
    gpus: float
    owner: int


def run(order: Order) -> None:
    """Run one trial to its end in this process, which then exits with one of the codes above."""
    directory = Store(Path(order.store)).trial(order.trial)
    _write_output_to(directory.log)
    if not order.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves it unset, and so every GPU visible
    code = BUSY
    try:
        with lease(directory.path / "lock", wait_s=LOCK_WAIT_S):
            code = FINISHED if directory.result() else _attempt(directory, order)
    except Held:
        print(f"Trial {order.trial} is running in another process; left alone.")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _attempt(directory: TrialDirectory, order: Order) -> int:
    import torch

    from ablatrix_models.recipe import Recipe
    from ablatrix_models.session import TrialStopped

    torch.set_num_threads(order.threads)
    attempt = Attempt(directory, Path(order.stop_file), order.threads, epochs=0)
    began = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    print(f"--- attempt {attempt.status.attempt} on {attempt.status.host}, {order.threads} threads, {began}", flush=True)
    with Heartbeat(attempt, _owner_alive(order.owner)):
        try:
            directory.write_environment(environment(attempt.status.attempt, bool(order.gpus)))
            asked = directory.recipe()
            recipe = Recipe.read(asked.recipe)
            attempt.write(epochs=recipe.schedule.epochs)
            metrics, device = _train(recipe, asked.seed, attempt, order)
        except TrialStopped:
            attempt.write(state="stopped", ended=time.time(), cause="stopped", message="stopped by request; its checkpoint is saved")
            return STOPPED
        except Exception as error:
            traceback.print_exc()
            attempt.write(state="failed", ended=time.time(), cause=cause_of(error), message=_first_line(error))
            return FAILED
    attempt.write()
    status = attempt.status
    directory.write_result(
        Result(directory.id, metrics, status.attempt, round(status.seconds, 3), order.threads, status.host, device, _versions())
    )
    attempt.write(state="finished", ended=time.time(), epoch=recipe.schedule.epochs)
    return FINISHED


def _train(recipe: object, seed: int, attempt: Attempt, order: Order) -> tuple[dict[str, float], str]:
    import torch

    from ablatrix_models.data.load import load
    from ablatrix_models.pretrain import train_and_evaluate
    from ablatrix_models.recipe import Recipe

    assert isinstance(recipe, Recipe)
    device = torch.device("cuda" if order.gpus else "cpu")
    train, test = load(recipe.data, "train"), load(recipe.data, "test")
    metrics = train_and_evaluate(recipe, seed, train, test, attempt, device)
    return metrics, torch.cuda.get_device_name() if order.gpus else "cpu"


def cause_of(error: BaseException) -> str:
    """The kind of a failure, which decides whether trying again can help."""
    names = {cls.__name__ for cls in type(error).__mro__}
    known = {
        "Diverged": "diverged",
        "OutOfMemoryError": "out of memory",
        "MemoryError": "out of memory",
        "DataError": "data",
        "TooFewImages": "data",
        "RecipeError": "recipe",
        "DamagedRecord": "recipe",
    }
    if isinstance(error, OSError) and error.errno == 28:
        return "disk full"
    return next((cause for name, cause in known.items() if name in names), "error")


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _owner_alive(pid: int) -> Callable[[], bool]:
    try:
        owner = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return lambda: False

    def alive() -> bool:
        try:
            # `is_running` compares the start time too, so a recycled pid does not count; but a zombie does.
            return owner.is_running() and owner.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return alive


def _write_output_to(log: Path) -> None:
    """Everything that this process prints, C libraries included, goes to the trial's log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _versions() -> dict[str, str]:
    import torch
    import torchvision

    from ablatrix_models.recipe import RESULT_VERSION

    return {
        "python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__,
        "training code": str(RESULT_VERSION), "cpu": platform.processor() or platform.machine(),
    }  # fmt: skip
