"""`ablatrix ui`: MLflow, opened on one sweep."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Sequence

from ablatrix.cli import output
from ablatrix.store import Store, SweepDirectory


def show(
    store: Store, sweep: SweepDirectory, tracking_uri: str | None, port: int | None, host: str, allowed_hosts: Sequence[str], as_json: bool
) -> None:
    """Start or find the server, and print the links; on a terminal with a browser, open the comparison."""
    from ablatrix import tracking

    if host not in tracking.LOOPBACK:
        reach = f"Warning: whoever reaches {host} over the network reaches this server."
        output.notes().print(f"{reach} It asks for a login, but nothing is encrypted.", style="yellow")
    uri = tracking.tracking_uri(tracking_uri, store)
    base = tracking.serve(store, uri, host, port, allowed_hosts)
    links = tracking.sweep_links(store, sweep.name, uri, base)
    if as_json:
        output.print_json({"schema": 1, "server": base, "links": links})
        return
    for name, link in links.items():
        output.data().print(f"{name}: {link}", soft_wrap=True)
    output.notes().print(f"The server goes on in the background; end it with `{output.call('ui', '--stop', store=store)}`.")
    if sys.stdout.isatty() and "charts" in links:
        webbrowser.open(links["charts"])


def stop(store: Store) -> None:
    """End the server that an earlier call started for this store."""
    from ablatrix import tracking

    output.notes().print("MLflow's server is ended." if tracking.stop_server(store) else "No server of this store is running.")
