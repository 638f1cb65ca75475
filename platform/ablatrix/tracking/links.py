"""Where a mirrored sweep stands in MLflow, from the store alone: for `ablatrix ui`, and for the report."""

from __future__ import annotations

import json

from ablatrix.comparison import links
from ablatrix.errors import InvalidInput
from ablatrix.store import Store
from ablatrix.tracking.address import parse
from ablatrix.tracking.ledger import FILE, Ledger
from ablatrix.tracking.points import key_of
from ablatrix.tracking.runs import planned_trials
from ablatrix.tracking.server import usual_url


def sweep_links(store: Store, sweep: str, uri: str, base_url: str) -> dict[str, str]:
    """Links to a mirrored sweep in the MLflow that `base_url` serves (see `ablatrix.comparison.links`).

    Reads the store only. Raises InvalidInput where the sweep was never mirrored to this URI.
    """
    directory = store.sweep(sweep)
    plan, address = directory.plan(), parse(uri)
    sent = Ledger(directory.path / FILE, address.public).read()
    if sent is None or sent.parent is None:
        raise InvalidInput(f"the sweep {sweep!r} is not in MLflow at {address.public} yet. Run `ablatrix sync` first.")
    children = [sent.trials[t.trial].run for t in planned_trials(plan, sweep) if t.trial in sent.trials]
    return links(base_url, sent.experiment, sent.parent, children, key_of(plan["metric"]["name"]), plan["metric"]["goal"])


def known_links(store: Store, sweep: str) -> dict[str, str]:
    """The links to wherever the sweep was mirrored, a server before a database; none where it never was.

    Those into a database work while `ablatrix ui` runs: it takes the same port for the same store whenever that is free.
    """
    try:
        known = json.loads((store.sweep(sweep).path / FILE).read_text())["tracking"]
        addresses = sorted(known, key=lambda uri: not uri.startswith("http"))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    for uri in addresses:
        try:
            return sweep_links(store, sweep, uri, uri if uri.startswith("http") else usual_url(store))
        except InvalidInput:
            continue
    return {}
