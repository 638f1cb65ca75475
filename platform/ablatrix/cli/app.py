"""The verbs."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from ablatrix.cli import output
from ablatrix.cli.data import data_app
from ablatrix.cli.options import (
    AddressOption,
    BreakerOption,
    CpusOption,
    JsonOption,
    MaxGpuHoursOption,
    MaxTrialsOption,
    ProfileOption,
    SetOption,
    StoredArgument,
    StoreOption,
    SweepArgument,
    UriOption,
    load_spec,
    make_plan,
    overrides,
)
from ablatrix.cli.stored import stored_sweep
from ablatrix.errors import AblatrixError, SweepFileError
from ablatrix.store import Store

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
NO_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)  # something else has the name, or none can have it

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="One sweep file in, the paper's ablation table out.",
)

app.add_typer(data_app, name="data")


@app.command()
def check(sweep: SweepArgument, pairs: SetOption = [], as_json: JsonOption = False) -> None:  # noqa: B006 - typer reads the default
    """Find every problem of a sweep file at once; needs no data, no Ray, no MLflow."""
    from ablatrix import plan, shipped, spec

    changes = overrides(pairs)
    path = shipped.find_sweep(sweep)
    try:
        loaded = spec.load(path)
        problems = plan.check(loaded, changes)
    except SweepFileError as error:  # beyond reading on
        loaded, path, problems = None, Path(error.path), list(error.problems)
    if as_json:
        found = [{"line": p.line, "message": p.message} for p in problems]
        output.print_json({"schema": 1, "file": str(path), "problems": found})
        raise typer.Exit(2 if problems else 0)
    if problems or loaded is None:
        raise SweepFileError(path, problems)
    file, profiles = loaded.file, ", ".join(loaded.file.profiles) or "none"
    what = f"Axes: {', '.join(file.axes)}"
    if file.search:
        scheduler = file.search.scheduler
        legs = f", in legs of {scheduler.interval_epochs} epochs" if scheduler and scheduler.interval_epochs else ""
        what = f"Search: {file.search.trials} by {file.search.algorithm} over {', '.join(file.search.space)}{legs}"
    output.data().print(f"{loaded.path}: good. {what}. Profiles: {profiles}.")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a sweep file, for editors."""
    from ablatrix.json_schema import json_schema

    output.print_json(json_schema())


@app.command("plan")
def plan_(
    sweep: SweepArgument,
    profile: ProfileOption = None,
    store: StoreOption = None,
    pairs: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
    cpus: CpusOption = None,
    probe: Annotated[bool, typer.Option("--probe", help="Measure recipes of which nothing is known by a few real steps.")] = False,
    max_trials: MaxTrialsOption = None,
    max_gpu_hours: MaxGpuHoursOption = None,
) -> None:
    """List the sweep's trials: to run, in the store, running elsewhere, excluded and why; then what it costs."""
    from ablatrix.cli import planned

    made = planned.as_stored(make_plan(load_spec(sweep), profile, pairs), Store.at(store))
    planned.show(made, Store.at(store), as_json, planned.limits(made, max_trials, max_gpu_hours), cpus, probe)


@app.command()
def run(
    sweep: SweepArgument,
    profile: ProfileOption = None,
    store: StoreOption = None,
    tracking_uri: UriOption = None,
    pairs: SetOption = [],  # noqa: B006
    cpus: CpusOption = None,
    address: AddressOption = None,
    breaker: BreakerOption = None,
    max_trials: MaxTrialsOption = None,
    max_gpu_hours: MaxGpuHoursOption = None,
) -> None:
    """Run what the store lacks of a sweep, with live progress. Running it again resumes."""
    from ablatrix.cli import planned, running

    made, place = make_plan(load_spec(sweep), profile, pairs), Store.at(store)
    planned.refuse_over_budget(made, place, planned.limits(made, max_trials, max_gpu_hours), cpus)
    running.run(made, place, tracking_uri, cpus, address, breaker)


@app.command()
def submit(
    sweep: SweepArgument,
    profile: ProfileOption = None,
    store: StoreOption = None,
    pairs: SetOption = [],  # noqa: B006
    address: Annotated[
        str | None, typer.Option("--address", help="Dashboard of a Ray head, such as http://10.0.0.1:8265; else RAY_API_SERVER_ADDRESS.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with the cluster's token; else Ray's own places.")] = None,
    breaker: BreakerOption = None,
    tracking_uri: UriOption = None,
) -> None:
    """Send a sweep to a Ray cluster as a job, and return at once. The store must lie on a path that all its nodes share."""
    from ablatrix.cli import submitting

    place, options = Store.at(store), ["--max-failures", str(breaker)] if breaker else []
    job = submitting.submit(load_spec(sweep), profile, pairs, place, address, token_file, tracking_uri, options)
    submitting.show(job, place)


@app.command()
def status(
    sweep: StoredArgument = None,
    profile: ProfileOption = None,
    store: StoreOption = None,
    pairs: SetOption = [],  # noqa: B006
    watch: Annotated[bool, typer.Option("--watch", help="Follow until nothing runs any more.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the board: each cell with its trials."""
    from ablatrix.cli import watching

    place = Store.at(store)
    directory = stored_sweep(place, sweep, profile, pairs)
    if watch and not as_json:
        watching.watch(place, directory)
    else:
        watching.show(place, directory, as_json)


@app.command()
def report(
    sweeps: Annotated[
        list[str] | None, typer.Argument(metavar="[SWEEP]...", help="Sweeps of the store, files, or shipped names; default: the newest.")
    ] = None,
    profile: ProfileOption = None,
    store: StoreOption = None,
    pairs: SetOption = [],  # noqa: B006
    compare: Annotated[bool, typer.Option("--compare", help="Set two stores, given in the place of sweeps, side by side.")] = False,
    output_: Annotated[Path | None, typer.Option("--output", help="Where a combined or comparing document goes.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a sweep, whole or partial, and print its table; of several sweeps, one document."""
    from ablatrix.cli import reporting

    if compare:
        reporting.compare(sweeps or [], output_, as_json)
        return
    place = Store.at(store)
    directories = [stored_sweep(place, sweep, profile, pairs) for sweep in sweeps or [None]]
    reporting.write(place, directories, output_, as_json)


@app.command()
def verify(
    sweep: StoredArgument = None,
    profile: ProfileOption = None,
    store: StoreOption = None,
    pairs: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Hold a sweep against its paper and its claims; exits 4 where a claim fails, 3 where cells are missing."""
    from ablatrix.cli import verifying

    place = Store.at(store)
    verifying.verify(place, stored_sweep(place, sweep, profile, pairs), as_json)


@app.command()
def ui(
    sweep: StoredArgument = None,
    profile: ProfileOption = None,
    store: StoreOption = None,
    pairs: SetOption = [],  # noqa: B006
    tracking_uri: UriOption = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the MLflow server; default: a free one.")] = None,
    host: Annotated[str, typer.Option(help="Where it listens; off loopback it asks for a login (see the README).")] = "127.0.0.1",
    allow_host: Annotated[list[str], typer.Option(help="A name that browsers may call it by; may be repeated.")] = [],  # noqa: B006
    stop: Annotated[bool, typer.Option("--stop", help="End the server that an earlier `ui` started.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Open MLflow on this sweep: starts or finds the server on loopback, and prints the links."""
    from ablatrix.cli import comparison_ui

    place = Store.at(store)
    if stop:
        comparison_ui.stop(place)
        return
    comparison_ui.show(place, stored_sweep(place, sweep, profile, pairs), tracking_uri, port, host, allow_host, as_json)


@app.command("list")
def list_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the shipped sweeps, and those of the store."""
    from ablatrix.cli import listing

    listing.show(Store.at(store), as_json)


@app.command()
def show(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial id, or its first digits.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one trial: state, recipe, metrics, places."""
    from ablatrix.cli import listing

    listing.show_trial(Store.at(store), trial, as_json)


@app.command()
def logs(
    what: Annotated[str, typer.Argument(metavar="TRIAL|SWEEP", help="A trial id or its first digits, or a sweep that was submitted.")],
    profile: ProfileOption = None,
    store: StoreOption = None,
    pairs: SetOption = [],  # noqa: B006
) -> None:
    """Print everything that a trial printed, all attempts; of a sweep, what its Ray jobs printed."""
    from ablatrix.cli import listing

    sys.stdout.write(listing.find_log(Store.at(store), what, profile, pairs).read_text(encoding="utf-8", errors="replace"))


@app.command()
def stop(
    sweep: StoredArgument = None,
    profile: ProfileOption = None,
    store: StoreOption = None,
    pairs: SetOption = [],  # noqa: B006
) -> None:
    """Ask a running sweep to save its checkpoints and stop, from another shell."""
    from ablatrix.cli import stopping

    stopping.stop(stored_sweep(Store.at(store), sweep, profile, pairs))


@app.command()
def retry(
    what: Annotated[str, typer.Argument(metavar="SWEEP|TRIAL", help="A sweep of the store, or a trial id or its first digits.")],
    profile: ProfileOption = None,
    store: StoreOption = None,
    pairs: SetOption = [],  # noqa: B006
) -> None:
    """Free failed trials to be tried again, those that diverged too; a sweep that runs takes them up at once."""
    from ablatrix.cli import retrying

    retrying.retry(Store.at(store), what, profile, pairs)


@app.command()
def sync(store: StoreOption = None, tracking_uri: UriOption = None, as_json: JsonOption = False) -> None:
    """Bring MLflow up to date from the store alone, for every sweep."""
    from ablatrix.cli import syncing

    syncing.sync(Store.at(store), tracking_uri, as_json)


@app.command()
def doctor(store: StoreOption = None, tracking_uri: UriOption = None, as_json: JsonOption = False) -> None:
    """Check this machine: versions, CPU, GPU, memory, store, data, Ray, MLflow."""
    from ablatrix.cli import health

    health.show(Store.at(store), tracking_uri, as_json)


def main(arguments: list[str] | None = None) -> None:
    """The console script. A user's mistake becomes one message and an exit code, never a traceback."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except AblatrixError as error:
        # A file's problems each begin with their place, as editors and grep expect.
        sys.stderr.write(("" if isinstance(error, SweepFileError) else "error: ") + f"{error}\n")
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        if error.errno not in (*UNWRITABLE, *NO_PLACE):
            raise
        saved = "What was saved before is whole; mend it, and the same command goes on."
        sys.stderr.write(f"error: {error}. {saved if error.errno in UNWRITABLE else 'Choose another place.'}\n")
        code = 1 if error.errno in UNWRITABLE else 2
    except Exception as error:
        # Typer carries a click of its own, which exports no base class; its usage errors are those that can show themselves.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        code = 2
    sys.exit(code or 0)


__all__ = ["app", "main"]
