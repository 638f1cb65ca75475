"""Tracking URIs: which are taken, what is said of the others, and that no secret leaves them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ablatrix import tracking
from ablatrix.errors import InvalidInput, Unreachable
from ablatrix.store import Store
from ablatrix.tracking.address import check_sqlite, parse
from ablatrix.tracking.client import border, connect
from stored_sweep import finish, submit

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated:DeprecationWarning")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_the_option_wins_over_the_variable_and_the_variable_over_the_store(tmp_path, monkeypatch):
    store = Store(tmp_path)

    assert tracking.tracking_uri(None, store) == f"sqlite:///{tmp_path}/mlflow.db"
    os.environ["MLFLOW_TRACKING_URI"] = "http://variable:5000"
    assert tracking.tracking_uri(None, store) == "http://variable:5000"
    assert tracking.tracking_uri("http://option:5000", store) == "http://option:5000"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///data/mlruns", ""])
def test_the_file_store_is_refused_with_what_to_use_instead(uri):
    with pytest.raises(InvalidInput, match=r"file store, which MLflow 3 refuses\. Use sqlite:///PATH/mlflow\.db"):
        parse(uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("redis://host/0", "unknown scheme 'redis'"),
        ("http://", "names no host"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_other_unusable_addresses_are_refused_by_name(uri, said):
    with pytest.raises(InvalidInput, match=said):
        parse(uri)


def test_a_relative_sqlite_path_means_the_same_file_from_every_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert parse("sqlite:///runs/mlflow.db").path == tmp_path / "runs/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://ada:s3cret@mlflow.lan:5000/base/", "https://mlflow.lan:5000/base"),
        ("postgresql+psycopg://ada:s3cret@db/mlflow?password=s3cret", "postgresql+psycopg://db/mlflow"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ],
)
def test_the_public_form_has_no_user_password_or_query(uri, public):
    assert tracking.public_uri(uri) == public
    assert parse(uri).public == public


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("https://ada:s3cret@mlflow.lan:5000", "'https://***@mlflow.lan:5000'"),
        ("--tracking-uri=postgresql+psycopg://ada:s3c/r@t@db/mlflow", "'--tracking-uri=postgresql+psycopg://***@db/mlflow'"),
        ("postgresql://db/mlflow?user=ada&password=s3cret", "'postgresql://db/mlflow?***'"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sweeps/quickstart.yaml", "sweeps/quickstart.yaml"),
        ("mask.grid=[2, 4]", "'mask.grid=[2, 4]'"),
    ],
)
def test_a_command_is_written_down_without_secrets(word, shown):
    assert tracking.public_command(["ablatrix", "run", word]) == f"ablatrix run {shown}"


def test_a_servers_password_moves_into_mlflows_variables_and_out_of_the_uri():
    address = parse("https://ada:s%2Fcret@mlflow.lan")

    assert address.uri == "https://mlflow.lan"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("ada", "s/cret")
    assert address.redact("login s/cret or s%2Fcret failed") == "login *** or *** failed"


def test_a_password_that_the_user_has_set_is_kept():
    os.environ["MLFLOW_TRACKING_PASSWORD"] = "mine"

    parse("https://ada:other@mlflow.lan")

    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "mine"


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_text("this is a letter, not a database, and long enough to have a header" * 20)

    with pytest.raises(InvalidInput, match="cannot be opened as a SQLite database"):
        check_sqlite(path)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(InvalidInput, match="cannot be made"):
        check_sqlite(tmp_path / "file" / "mlflow.db")


def test_a_dead_server_is_unreachable_in_one_sentence_without_its_password(tmp_path):
    store = submit(tmp_path)
    finish(store, 0)
    mirror = tracking.Mirror(store, "grid-sweep", f"http://ada:s3cret@127.0.0.1:{free_port()}")

    with pytest.raises(Unreachable, match=r"MLflow does not answer at http://127\.0\.0\.1:\d+ .*ablatrix sync") as raised:
        mirror.mirror_once()

    assert "s3cret" not in str(raised.value)
    assert not any("s3cret" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_dead_database_server_is_unreachable_at_once(tmp_path):
    address = parse(f"postgresql://ada:s3cret@127.0.0.1:{free_port()}/mlflow")

    with pytest.raises(Unreachable, match=r"no database answers at 127\.0\.0\.1") as raised:
        connect(address)

    assert "s3cret" not in str(raised.value)


def test_a_missing_database_driver_is_named():
    address = parse("postgresql://db/mlflow")

    with pytest.raises(InvalidInput, match=r"cannot open postgresql://db/mlflow: No module named 'psycopg'\. Install"), border(address):
        raise ModuleNotFoundError("No module named 'psycopg'")


def test_the_border_lets_our_own_mistakes_pass():
    with pytest.raises(KeyError), border(parse("https://mlflow.lan")):
        raise KeyError("a mistake of ours")


def test_a_refused_login_says_which_variables_to_set():
    from mlflow.exceptions import MlflowException

    with pytest.raises(Unreachable, match="MLFLOW_TRACKING_TOKEN"), border(parse("https://mlflow.lan")):
        raise MlflowException("API request to endpoint failed with error code 401 != 200")


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "t0ken"}, "Bearer t0ken"),
        ({"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "s3cret"}, "Basic YWRhOnMzY3JldA=="),
    ],
    ids=["token", "password"],
)
def test_a_login_goes_to_the_server_as_mlflows_variables_have_it_and_into_no_message(tmp_path, variables, header):
    seen: list[str | None] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_error(401, f"not with {self.headers['Authorization']} or {list(variables.values())}")

        def log_message(self, *_: object) -> None:
            pass

    os.environ |= variables
    store = submit(tmp_path)
    finish(store, 0)
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(Unreachable, match="refuses the login") as raised:
            tracking.Mirror(store, "grid-sweep", f"http://127.0.0.1:{server.server_port}").mirror_once()

    assert seen == [header]
    assert not any(secret in str(raised.value) for secret in ("t0ken", "s3cret"))


def test_requests_are_not_retried_unless_the_user_wants_it(tmp_path):
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "77"

    connect(parse("http://127.0.0.1:1"))

    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"


def test_importing_tracking_imports_no_mlflow():
    code = "import sys, ablatrix.tracking; print([m for m in ('mlflow', 'torch', 'ray', 'pandas') if m in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout

    assert printed.strip() == "[]"
