"""`ablatrix run`: submit, run what is missing, mirror, report."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.live import Live

from ablatrix import board
from ablatrix.cli import output
from ablatrix.cli.live_report import LiveReport
from ablatrix.cli.options import fingerprint
from ablatrix.environment import source_version
from ablatrix.errors import AblatrixError, DamagedRecord, Interrupted, Refused, TrialsMissing, Unreachable
from ablatrix.job import COMMAND
from ablatrix.lease import Held, lease
from ablatrix.lease import owner as lease_owner
from ablatrix.plan import Plan
from ablatrix.runner import Runner, early_stopping
from ablatrix.search_plan import REPRODUCIBLE, objectives, population_based
from ablatrix.store import Store, SweepDirectory, TrialDirectory
from ablatrix.tracking.address import public_command

if TYPE_CHECKING:
    from ablatrix.search import Search
    from ablatrix.tracking import Mirror

REFRESH_S = 0.5  # between looks at the board,
SHARE, LONGEST_S = 9, 30.0  # or so many times as long as one takes, and never longer than that
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
            sweep.stop_file.unlink(missing_ok=True)  # of an earlier run; one that comes from now on is meant for us
            search = begin_search(plan, store, sweep) if plan.suggestions else None
            missing = submit(search.plan if search else plan, store, sweep)
            runner = Runner(store, sweep, plan.resources, cpus or len(os.sched_getaffinity(0)), address, breaker)
            report = LiveReport(store, sweep, mirror)
            with _mirrored(mirror), _interruptible(runner) as interrupted:
                if missing if search is None else not search.exhausted:
                    at_once = f"on the Ray cluster at {address}" if address else f"{runner.concurrency} at a time"
                    output.notes().print(f"{at_once}, {plan.resources.cpus} CPU threads each")
                    runner.start(search or missing, _scheduler(search))
                _follow(store, sweep, runner, report)
            _tell(store, sweep, report, mirror)
            _conclude(store, sweep, runner, stopped=interrupted.is_set() or sweep.stop_file.exists(), search=search)
            if report.problem:
                raise AblatrixError(
                    f"every trial is safe in the store, but the report could not be written ({report.problem}). See {report.error_file}; "
                    f"`{output.call('report', sweep.name, store=store)}` tries again."
                )
    except Held:
        follow = output.call("status", sweep.name, "--watch", store=store)
        raise Refused(
            f"the sweep {sweep.name!r} is already running in this store ({lease_owner(sweep.claims)}). Follow it with `{follow}`."
        ) from None


def keep_plan(plan: Plan, store: Store, sweep: SweepDirectory) -> None:
    """Write the sweep file, the plan and the trials' recipes."""
    _write_plan(plan, sweep, source_version())
    for trial in {trial.id: trial for trial in plan.trials}.values():
        store.trial(trial.id).create(trial.record())


def _write_plan(plan: Plan, sweep: SweepDirectory, source: tuple[str | None, bool | None]) -> None:
    commit, dirty = source
    command = os.environ.get(COMMAND) or public_command(["ablatrix", *sys.argv[1:]])
    sweep.submit(plan.spec.document.text, plan.as_mapping() | {"commit": commit, "dirty": dirty, "command": command})


def begin_search(plan: Plan, store: Store, sweep: SweepDirectory) -> Search:
    """The search of a sweep, gone on with where an earlier run ended."""
    from ablatrix.search import Search

    source = source_version()  # once: git is asked, and the plan is written with every suggestion
    search = Search(plan, store, sweep, fingerprint, lambda grown: _write_plan(grown, sweep, source))
    made, algorithm = len(search.plan.axes[0].levels), search.settings.algorithm
    notes = output.notes()
    notes.print(
        f"{sweep.name}: {made} of {plan.suggestions} suggestions made, by {algorithm}; each is in {search.place / 'suggestions.jsonl'}"
    )
    if algorithm not in REPRODUCIBLE:
        notes.print(f"What {algorithm} suggests depends on the order in which trials end, so a second search may differ.", style="dim")
    return search


def _scheduler(search: Search | None) -> Any:
    if search is None or search.settings.scheduler is None or population_based(search.plan.spec):
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
        freeing = output.call("retry", sweep.name, store=store)
        notes.print(f"{left} diverged before and are left alone; `{freeing}` frees them.", style="yellow")
    return missing


def _diverged(trial: TrialDirectory) -> bool:
    try:
        status = trial.status()
    except DamagedRecord:
        return False
    return status is not None and status.state == "failed" and status.cause == "diverged"


@contextmanager
def _mirrored(mirror: Mirror) -> Iterator[None]:
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


def _follow(store: Store, sweep: SweepDirectory, runner: Runner, report: LiveReport) -> None:
    """Show progress until the runner is done, and keep the report fresh; then write it once more."""
    with _progress(store, sweep) as show:
        while True:
            going, began = runner.running, time.monotonic()
            show()
            if not going:
                break
            report.refresh()
            # Of a large sweep the board takes seconds, which the thread that drives Ray would lack.
            runner.join(max(REFRESH_S, min(SHARE * (time.monotonic() - began), LONGEST_S)))
    report.write()


@contextmanager
def _progress(store: Store, sweep: SweepDirectory) -> Iterator[Callable[[], None]]:
    """How progress is shown: as a live board on a terminal, else by lines. A record that cannot be read is left for the next time."""
    console, told = output.notes(), dict[str, str]()
    live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def show() -> None:
        with contextlib.suppress(AblatrixError, OSError, ValueError):
            seen = board.read_board(store, sweep)
            if live:
                live.update(board.render(seen))
            else:
                _tell_changes(seen, told)

    with live or contextlib.nullcontext():
        yield show


def _tell_changes(seen: board.Board, told: dict[str, str]) -> None:
    """One line for each trial that changed its state, or finished an epoch."""
    for cell in seen.cells:
        for trial in cell.trials:
            line = f"{cell.label}, seed {trial.seed}: {trial.state}" + (f" epoch {trial.epoch}/{trial.epochs}" if trial.epochs else "")
            if trial.state != "waiting" and told.get(cell.cell + trial.trial) != line:
                told[cell.cell + trial.trial] = line
                output.notes().print(f"{line} ({trial.seconds:.0f} s)", style="red" if trial.state == "failed" else None)


def _tell(store: Store, sweep: SweepDirectory, report: LiveReport, mirror: Mirror) -> None:
    """The table, the failures, and where to look."""
    from ablatrix_reports.terminal import render_terminal
    from ablatrix_reports.write import read_report

    notes = output.notes()
    if not report.problem:
        output.data().print(render_terminal(read_report(store, sweep.name)))
    for line in board.digest(store, board.read_board(store, sweep)):
        notes.print(line, style="red")
    if mirror.last_error:
        catch_up = output.call("sync", store=store)
        notes.print(f"MLflow is behind: {mirror.last_error} Nothing is lost; `{catch_up}` catches up.", style="yellow")
    if not report.problem:
        notes.print(f"Report:  {sweep.report / 'report.html'}")
    notes.print(f"MLflow:  {output.call('ui', sweep.name, store=store)}")


def _conclude(store: Store, sweep: SweepDirectory, runner: Runner, *, stopped: bool, search: Search | None) -> None:
    """The exit code, as an exception."""
    left = board.read_board(store, sweep).unfinished()
    if runner.error:
        raise runner.error if isinstance(runner.error, AblatrixError) else Unreachable(f"Ray ended: {runner.error}") from runner.error
    if runner.tripped:
        raise TrialsMissing(f"{runner.tripped}. Mend the cause; the same command goes on.")
    if search and search.gave_up:
        raise search.gave_up
    to_come = search.plan.suggestions - search.made if search else 0
    if stopped and (left or to_come):  # by Ctrl-C, or by `ablatrix stop`
        coming = f", and {to_come} suggestions to come" if to_come else ""
        raise Interrupted(f"stopped with {len(left)} trials unfinished{coming}; their checkpoints are saved. The same command goes on.")
    if left:
        raise TrialsMissing(f"{len(left)} trials are not finished. {_next_step(store, sweep, left, told=search is not None)}")


def _next_step(store: Store, sweep: SweepDirectory, left: list[board.TrialState], *, told: bool) -> str:
    """What is to be done about trials that are not finished; `told`: a search knows of its failures, and does not repeat them."""
    final = [trial for trial in left if trial.state == "failed" and (told or trial.cause == "diverged")]
    freeing = f"`{output.call('retry', sweep.name, store=store)}` frees {'those that failed' if told else 'those that diverged'}."
    again = "The same command runs them again"
    return freeing if len(final) == len(left) else f"{again}; {freeing}" if final else f"{again}."
