"""Run named cases once on two ranks, processes of their own that talk through gloo on this machine alone."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

RANKS = 2
Case = Callable[[], Mapping[str, Any]]


def on_two_ranks(module: str, tables: Sequence[str], place: Path) -> list[dict[str, dict[str, Mapping[str, Any]]]]:
    """For each rank, what every case of the `tables` of the importable `module` returned there; in one start of the processes."""
    multiprocessing.spawn(_rank, (module, list(tables), place), nprocs=RANKS)
    return [torch.load(place / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def _rank(rank: int, module: str, tables: list[str], place: Path) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{place}/rendezvous", rank=rank, world_size=RANKS)
    import importlib

    cases: dict[str, Mapping[str, Case]] = {table: getattr(importlib.import_module(module), table) for table in tables}
    torch.save({table: {name: dict(case()) for name, case in cases[table].items()} for table in tables}, place / f"{rank}.pt")
    distributed.destroy_process_group()
