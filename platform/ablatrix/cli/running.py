"""`ablatrix run`: submit, run what is missing, mirror, report."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.live import Live

from ablatrix import board
from ablatrix.cli import output
from ablatrix.cli.options import fingerprint
from ablatrix.environment import source_version
from ablatrix.errors import AblatrixError, DamagedRecord, Interrupted, InvalidInput, Refused, TrialsMissing, Unreachable
from ablatrix.lease import Held, lease
from ablatrix.lease import owner as lease_owner
from ablatrix.plan import Plan
from ablatrix.runner import Runner, early_stopping
from ablatrix.search_plan import objectives
from ablatrix.store import Store, SweepDirectory, TrialDirectory
from ablatrix.tracking.address import public_command

if TYPE_CHECKING:
    from ablatrix.search import Search

REFRESH_S = 0.5
REPORT_S = 30.0
MIRROR_S = 3.0


def run(
    plan: Plan, store: Store, tracking_uri: str | None, cpus: int | None, address: str | None = None, breaker: int | None = None
) -> None:
    """Run what the store lacks; raises TrialsMissing, Interrupted, Refused or Unreachable at the end of what could be done."""
    from ablatrix.tracking import Mirror
    from ablatrix.tracking import tracking_uri as chosen_uri

    sweep = store.sweep(plan.name)
    uri = chosen_uri(tracking_uri, store)
    mirror = Mirror(store, sweep.name, uri)
    try:
        with lease(sweep.claims):
            sweep.stop_file.unlink(missing_ok=True)  # of an earlier run; from here on it is for this one
            search = begin_search(plan, store, sweep) if plan.suggestions else None
            missing = submit(search.plan if search else plan, store, sweep)
            runner = Runner(store, sweep, plan.resources, cpus or len(os.sched_getaffinity(0)), address, breaker)
            with _mirrored(mirror), _interruptible(runner) as interrupted:
                if missing if search is None else not search.exhausted:
                    at_once = f"on the Ray cluster at {address}" if address else f"{runner.concurrency} at a time"
                    output.notes().print(f"{at_once}, {plan.resources.cpus} CPU threads each")
                    runner.start(search or missing, _scheduler(search))
                _follow(store, sweep, runner, mirror)
            if search and search.gave_up:
                output.notes().print(search.gave_up, style="red")
            _conclude(store, sweep, runner, interrupted, mirror)
            if search and search.gave_up:
                raise InvalidInput(search.gave_up)
    except Held:
        raise Refused(
            f"the sweep {sweep.name!r} is already running in this store ({lease_owner(sweep.claims)}). "
            f"Follow it with `ablatrix status {sweep.name} --watch`."
        ) from None


def keep_plan(plan: Plan, store: Store, sweep: SweepDirectory) -> None:
    """Write the sweep file, the plan and the trials' recipes."""
    commit, dirty = source_version()
    command = public_command(["ablatrix", *sys.argv[1:]])
    sweep.submit(plan.spec.document.text, plan.as_mapping() | {"commit": commit, "dirty": dirty, "command": command})
    for trial in {trial.id: trial for trial in plan.trials}.values():
        store.trial(trial.id).create(trial.record())


def begin_search(plan: Plan, store: Store, sweep: SweepDirectory) -> Search:
    """The search of a sweep, gone on with where an earlier run ended."""
    from ablatrix.search import Search
    from ablatrix.study import REPRODUCIBLE

    search = Search(plan, store, sweep, fingerprint, lambda grown: keep_plan(grown, store, sweep))
    made, algorithm = len(search.plan.axes[0].levels), search.settings.algorithm
    notes = output.notes()
    notes.print(
        f"{sweep.name}: {made} of {plan.suggestions} suggestions made, by {algorithm}; each is in {search.place / 'suggestions.jsonl'}"
    )
    if algorithm not in REPRODUCIBLE:
        notes.print(f"What {algorithm} suggests depends on the order in which trials end, so a second search may differ.", style="dim")
    return search


def _scheduler(search: Search | None) -> Any:
    if search is None or search.settings.scheduler is None:
        return None
    return early_stopping(search.settings.scheduler, objectives(search.plan.spec)[0], search.epochs)


def submit(plan: Plan, store: Store, sweep: SweepDirectory) -> list[str]:
    """Keep the plan; returns the ids of the trials that are to run, in the plan's order.

    Seeds are outermost there, so that a whole table of n = 1 exists early. What diverged would diverge again, and stays out.
    """
    keep_plan(plan, store, sweep)
    wanted = list(dict.fromkeys(trial.id for trial in plan.trials))
    lacking = [trial for trial in wanted if store.trial(trial).result() is None]
    missing = [trial for trial in lacking if not _diverged(store.trial(trial))]
    for trial in set(wanted) - set(lacking):
        store.trial(trial).mend()
    done, left = len(wanted) - len(lacking), len(lacking) - len(missing)
    notes = output.notes()
    notes.print(f"{sweep.name}: {len(missing)} trials to run, {done} in the store {store.root}")
    if left:
        notes.print(f"{left} diverged before and are left alone; `{output.command()} retry {sweep.name}` frees them.", style="yellow")
    return missing


def _diverged(trial: TrialDirectory) -> bool:
    try:
        status = trial.status()
    except DamagedRecord:
        return False
    return status is not None and status.state == "failed" and status.cause == "diverged"


@contextmanager
def _mirrored(mirror: Any) -> Iterator[None]:
    """MLflow is written in a thread of its own, so that a slow or absent server delays nothing."""
    stop = threading.Event()
    thread = threading.Thread(target=mirror.run_until, args=(stop, MIRROR_S), name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _interruptible(runner: Runner) -> Iterator[threading.Event]:
    """First Ctrl-C: every trial saves and stops. Second: now."""
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        runner.stop()
        output.notes().print("Stopping: running trials save their checkpoints. Press Ctrl-C again to stop at once.")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(store: Store, sweep: SweepDirectory, runner: Runner, mirror: Any) -> None:
    """Show progress until the runner is done, and keep the report fresh."""
    console = output.notes()
    next_report = time.monotonic()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            while True:
                live.update(board.render(board.read_board(store, sweep)))
                if not runner.running:
                    break
                next_report = _keep_report(store, sweep, mirror, next_report)
                time.sleep(REFRESH_S)
    else:
        told: dict[str, str] = {}
        while True:
            _tell_changes(store, sweep, told)
            if not runner.running:
                break
            next_report = _keep_report(store, sweep, mirror, next_report)
            time.sleep(REFRESH_S)
    runner.join()
    _keep_report(store, sweep, mirror, 0.0)


def _keep_report(store: Store, sweep: SweepDirectory, mirror: Any, due: float) -> float:
    from ablatrix.cli.syncing import cell_means
    from ablatrix_reports.trial_curves import write_trial_curves
    from ablatrix_reports.write import write_report

    if time.monotonic() < due:
        return due
    try:
        write_trial_curves(store, sweep.name)
        write_report(store, sweep.name)
        mirror.cell_means(cell_means(store, sweep.name))
    except OSError as error:  # a full disk; the trials may yet end well, and the last report is not optional
        if not due:
            raise
        output.notes().print(f"The report could not be written: {error}", style="yellow")
    return time.monotonic() + REPORT_S


def _tell_changes(store: Store, sweep: SweepDirectory, told: dict[str, str]) -> None:
    """One line for each trial that changed its state, or finished an epoch."""
    for cell in board.read_board(store, sweep).cells:
        for trial in cell.trials:
            line = f"{cell.label}, seed {trial.seed}: {trial.state}" + (f" epoch {trial.epoch}/{trial.epochs}" if trial.epochs else "")
            if trial.state != "waiting" and told.get(cell.cell + trial.trial) != line:
                told[cell.cell + trial.trial] = line
                output.notes().print(f"{line} ({trial.seconds:.0f} s)", style="red" if trial.state == "failed" else None)


def _conclude(store: Store, sweep: SweepDirectory, runner: Runner, interrupted: threading.Event, mirror: Any) -> None:
    """The table, the failures, and where to go on; then the exit code as an exception."""
    from ablatrix_reports.terminal import render_terminal
    from ablatrix_reports.write import read_report

    output.data().print(render_terminal(read_report(store, sweep.name)))
    notes = output.notes()
    now = board.read_board(store, sweep)
    for line in board.digest(store, now):
        notes.print(line, style="red")
    if mirror.last_error:
        notes.print(f"MLflow is behind: {mirror.last_error} Nothing is lost; `ablatrix sync` catches up.", style="yellow")
    notes.print(f"Report:  {sweep.report / 'report.html'}")
    notes.print(f"MLflow:  {output.command()} ui {sweep.name}" + ("" if Store.at(None).root == store.root else f" --store {store.root}"))
    if runner.error:
        raise runner.error if isinstance(runner.error, AblatrixError) else Unreachable(f"Ray ended: {runner.error}") from runner.error
    # What a search's scheduler stopped early is done with.
    trials = [trial for cell in now.cells for trial in cell.trials]
    missing = sum(trial.state != "finished" and trial.cause != "pruned" for trial in trials)
    if runner.tripped:
        raise TrialsMissing(f"{runner.tripped}. Mend the cause; the same command goes on.")
    if interrupted.is_set() or sweep.stop_file.exists():  # by Ctrl-C, or by `ablatrix stop`
        raise Interrupted(f"stopped with {missing} trials unfinished; their checkpoints are saved. The same command goes on.")
    if missing:
        raise TrialsMissing(f"{missing} trials are not finished. {_next_step(now, sweep)}")


def _next_step(now: board.Board, sweep: SweepDirectory) -> str:
    causes = {trial.cause for cell in now.cells for trial in cell.trials if trial.state != "finished"}
    freeing = f"`{output.command()} retry {sweep.name}` frees those that diverged."
    return freeing if causes == {"diverged"} else "The same command runs them again" + (f"; {freeing}" if "diverged" in causes else ".")
