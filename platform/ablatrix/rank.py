"""One rank of a trial that several workers train together, each in a process of Ray Train's within one process group.

Rank 0 is the trial's attempt: it holds the claim, reports, saves and writes the result. The others only train and listen for a stop.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablatrix.attempt import STOP_POLL_S
from ablatrix.lease import Held, lease
from ablatrix.store import Store, TrialDirectory
from ablatrix.trial import FAILED, LOCK_WAIT_S, Order, attempt_on, train, write_output_to

# What gloo and NCCL say when the process at the other end of a connection has ended.
PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "Connection closed by remote peer", "remote process exit")


class RankFailed(RuntimeError):
    """Raised on rank 0 after it has written down why the trial failed, so that the other ranks are ended too."""


def run_rank(order: Order) -> None:
    """Train as the rank that this process is. Returns where the trial is finished, stopped, or another process has it."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(order.threads)
    directory = Store(Path(order.store)).trial(order.trial)
    write_output_to(directory.log)
    if dist.get_rank() == 0:
        _lead(directory, order)
    elif _agreed(None):
        _follow(directory, order)


def _lead(directory: TrialDirectory, order: Order) -> None:
    try:
        with lease(directory.claims, LOCK_WAIT_S, order.run) as claim:
            go = _agreed(directory.result() is None)
            code = attempt_on(directory, order, claim, peer_gone) if go else 0
    except Held as error:
        print(f"Trial {order.trial} is running in another process and left alone: {error}.", flush=True)
        _agreed(False)
        return
    if code == FAILED:
        raise RankFailed(f"trial {order.trial} failed; {directory.log} says why")


def peer_gone(error: BaseException) -> bool:
    """Whether a rank failed only because another one has ended, which is for whoever sees all of them to judge."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in PEER_GONE)


def _follow(directory: TrialDirectory, order: Order) -> None:
    import torch.distributed as dist

    from ablatrix_models.recipe import Recipe
    from ablatrix_models.session import TrialStopped

    print(f"--- rank {dist.get_rank()} on {socket.gethostname()}, {order.threads} threads", flush=True)
    asked = directory.recipe()
    try:
        train(Recipe.read(asked.recipe), asked.seed, Listener(Path(order.stop_file)), order)
    except TrialStopped:
        return


def _agreed(go: bool | None) -> bool:
    """Rank 0's word, on every rank."""
    import torch.distributed as dist

    word = [go]
    dist.broadcast_object_list(word, src=0)
    return bool(word[0])


class Listener:
    """A session that only hears a stop: the other ranks' reports and checkpoints are rank 0's."""

    def __init__(self, stop_file: Path) -> None:
        self._stop_file, self._next_poll, self._stopping = stop_file, 0.0, False

    def report(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Nothing: rank 0's state is sent to all."""
        return None

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def stop_requested(self) -> bool:
        """Whether the sweep's stop file is there; looked up twice a second at most."""
        now = time.monotonic()
        if not self._stopping and now >= self._next_poll:
            self._next_poll = now + STOP_POLL_S
            self._stopping = self._stop_file.exists()
        return self._stopping


def owner() -> int:
    """The process without which a rank has nobody that waits for it: Ray's daemon on its node."""
    return os.getppid()
