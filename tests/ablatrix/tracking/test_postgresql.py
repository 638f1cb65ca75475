"""Eight trials at once, mirrored to a server on PostgreSQL that is killed in the middle: no run twice, no point lost or twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import postgresql
from ablatrix import tracking
from ablatrix.store import Store
from ablatrix.tracking import mirror as mirror_module
from stored_sweep import SWEEP, submit, trial_id

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(postgresql.why_not() is not None, reason=postgresql.why_not() or ""),
    pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated:DeprecationWarning"),
]
TRIALS, EPOCHS, METRICS = 8, 18, 25
# Signs that trials wait for after a third and after two thirds of their epochs: they report before, during and after the outage.
AWAY, BACK = "away", "back"
# A trial as the store sees it: the real attempt with its reports and its heartbeat, and a result; only the training is left out.
TRIAL = """
import sys, time
from pathlib import Path
from ablatrix.attempt import Attempt, Heartbeat
from ablatrix.records import Result, TrialRecipe
from ablatrix.store import Store
number, epochs, metrics = map(int, sys.argv[2:])
trial = Store(Path(sys.argv[1])).trial(f"{number:016x}")
trial.create(TrialRecipe(trial.id, number % 2, "data-1", {"data": {"name": "digits"}, "mask": {"grid": number}}))
attempt = Attempt(trial, Path("none"), 1, epochs)
with Heartbeat(attempt, lambda: True):
    for epoch in range(1, epochs + 1):
        sign = {epochs // 3 + 1: "away", 2 * epochs // 3 + 1: "back"}.get(epoch)
        while sign and not (Path(sys.argv[1]) / sign).exists():
            time.sleep(0.02)
        attempt.report(epoch, 27 * epoch, {f"train.m{m}": 1000.0 * number + epoch + m / 100 for m in range(metrics)})
        time.sleep(0.05)
trial.write_result(Result(trial.id, {"knn.top1": 50.0 + number}, 1, 1.0, 1, "node", "cpu"))
attempt.write(state="finished", ended=time.time(), epoch=epochs)
"""


@pytest.fixture(scope="module")
def database() -> Iterator[postgresql.Database]:
    with postgresql.postgresql() as database:
        yield database


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = submit(tmp_path / "runs", grids=["1", "2", "3", "4"], seeds=[0, 1])
    yield store
    tracking.stop_server(store)


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def rows(database: postgresql.Database, query: str) -> list[tuple]:
    import psycopg

    with psycopg.connect(f"{database.server}/mlflow") as connection:
        return connection.execute(query).fetchall()


def test_a_server_killed_under_eight_trials_doubles_no_run_and_loses_no_point(store, database, monkeypatch, capfd):
    monkeypatch.setattr(mirror_module, "LONGEST_WAIT_S", 1.0)  # the trials here last seconds, not hours
    url = tracking.serve(store, database.uri)
    mirror, stop = tracking.Mirror(store, SWEEP, url), threading.Event()
    thread = threading.Thread(target=mirror.run_until, args=(stop, 0.2, 60.0))
    commands = [[sys.executable, "-c", TRIAL, str(store.root), str(n), str(EPOCHS), str(METRICS)] for n in range(TRIALS)]
    trials = [subprocess.Popen(command) for command in commands]
    thread.start()
    try:
        wait_for(lambda: rows(database, "SELECT count(*) FROM metrics")[0][0] > 0)  # in the middle of a pass
        recorded = json.loads((store.root / "mlflow-server.json").read_text())
        os.killpg(recorded["pid"], 9)
        before = rows(database, "SELECT count(*) FROM metrics")[0][0]
        wait_for(lambda: mirror.last_error is not None)
        (store.root / AWAY).touch()
        wait_for(lambda: all(len(store.trial(trial_id(n)).reports()) == 2 * EPOCHS // 3 for n in range(TRIALS)))
        assert tracking.serve(store, database.uri, port=recorded["port"]) == url
        (store.root / BACK).touch()
        codes = [trial.wait(120) for trial in trials]
        command_lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    finally:
        for trial in trials:
            trial.kill()
        stop.set()
        thread.join(120)

    points = rows(database, "SELECT run_uuid, key, step, count(*) FROM metrics WHERE key LIKE 'train.%' GROUP BY run_uuid, key, step")
    runs = rows(database, "SELECT value, count(*) FROM tags WHERE key = 'ablatrix.trial' GROUP BY value")
    print(f"{before} points before the kill, {len(points)} of {TRIALS * EPOCHS * METRICS} at the end, {len(runs)} trials")
    assert (codes, mirror.last_error) == ([0] * TRIALS, None)
    assert 0 < before < TRIALS * EPOCHS * METRICS
    assert sorted(runs) == [(trial_id(n), 1) for n in range(TRIALS)]
    assert (len(points), {count for *_, count in points}) == (TRIALS * EPOCHS * METRICS, {1})
    statuses = rows(database, "SELECT status, count(*) FROM runs GROUP BY status")
    assert statuses == [("FINISHED", TRIALS + 1)]
    assert values_of(database, store) == [reported(store, n) for n in range(TRIALS)]
    assert postgresql.PASSWORD not in command_lines
    assert [path for path in store.root.rglob("*") if path.is_file() and postgresql.PASSWORD.encode() in path.read_bytes()] == []


def values_of(database: postgresql.Database, store: Store) -> list[dict[tuple[str, int], float]]:
    """What MLflow's database has of each trial's training metrics, by name and epoch."""
    found: dict[str, dict[tuple[str, int], float]] = {}
    query = (
        "SELECT t.value, m.key, m.step, m.value FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid AND t.key = 'ablatrix.trial' "
        "WHERE m.key LIKE 'train.%'"
    )
    for trial, key, step, value in rows(database, query):
        found.setdefault(trial, {})[key, step] = value
    return [found[trial_id(n)] for n in range(TRIALS)]


def reported(store: Store, number: int) -> dict[tuple[str, int], float]:
    """The same, as the store has it."""
    return {(key, r.epoch): value for r in store.trial(trial_id(number)).reports() for key, value in r.values.items()}
