from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from ablatrix import lease as leases
from ablatrix.lease import Held, Superseded, is_held, lease

HOLD = (
    "import sys, time, pathlib; from ablatrix.lease import lease\n"
    "with lease(pathlib.Path(sys.argv[1])):\n print('held', flush=True); time.sleep(60)"
)


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds `path`."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_only_one_owner_holds_it_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    with lease(path):
        with pytest.raises(Held, match="lock"), lease(path):
            pytest.fail("held twice")
        during = is_held(path)

    assert during
    assert not is_held(path)


def test_it_is_released_when_the_work_in_it_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lease(tmp_path / "lock"):
        raise RuntimeError

    assert not is_held(tmp_path / "lock")


def test_what_was_never_held_is_not_held_and_not_made(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()


def test_a_killed_owner_loses_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as child:
        before = is_held(path)
        child.send_signal(signal.SIGKILL)
        child.wait()

    assert before
    assert not is_held(path)


def test_waiting_gets_it_as_soon_as_the_owner_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    taken, leave = threading.Event(), threading.Event()

    def own() -> None:
        with lease(path):
            taken.set()
            leave.wait()

    owner = threading.Thread(target=own)
    owner.start()
    taken.wait()
    threading.Timer(0.2, leave.set).start()
    began = time.monotonic()
    with lease(path, wait_s=20):
        waited = time.monotonic() - began
    owner.join()

    assert 0.05 < waited < 10


def test_waiting_ends_with_held(tmp_path: Path) -> None:
    with lease(tmp_path / "lock"), pytest.raises(Held), lease(tmp_path / "lock", wait_s=0.15):
        pytest.fail("held twice")


def abroad(path: Path, run: str = "", ago_s: float = 0.0) -> Path:
    """A claim that a process of another machine made, and renewed `ago_s` seconds ago."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / f"{len(list(path.iterdir())) + 1:06d}.json"
    file.write_text(json.dumps({"host": "node-9", "machine": "another kernel", "pid": 1, "born": 0.0, "run": run, "released": False}))
    os.utime(file, (time.time() - ago_s, time.time() - ago_s))
    return file


def test_another_machines_claim_holds_while_it_is_renewed_and_is_free_a_minute_later(tmp_path: Path) -> None:
    abroad(tmp_path / "fresh", ago_s=5)
    abroad(tmp_path / "stale", ago_s=leases.STALE_S + 5)

    assert is_held(tmp_path / "fresh")
    with pytest.raises(Held, match="process 1 on node-9"), lease(tmp_path / "fresh"):
        pytest.fail("held twice")
    with lease(tmp_path / "stale") as taken:
        assert taken.number == 2


def test_a_held_claim_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.05)
    with lease(tmp_path / "lock") as claim:
        file = next((tmp_path / "lock").iterdir())
        os.utime(file, (1.0, 1.0))
        deadline = time.monotonic() + 20
        while file.stat().st_mtime == 1.0 and time.monotonic() < deadline:
            time.sleep(0.02)

        assert time.time() - file.stat().st_mtime < 60
        assert claim.held()


def test_an_owner_that_was_overruled_knows_it_and_does_not_release_its_successor(tmp_path: Path) -> None:
    with lease(tmp_path / "lock") as early:
        abroad(tmp_path / "lock")
        held = early.held()
        with pytest.raises(Superseded, match=r"claim 1 of .* was overruled"):
            early.check()

    assert not held
    assert is_held(tmp_path / "lock")


def test_numbers_only_grow_and_old_claims_are_tidied_away(tmp_path: Path) -> None:
    numbers = []
    for _ in range(5):
        with lease(tmp_path / "lock") as claim:
            numbers.append(claim.number)

    assert numbers == [1, 2, 3, 4, 5]
    assert len(list((tmp_path / "lock").iterdir())) == leases.KEPT


def test_a_run_overrules_its_own_earlier_claim_after_a_moment_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "YIELD_S", 0.2)
    abroad(tmp_path / "ours", run="run-1")
    abroad(tmp_path / "theirs", run="run-2")
    with lease(tmp_path / "ours", run="run-1") as taken:
        assert taken.number == 2
    with pytest.raises(Held), lease(tmp_path / "theirs", run="run-1", wait_s=0.5):
        pytest.fail("held twice")


def test_a_pid_that_was_given_to_another_process_is_no_owner(tmp_path: Path) -> None:
    with lease(tmp_path / "lock"):
        file = next((tmp_path / "lock").iterdir())
        claim = json.loads(file.read_text())
    file.write_text(json.dumps(claim | {"born": claim["born"] - 100.0, "released": False}))

    assert not is_held(tmp_path / "lock")


def test_a_claim_that_was_not_written_yet_is_held(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "000001.json").touch()

    assert is_held(tmp_path / "lock")


def test_of_many_that_claim_at_once_one_holds_it_at_a_time(tmp_path: Path) -> None:
    inside, most = [], []

    def own() -> None:
        for _ in range(5):
            with lease(tmp_path / "lock", wait_s=60) as claim:
                inside.append(claim.number)
                most.append(len(inside))
                time.sleep(0.002)
                inside.remove(claim.number)

    owners = [threading.Thread(target=own) for _ in range(6)]
    for owner in owners:
        owner.start()
    for owner in owners:
        owner.join()

    assert most == [1] * 30


def test_a_claim_whose_release_finds_no_room_is_free_when_its_process_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "lock"
    with lease(path) as claim, monkeypatch.context() as patch:
        patch.setattr(leases.tempfile, "mkstemp", full)
        claim.release()
        found = leases.owner(path)

    assert found == claim.owner


def test_a_clock_that_is_set_anew_takes_nothing_from_a_living_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    booted = psutil.boot_time()
    with lease(tmp_path / "lock"):
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: booted + 3600.0)

        assert is_held(tmp_path / "lock")
