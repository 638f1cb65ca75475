"""A real MLflow server, started, found again, killed in mid-flight; and many processes on one fresh database."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from ablatrix import cli, tracking
from ablatrix.errors import InvalidInput, Refused, Unreachable
from ablatrix.records import encode
from ablatrix.store import Store
from ablatrix.tracking import server
from stored_sweep import SWEEP, begin, end, finish, report, submit
from tracked_runs import epochs, runs_of

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated:DeprecationWarning")
MIRROR = """
import sys
from pathlib import Path
from typing import Any
from ablatrix import cli, tracking
from ablatrix.store import Store
store = Store(Path(sys.argv[1]))
progress = tracking.Mirror(store, sys.argv[2], tracking.tracking_uri(None, store)).mirror_once()
print(progress.mirrored, progress.problems)
"""


@pytest.fixture
def store(tmp_path: Path):
    store = submit(tmp_path / "runs")
    yield store
    tracking.stop_server(store)


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_server_killed_and_started_again_in_mid_flight_loses_and_doubles_nothing(store, capfd):
    database = tracking.tracking_uri(None, store)
    url = tracking.serve(store, database)
    trial = begin(store, 0)
    mirror, stop = tracking.Mirror(store, SWEEP, url), threading.Event()
    thread = threading.Thread(target=mirror.run_until, args=(stop, 0.2))
    thread.start()
    try:
        report(trial, [1, 2])
        wait_for(lambda: mirror.last_progress is not None)
        found_again = tracking.serve(store, database)
        recorded = json.loads((store.root / "mlflow-server.json").read_text())
        os.killpg(recorded["pid"], 9)

        report(trial, [3, 4])
        wait_for(lambda: mirror.last_error is not None)
        error_while_away = mirror.last_error
        assert tracking.serve(store, database, port=recorded["port"]) == url
        report(trial, [5])
        end(trial, epochs=5)
    finally:
        stop.set()
        thread.join(60)

    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert found_again == url
    assert error_while_away is not None
    assert f"MLflow does not answer at {url}" in error_while_away
    assert mirror.last_error is None
    assert epochs(url) == [1, 2, 3, 4, 5]
    assert epochs(database) == [1, 2, 3, 4, 5]
    links = tracking.sweep_links(store, SWEEP, url, url)
    assert links["runs"].startswith(url)


@pytest.mark.slow
def test_a_server_is_one_of_ours_or_left_alone(store):
    database = tracking.tracking_uri(None, store)
    url = tracking.serve(store, database)
    process = psutil.Process(json.loads((store.root / "mlflow-server.json").read_text())["pid"])
    family = [process, *process.children(recursive=True)]

    with pytest.raises(Refused, match="already runs at"):
        tracking.serve(store, "sqlite:////elsewhere/mlflow.db")
    stopped = tracking.stop_server(store)

    _, alive = psutil.wait_procs(family, timeout=5)
    assert url.startswith("http://127.0.0.1:")
    assert (stopped, alive, tracking.stop_server(store)) == (True, [], False)
    assert process.pid == os.getpid() or not psutil.pid_exists(process.pid)


@pytest.mark.slow
def test_six_processes_on_one_fresh_database_all_succeed(tmp_path):
    store = Store(tmp_path / "runs")
    for number in range(3):
        submit(store.root, f"sweep-{number}", sweep=f"sweep-{number}")
    finish(store, 0)

    commands = [[sys.executable, "-c", MIRROR, str(store.root), f"sweep-{n % 3}"] for n in range(6)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands]
    answers = [process.communicate(timeout=240) for process in started]

    assert [process.returncode for process in started] == [0] * 6, answers
    assert [out.strip() for out, _ in answers] == ["1 ()"] * 6
    uri = tracking.tracking_uri(None, store)
    assert [set(runs_of(uri, f"sweep-{n}")) for n in range(3)] == [{f"sweep-{n}", "grid=2, seed 0"} for n in range(3)]


def test_a_store_has_a_port_of_its_own_unless_that_is_taken(store, tmp_path):
    usual = server._usual_port(store)
    first = server._free_port("127.0.0.1", usual)
    with socket.create_server(("127.0.0.1", usual)):
        other = server._free_port("127.0.0.1", usual)

    assert first == usual == server._usual_port(Store(store.root))
    assert other != usual
    assert server._usual_port(Store(tmp_path / "another")) != usual
    assert server.usual_url(store) == f"http://127.0.0.1:{usual}"


def test_a_server_that_runs_already_needs_none_of_ours(store):
    assert tracking.serve(store, "http://mlflow.lan:5000/") == "http://mlflow.lan:5000"
    assert not (store.root / "mlflow-server.json").exists()


def test_a_process_that_took_over_the_recorded_number_is_left_alone(store):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        record = server.Running(stranger.pid, psutil.Process(stranger.pid).create_time() - 100.0, "127.0.0.1", 1, "sqlite:////x.db")
        (store.root / "mlflow-server.json").write_text(encode(record))

        stopped = tracking.stop_server(store)

        assert not stopped
        assert stranger.poll() is None
        assert not (store.root / "mlflow-server.json").exists()
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize(
    ("password", "allowed", "said"),
    [("", ["lab"], "by itself asks for no password"), ("short", ["lab"], "to 12 characters"), ("long enough for it", [], "by which names")],
)
def test_a_server_for_the_whole_network_needs_a_password_and_who_may_call(store, password, allowed, said):
    os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"] = password

    with pytest.raises(Refused, match=said):
        tracking.serve(store, tracking.tracking_uri(None, store), host="0.0.0.0", allowed_hosts=allowed)
    assert not store.root.joinpath("mlflow-server.json").exists()


def status_of(url: str, login: str | None = None, host: str | None = None) -> int:
    """What the server answers to a search for experiments."""
    headers = {"Content-Type": "application/json"} | ({"Host": host} if host else {})
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/experiments/search", json.dumps({"max_results": 1}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.slow
def test_off_loopback_a_server_asks_for_a_login_and_the_mirror_logs_in_through_mlflows_variables(store, capfd):
    finish(store, 0)
    os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"] = "correct horse battery"
    with pytest.raises(SystemExit):
        cli.main(["sync", "--store", str(store.root)])
    with pytest.raises(SystemExit) as ended:
        # Another address of this machine's own, which only the name of the loopback makes special.
        cli.main(["ui", SWEEP, "--store", str(store.root), "--host", "127.0.0.2", "--allow-host", "lab", "--json"])
    printed = capfd.readouterr()
    url = json.loads(printed.out.partition("\n{")[2].join(["{", ""]))["server"]
    process = psutil.Process(json.loads((store.root / "mlflow-server.json").read_text())["pid"])
    answers = [status_of(url), status_of(url, "admin:wrong"), status_of(url, "admin:correct horse battery")]
    foreign = status_of(url, "admin:correct horse battery", host="evil.example")

    with pytest.raises(Unreachable, match="MLFLOW_TRACKING_USERNAME"):
        tracking.Mirror(store, SWEEP, url).mirror_once()
    os.environ |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "correct horse battery"}
    again = tracking.Mirror(store, SWEEP, url).mirror_once()

    assert ended.value.code == 0
    assert "Warning: whoever reaches 127.0.0.2" in printed.err
    assert (answers, foreign) == ([401, 401, 200], 403)
    assert (again.mirrored, again.created, again.points) == (1, 0, 0)  # the runs that `sync` had written to the database itself
    assert "correct horse" not in " ".join(process.cmdline())
    assert [path for path in store.root.rglob("*") if path.is_file() and b"correct horse" in path.read_bytes()] == []


def test_a_port_that_is_taken_is_named(store):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        with pytest.raises(InvalidInput, match=f"port {port} of 127.0.0.1 cannot be used"):
            tracking.serve(store, tracking.tracking_uri(None, store), port=port)


def test_a_server_that_dies_at_once_is_told_with_its_last_words(store, monkeypatch):
    monkeypatch.setattr(server, "sys", type("Python", (), {"executable": "/bin/false"}))

    with pytest.raises(Unreachable, match=r"did not come up on port \d+: .*See .*mlflow-server\.log"):
        tracking.serve(store, tracking.tracking_uri(None, store))
    assert not (store.root / "mlflow-server.json").exists()


def test_the_password_of_a_database_stays_out_of_the_command_line_and_the_record(store, monkeypatch):
    seen: dict[str, Any] = {}

    def spawn(program, command, environment, **_):
        seen.update(command=command, environment=environment)
        raise OSError("enough seen")

    monkeypatch.setattr(server.os, "posix_spawn", spawn)
    with pytest.raises(OSError, match="enough seen"):
        tracking.serve(store, "postgresql://ada:s3cret@db/mlflow", allowed_hosts=["lab"])

    assert "s3cret" not in " ".join(seen["command"])
    assert seen["environment"]["MLFLOW_BACKEND_STORE_URI"] == "postgresql://ada:s3cret@db/mlflow"
    assert seen["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert "lab,lab:*" in " ".join(seen["command"])
    assert not any("s3cret" in path.read_text() for path in store.root.rglob("*") if path.is_file())
