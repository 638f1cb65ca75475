"""`ablatrix submit`: the sweep as a job of a Ray cluster, which runs on when this shell is closed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablatrix import document, lease
from ablatrix import plan as plans
from ablatrix.cli import output
from ablatrix.cli.options import make_plan, overrides
from ablatrix.errors import AblatrixError, DamagedRecord, InvalidInput, Refused, SweepFileError
from ablatrix.job import COMMAND, Job, check_server, job_state, read_job, server_address, write_job
from ablatrix.spec import Spec
from ablatrix.store import Store, SweepDirectory
from ablatrix.tracking.address import public_command

# What the job is to know of this shell: places on the shared file system, and where MLflow is and how to log in there.
LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
UNDER_WAY = ("PENDING", "RUNNING")
PASSED_ON = ("ABLATRIX_DATA", "ABLATRIX_CACHE", "MLFLOW_TRACKING_URI", *LOGIN)


def submit(
    loaded: Spec,
    profile: str | None,
    pairs: list[str],
    store: Store,
    server: str | None,
    token_file: Path | None,
    tracking_uri: str | None,
    options: list[str],
) -> Job:
    """Check the sweep, send it with our own code, and return at once. `options` are passed on to `ablatrix run`.

    The tracking URI goes by the environment, because it may hold a password, and a job's command line is shown to all.
    """
    if token_file:
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file.expanduser().absolute())
    if problems := plans.check(loaded, overrides(pairs)):
        raise SweepFileError(loaded.path, problems)
    name = plans.sweep_name(loaded.file.sweep, plans.known_profile(loaded, profile), overrides(pairs))
    address = server_address(server)
    check_server(address)
    sweep = store.sweep(name)
    with _alone(sweep, store):
        job = _new_job(sweep, address)
        with tempfile.TemporaryDirectory(prefix="ablatrix-submit-") as directory:
            file = stage(loaded.path, Path(directory))
            given = [file, "--store", str(store.root), "--address", "auto", *options]
            given += ["--profile", profile] if profile else []
            given += [word for pair in pairs for word in ("--set", pair)]
            _send(job, given, sweep, Path(directory), tracking_uri)
        write_job(sweep, job)
        if not lease.is_held(sweep.claims):  # it has not begun yet, and will write the same
            _remember_plan(loaded, profile, pairs, store, sweep)
    return job


@contextmanager
def _alone(sweep: SweepDirectory, store: Store) -> Iterator[None]:
    """Raises Refused where the sweep runs, has a job on its way, or is being submitted by somebody else."""
    if lease.is_held(sweep.claims):
        raise Refused(f"the sweep {sweep.name!r} is already running in this store ({lease.owner(sweep.claims)}).")
    submission = sweep.path / "submission"
    try:
        with lease.lease(submission):  # another one would find no job either
            _refuse_second(sweep, store)
            yield
    except lease.Held:
        raise Refused(f"the sweep {sweep.name!r} is already being submitted ({lease.owner(submission)}).") from None


def _new_job(sweep: SweepDirectory, address: str) -> Job:
    return Job(
        f"{re.sub('[@+]', '-', sweep.name)}-{uuid.uuid4().hex[:8]}",
        sweep.name,
        address,
        public_command(["ablatrix", *sys.argv[1:]]),
        time.time(),
    )


def _refuse_second(sweep: SweepDirectory, store: Store) -> None:
    """Raises Refused where a job of the sweep is on its way, which has no claim yet."""
    with contextlib.suppress(DamagedRecord):  # sending another writes it anew
        before = read_job(sweep)
        state = job_state(before) if before else None
        if before and state in UNDER_WAY:
            raise Refused(
                f"the job {before.id} of the sweep {sweep.name!r} is already {state.lower()} at {before.server}. "
                f"`{output.call('stop', sweep.name, store=store)}` ends it."
            )


def show(job: Job, store: Store) -> None:
    """The job's id to stdout, and how to follow it."""
    output.data().print(job.id)
    notes = output.notes()
    notes.print(f"Submitted to {job.server}. It runs on when this shell is closed.")
    notes.print(f"Follow:  {output.call('status', job.sweep, '--watch', store=store)}")
    notes.print(f"Log:     {output.call('logs', job.sweep, store=store)}")
    notes.print(f"Stop:    {output.call('stop', job.sweep, store=store)}")


def _send(job: Job, arguments: list[str], sweep: SweepDirectory, directory: Path, tracking_uri: str | None) -> None:
    from ablatrix.cluster import submit_job

    sweep.path.mkdir(parents=True, exist_ok=True)
    log = shlex.quote(str(sweep.log))
    # The log is kept in the store too, for when the head and its own logs are gone.
    inner = f"python -m ablatrix run {shlex.join(arguments)} 2>&1 | tee -a {log}"
    passed = {COMMAND: job.command, **{name: os.environ[name] for name in PASSED_ON if name in os.environ}}
    passed |= {"MLFLOW_TRACKING_URI": tracking_uri} if tracking_uri else {}
    submit_job(job, f"bash -o pipefail -c {shlex.quote(inner)}", directory, passed)


def _remember_plan(loaded: Spec, profile: str | None, pairs: list[str], store: Store, sweep: SweepDirectory) -> None:
    """Write the plan already, so that the board shows the sweep before its job starts; the data may lie on the cluster only."""
    from ablatrix.cli.planned import as_stored
    from ablatrix.cli.running import keep_plan

    try:
        plan = as_stored(make_plan(loaded, profile, pairs), store)
    except InvalidInput as error:
        output.notes().print(f"The plan is made on the cluster: {error}", style="dim")
        return
    keep_plan(plan, store, sweep)


def stage(sweep: Path, directory: Path) -> str:
    """Copy a sweep file and the recipe files beside it that it names into `directory`; the sweep's name there."""
    root = sweep.resolve().parent
    for path in {sweep.resolve(), *_named_files(sweep.resolve(), set())}:
        if not path.is_relative_to(root):
            raise InvalidInput(f"{path} lies outside of the sweep's directory {root}, and cannot be sent along. Put it beside the sweep.")
        target = directory / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return sweep.resolve().name


def _named_files(path: Path, seen: set[Path]) -> Iterator[Path]:
    """Every YAML file that `path` names, and those that they name."""
    try:
        values = document.read(path).values
    except AblatrixError:
        return
    for text in _texts(values):
        if text.endswith((".yaml", ".yml")) and len(text) < 500:
            named = (path.parent / text).resolve()
            if named.is_file() and named not in seen:
                seen.add(named)
                yield named
                yield from _named_files(named, seen)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    inner: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        yield from _texts(part)
