"""The mirror of the store in MLflow, and the server that shows it. MLflow is imported only below this package.

The store is the truth (design.md, decision 1): everything here reads the store and can be rebuilt from it.
Importing this package costs no import of MLflow; the first pass does.

    experiment  the sweep, with its profile
    parent run  the sweep: sweep.yaml, plan.json, report/, cell means as `cell.<cell id>`
    child run   a trial that has begun: recipe as parameters, its reports as metrics with the epoch as
                MLflow's step, the metrics of result.json as `final.<name>`
"""

from ablatrix.tracking.address import public_command, public_uri, tracking_uri
from ablatrix.tracking.links import known_links, sweep_links
from ablatrix.tracking.mirror import Mirror, sync
from ablatrix.tracking.round import Progress
from ablatrix.tracking.server import LOOPBACK, serve, stop_server

__all__ = [
    "LOOPBACK", "Mirror", "Progress", "known_links", "public_command", "public_uri", "serve", "stop_server", "sweep_links", "sync",
    "tracking_uri",
]  # fmt: skip
