"""`ablatrix doctor`: is this machine fit to run a sweep?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import psutil
from rich.table import Table
from rich.text import Text

from ablatrix.cli import output
from ablatrix.errors import AblatrixError, TrialsMissing
from ablatrix.store import Store

PACKAGES = ("torch", "torchvision", "timm", "ray", "optuna", "mlflow", "pandas")
MIN_FREE_GB = 2.0


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    name: str
    verdict: Literal["good", "note", "bad"]
    text: str


def show(store: Store, tracking_uri: str | None, as_json: bool) -> None:
    """Print every finding; raises when one of them would stop a sweep."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _packages,
        _cpu,
        _gpu,
        lambda: _store(store),
        _data,
        _ray,
        lambda: _tracking(store, tracking_uri),
    )
    findings = [check() for check in checks]
    if as_json:
        output.print_json({"schema": 1, "findings": [asdict(finding) for finding in findings]})
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        marks = {"good": Text("✓", "green"), "note": Text("·", "yellow"), "bad": Text("✕", "red")}
        for finding in findings:
            table.add_row(marks[finding.verdict], finding.name, finding.text)
        output.data().print(table)
    bad = [finding.name for finding in findings if finding.verdict == "bad"]
    if bad:
        raise TrialsMissing(f"a sweep cannot run here: {', '.join(bad)}.")


def _python() -> Finding:
    return Finding("python", "good", platform.python_version())


def _packages() -> Finding:
    found, absent = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    if absent:
        return Finding("packages", "bad", f"missing: {', '.join(absent)}. Install Ablatrix again.")
    return Finding("packages", "good", ", ".join(found))


def _cpu() -> Finding:
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory()
    text = f"{cores} cores, {memory.available / 1e9:.0f} of {memory.total / 1e9:.0f} GB of memory free"
    return Finding("machine", "good" if memory.available > 2e9 else "note", text)


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("gpu", "note", "none; trials run on the CPU. Use a smoke profile.")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("gpu", "good", ", ".join(names))


def _store(store: Store) -> Finding:
    place = next(p for p in (store.root, *store.root.parents) if p.exists())
    if not place.is_dir():
        return Finding("store", "bad", f"{place} is no directory. Choose another with --store.")
    free = store.free_gb()
    if not os.access(place, os.W_OK):
        return Finding("store", "bad", f"{place} cannot be written. Choose another with --store.")
    return Finding("store", "good" if free > MIN_FREE_GB else "bad", f"{store.root}, {free:.0f} GB free")


def _data() -> Finding:
    from ablatrix_models.data.places import data_root

    root = data_root()
    names = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    return Finding("data", "good" if names else "note", f"{root}: {', '.join(names) or 'nothing there yet; digits need nothing'}")


def _ray() -> Finding:
    from ablatrix import cluster

    try:
        version = cluster.probe()
    except AblatrixError as error:
        return Finding("ray", "bad", str(error))
    return Finding("ray", "good", f"{version} starts a local cluster")


def _tracking(store: Store, option: str | None) -> Finding:
    from ablatrix import tracking
    from ablatrix.tracking.address import parse
    from ablatrix.tracking.client import connect

    uri = tracking.tracking_uri(option, store)
    try:
        address = parse(uri)
        if address.kind == "sqlite" and not address.path.exists():
            return Finding("mlflow", "good", f"{tracking.public_uri(uri)} (made by the first run)")
        connect(address)
    except AblatrixError as error:
        return Finding("mlflow", "bad", str(error))
    return Finding("mlflow", "good", tracking.public_uri(uri))
