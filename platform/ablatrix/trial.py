"""What runs on a worker: one trial, in a process of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ablatrix.attempt import SUPERSEDED, Attempt, Heartbeat
from ablatrix.environment import environment
from ablatrix.identity import trial_id
from ablatrix.lease import Held, Lease, Superseded, lease
from ablatrix.records import Result, write_atomically
from ablatrix.store import Store, TrialDirectory

if TYPE_CHECKING:
    from ablatrix_models.data.images import ImageSet
    from ablatrix_models.recipe import Recipe
    from ablatrix_models.session import Session

# An owner that was killed has lost its claim already; one that is ending needs a moment.
LOCK_WAIT_S = 5.0
# Exit codes of the trial's process, for the worker that waits for it. SUPERSEDED is another.
FINISHED, FAILED, STOPPED, BUSY = 0, 1, 3, 4
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")  # torch's words
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Order:
    """All that a worker is told; the rest it reads from the store. `run` names the run that wants the trial, `nursery` where
    its process is to be forked."""

    store: str
    trial: str
    stop_file: str
    threads: int
    gpus: float
    owner: int
    run: str = ""
    nursery: str = ""


def run(order: Order) -> None:
    """Run one trial to its end in this process, which then exits with one of the codes above."""
    directory = Store(Path(order.store)).trial(order.trial)
    write_output_to(directory.log)
    if not order.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves it unset, and so every GPU visible
    code = BUSY
    try:
        if directory.result():
            code = FINISHED
        else:
            with lease(directory.claims, LOCK_WAIT_S, order.run) as claim:
                code = FINISHED if directory.result() else attempt_on(directory, order, claim)
    except Held as error:
        print(f"Trial {order.trial} is running in another process and left alone: {error}.")
    except Superseded as error:
        print(f"{error}; this attempt ends here.")
        code = SUPERSEDED
    except Exception:  # the store itself cannot be written
        traceback.print_exc()
        code = FAILED
    _end(code)


def _end(code: int) -> None:
    """Leave without the interpreter's farewell, which waits for threads and may crash in native libraries."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def attempt_on(directory: TrialDirectory, order: Order, claim: Lease, foreign: Callable[[Exception], bool] = lambda _: False) -> int:
    """One attempt from its first status to its last; its exit code. Raises Superseded, and errors that are `foreign`: not the trial's."""
    import torch

    torch.set_num_threads(order.threads)
    attempt = Attempt(directory, Path(order.stop_file), order.threads, epochs=0, lease=claim)
    began = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    print(f"--- attempt {attempt.status.attempt} on {attempt.status.host}, {order.threads} threads, {began}", flush=True)
    with Heartbeat(attempt, _owner_alive(order.owner)):
        code = _worked(directory, order, attempt, foreign)
    return code


def _worked(directory: TrialDirectory, order: Order, attempt: Attempt, foreign: Callable[[Exception], bool]) -> int:
    """Train, evaluate and write down how it went."""
    from ablatrix_models.recipe import Recipe
    from ablatrix_models.session import TrialStopped

    try:
        directory.write_environment(environment(attempt.status.attempt, bool(order.gpus)))
        asked = directory.recipe()
        recipe = Recipe.read(asked.recipe)
        attempt.write(epochs=recipe.schedule.end)
        if parent := recipe.parent():
            attempt.parent = Store(Path(order.store)).trial(trial_id(parent, asked.seed, asked.data))
        metrics, device = train(recipe, asked.seed, attempt, order)
        attempt.write()
        status = attempt.status
        seconds = round(status.seconds, 3)
        result = Result(directory.id, metrics, status.attempt, seconds, order.threads, status.host, device, _versions())
        attempt.check()
        directory.write_result(result)
        attempt.write(state="finished", ended=time.time(), epoch=recipe.schedule.end)
    except TrialStopped:
        attempt.write(state="stopped", ended=time.time(), cause="stopped", message="stopped by request; its checkpoint is saved")
        return STOPPED
    except Superseded:
        raise
    except Exception as error:
        traceback.print_exc()
        if foreign(error):
            raise
        attempt.fail(cause_of(error), _first_line(error))
        return FAILED
    return FINISHED


def train(recipe: Recipe, seed: int, session: Session, order: Order) -> tuple[dict[str, float], str]:
    """Train and evaluate on this order's device; the final metrics, and the device's name."""
    import torch

    from ablatrix_models.data.load import load
    from ablatrix_models.pretrain import train_and_evaluate

    device = torch.device("cuda" if order.gpus else "cpu")
    training, test = load(recipe.data, "train"), load(recipe.data, "test")
    if isinstance(session, Attempt):  # of several workers the first draws
        _draw_pictures(session.directory, recipe, seed, training)
    metrics = train_and_evaluate(recipe, seed, training, test, session, device)
    return metrics, torch.cuda.get_device_name() if order.gpus else "cpu"


def _draw_pictures(directory: TrialDirectory, recipe: Recipe, seed: int, train: ImageSet) -> None:
    """Leave pictures of what the network is shown, and of what a method of dense prediction predicts.

    A trial never fails for want of a picture.
    """
    from ablatrix_models.patch_picture import patch_picture
    from ablatrix_models.samples import sample_sheet

    for name, draw in (("samples.png", sample_sheet), ("patches.png", patch_picture)):
        place = directory.pictures / name
        try:
            if not place.exists() and (picture := draw(recipe, seed, train)):
                write_atomically(place, picture)
        except Exception as error:
            print(f"{name} could not be drawn ({type(error).__name__}: {error}).", flush=True)


def cause_of(error: BaseException) -> str:
    """The kind of a failure, which decides whether trying again can help."""
    # torch wraps what a file's write raised in an error of its own.
    for inner in (error, error.__cause__, error.__context__):
        if isinstance(inner, OSError) and inner.errno in DISK_FULL:
            return "disk full"
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
    if isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY):
        return "out of memory"
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


def write_output_to(log: Path) -> None:
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
