"""The options that several verbs share, and what they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ablatrix import shipped, spec
from ablatrix.document import read_value
from ablatrix.errors import InvalidInput
from ablatrix.layers import Change
from ablatrix.plan import Plan, make
from ablatrix.spec import Spec
from ablatrix_models.recipe.data import Data

SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep file, or a shipped name.")]
StoredArgument = Annotated[
    str | None, typer.Argument(metavar="[SWEEP]", help="A sweep of the store, a file, or a shipped name; default: the newest.")
]
StoreOption = Annotated[Path | None, typer.Option("--store", help="The store's directory; else ABLATRIX_STORE, else ./runs.")]
ProfileOption = Annotated[str | None, typer.Option("--profile", help="The same sweep at another cost, such as short or smoke.")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe key in every cell; may be repeated.")]
UriOption = Annotated[str | None, typer.Option("--tracking-uri", help="MLflow; else MLFLOW_TRACKING_URI, else SQLite in the store.")]
CpusOption = Annotated[int | None, typer.Option("--cpus", min=1, help="CPU cores to use; default: all of this machine.")]
MaxTrialsOption = Annotated[int | None, typer.Option("--max-trials", min=0, help="Refuse to run more; else the file's budget.")]
MaxGpuHoursOption = Annotated[float | None, typer.Option("--max-gpu-hours", min=0, help="Refuse to cost more; else the file's budget.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="A running Ray cluster, HOST:PORT of its head, or auto; default: a Ray of our own.")
]
BreakerOption = Annotated[
    int | None, typer.Option("--max-failures", min=1, help="Stop the sweep after so many failures of one cause; default: 5.")
]


def load_spec(given: str) -> Spec:
    """The sweep file named on the command line."""
    return spec.load(shipped.find_sweep(given))


def overrides(pairs: Sequence[str]) -> list[Change]:
    """`--set key=value` as changes; values are read as YAML reads them."""
    changes = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise InvalidInput(f"--set {pair!r} is no KEY=VALUE. Write for example --set schedule.epochs=20.")
        changes.append(Change(key.strip(), read_value(text), 0))
    return changes


def make_plan(loaded: Spec, profile: str | None, pairs: Sequence[str]) -> Plan:
    """The plan of a sweep, on this machine's data."""
    return make(loaded, profile, fingerprint, overrides(pairs))


def fingerprint(data: Data) -> str:
    """The fingerprint of a dataset's content; InvalidInput where the data are not on this machine."""
    from ablatrix_models.data import fingerprint as prints
    from ablatrix_models.data.places import DataError

    try:
        return prints.fingerprint(data)
    except DataError as error:
        raise InvalidInput(str(error)) from None
