"""`ablatrix sync`: MLflow from the store."""

from __future__ import annotations

from dataclasses import asdict

from ablatrix.cli import output
from ablatrix.errors import Unreachable
from ablatrix.store import Store


def sync(store: Store, tracking_uri: str | None, as_json: bool) -> None:
    """Mirror every sweep once; raises Unreachable where MLflow refused a part."""
    from ablatrix import tracking

    uri = tracking.tracking_uri(tracking_uri, store)
    done = tracking.sync(store, uri, lambda sweep: cell_means(store, sweep))
    if as_json:
        output.print_json({"schema": 1, "tracking": tracking.public_uri(uri), "sweeps": {name: asdict(p) for name, p in done.items()}})
    else:
        for name, progress in done.items():
            output.data().print(f"{name}: {progress.mirrored} of {progress.trials} trials in MLflow, {progress.points} points sent now")
    problems = [problem for progress in done.values() for problem in progress.problems]
    if problems:
        raise Unreachable("\n".join(problems))


def cell_means(store: Store, sweep: str) -> dict[str, float]:
    """The table's numbers, by cell id."""
    from ablatrix_reports.write import read_report

    return {cell.id: cell.mean for cell in read_report(store, sweep).cells if cell.mean is not None}
