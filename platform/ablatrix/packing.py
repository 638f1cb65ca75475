"""What a trial takes of a node, and whether the nodes are large enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablatrix.errors import Refused
from ablatrix.schema import Resources

EPSILON = 1e-9  # 0.7 / 0.1 is a little less than 7


def bundle(resources: Resources, share: float = 1.0) -> dict[str, float]:
    """One worker's part, in Ray's words and units (bytes)."""
    asked: dict[str, float] = {"CPU": resources.cpus * share, **resources.custom}
    if resources.gpus:
        asked["GPU"] = min(1.0, resources.gpus * share) if resources.gpus <= 1 else resources.gpus
    if resources.memory_gb:
        asked["memory"] = resources.memory_gb * share * 1e9
    return asked


def check_fits(resources: Resources, nodes: list[dict[str, Any]]) -> None:
    """Raises Refused where the nodes are too small for a single trial: Ray itself would wait for ever."""
    if short := shortage(resources, nodes):
        raise Refused(f"{short}. Change `resources` in the sweep file, or --cpus.")


def shortage(resources: Resources, nodes: list[dict[str, Any]]) -> str | None:
    """What a trial asks for and what the nodes have, where they are too small for a single one."""
    if room(resources, 1.0, nodes) >= resources.workers:
        return None
    asked = bundle(resources)
    shown = "; ".join(_listed(node["Resources"], node.get("Labels", {}), resources) for node in nodes if node["Alive"])
    times = f"{resources.workers} times " if resources.workers > 1 else ""
    return f"a trial asks for {times}{_listed(asked, resources.labels, resources)}, and the nodes have: {shown or 'there is none'}"


def _listed(amounts: Mapping[str, float], labels: Mapping[str, str], resources: Resources) -> str:
    """Amounts and labels of the kinds that matter to a trial of `resources`."""
    kinds = {"CPU", "GPU", *bundle(resources)}
    held = [
        f"{name} {amount / 1e9:.3g} GB" if name == "memory" else f"{name} {amount:g}"
        for name, amount in sorted(amounts.items())
        if name in kinds
    ]
    return ", ".join([*held, *(f"{name}={value}" for name, value in sorted(labels.items()) if name in resources.labels)])


def room(resources: Resources, share: float, nodes: list[dict[str, Any]]) -> int:
    """How many workers the nodes of `ray.nodes()` could hold, were they empty."""
    asked, found = bundle(resources, share), 0
    for node in nodes:
        labels = node.get("Labels", {})
        if node["Alive"] and all(labels.get(name) == value for name, value in resources.labels.items()):
            found += min(_holds(node["Resources"].get(name, 0.0), amount, divided=name == "GPU") for name, amount in asked.items())
    return found


def _holds(has: float, amount: float, *, divided: bool) -> int:
    """How many times `amount` goes into what a node has. A part of a GPU lies on one GPU: four of 0.6 do not make six."""
    if divided and amount < 1:
        return int(has) * int(1 / amount + EPSILON)
    return int(has / amount + EPSILON)
