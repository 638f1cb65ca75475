"""The HTTP side of a Ray head, played by a small server: what we ask of it, and what we make of its answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ablatrix import job as jobs
from ablatrix.errors import DamagedRecord, InvalidInput, Refused, Unreachable
from ablatrix.job import Job, check_server, is_loopback, job_state, read_job, server_address, stop_job, write_job
from ablatrix.store import Store


class Head:
    """Answers as the dashboard does, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/api/authentication_mode": {"authentication_mode": "disabled"}}
        self.asked: list[tuple[str, str, str | None]] = []
        self.code = 200
        self.redirect: str | None = None
        head = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                head.asked.append((self.command, self.path, self.headers.get("Authorization")))
                self.send_response(302 if head.redirect else head.code if self.path in head.answers else 404)
                if head.redirect:
                    self.send_header("Location", head.redirect)
                self.end_headers()
                self.wfile.write(json.dumps(head.answers.get(self.path)).encode())

            do_POST = do_GET  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def head() -> Iterator[Head]:
    found = Head()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.05,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def made(head: Head) -> Job:
    return Job("tiny-1", "tiny", head.url, "ablatrix submit tiny.yaml", 1.0)


def test_a_job_is_remembered_by_the_store(tmp_path: Path) -> None:
    sweep = Store(tmp_path).sweep("tiny")
    before = read_job(sweep)
    write_job(sweep, Job("tiny-1", "tiny", "http://x:1", "ablatrix", 1.0))

    assert before is None
    assert (read_job(sweep) or made).id == "tiny-1"  # type: ignore[union-attr]
    (sweep.path / "job.json").write_text("{")
    with pytest.raises(DamagedRecord, match=r"job\.json"):
        read_job(sweep)


def test_the_option_comes_before_rays_environment_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    default = server_address(None)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://10.0.0.1:8265/")

    assert default == "http://127.0.0.1:8265"
    assert server_address(None) == "http://10.0.0.1:8265"
    assert server_address("head:8265") == "http://head:8265"
    with pytest.raises(InvalidInput, match="is no such address"):
        server_address("ray://head:10001")


def test_without_a_token_only_this_machine_is_safe(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    check_server(head.url)
    monkeypatch.setattr(jobs, "is_loopback", lambda host: False)

    with pytest.raises(Refused, match="runs without token authentication"):
        check_server(head.url)


def test_a_cluster_that_wants_a_token_gets_it_or_is_refused(head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    head.answers["/api/authentication_mode"] = {"authentication_mode": "token"}
    with pytest.raises(Refused, match="wants a token"):
        check_server(head.url)
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    check_server(head.url)

    assert head.asked[-1][2] == "Bearer secret"


def test_a_token_that_is_not_accepted_is_said_to_be(head: Head) -> None:
    head.code = 401

    with pytest.raises(Refused, match="does not accept our token"):
        check_server(head.url)


def test_a_head_that_is_not_there_is_unreachable_and_its_jobs_have_no_state(head: Head) -> None:
    gone = Job("tiny-1", "tiny", "http://127.0.0.1:1", "ablatrix", 1.0)

    with pytest.raises(Unreachable, match="no Ray dashboard answers"):
        check_server(gone.server)
    assert job_state(gone) is None
    assert job_state(made(head)) is None  # the head was started anew, and has forgotten it


def test_the_state_of_a_job_and_its_end_are_asked_of_the_head(head: Head) -> None:
    head.answers |= {"/api/jobs/tiny-1": {"status": "RUNNING"}, "/api/jobs/tiny-1/stop": {"stopped": True}}
    state = job_state(made(head))
    stop_job(made(head))

    assert state == "RUNNING"
    assert head.asked[-1][:2] == ("POST", "/api/jobs/tiny-1/stop")


@pytest.mark.parametrize(
    ("host", "ours"), [("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("10.0.0.1", False), ("head", False)]
)
def test_loopback_is_known_by_its_name_and_numbers(host: str, ours: bool) -> None:
    assert is_loopback(host) is ours


@pytest.mark.parametrize("given", ["http://head:abc", "http://[::1", "http://head:99999", "http://", "ftp://head", "head:"])
def test_an_address_that_is_none_is_refused(given: str) -> None:
    if given == "head:":  # the scheme's own port
        assert server_address(given) == "http://head:"
        return
    with pytest.raises(InvalidInput, match="is no such address"):
        server_address(given)


def test_a_user_and_password_in_an_address_are_left_out() -> None:
    assert server_address("https://ann:secret@head:8265") == "https://head:8265"


def test_what_speaks_no_http_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Unreachable, match="no Ray dashboard answers"):
            check_server(f"http://127.0.0.1:{listening.getsockname()[1]}")


def test_a_head_that_redirects_does_not_get_the_token_sent_on(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    other = Head()
    serving = threading.Thread(target=other.server.serve_forever, args=(0.05,))
    serving.start()
    head.redirect = f"{other.url}/api/authentication_mode"
    check_server(head.url)
    other.server.shutdown()
    serving.join()
    other.server.server_close()

    assert head.asked[0][2] == "Bearer secret"
    assert [authorization for _, _, authorization in other.asked] == [None]


def test_a_token_file_of_several_words_is_no_token_and_is_not_shown(head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret one\nsecret two\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    head.answers["/api/authentication_mode"] = {"authentication_mode": "token"}

    with pytest.raises(Refused, match="wants a token") as raised:
        check_server(head.url)
    assert "secret" not in str(raised.value)


def test_a_job_of_which_the_head_says_nothing_has_no_state(head: Head) -> None:
    head.answers["/api/jobs/tiny-1"] = {}

    assert job_state(made(head)) is None
