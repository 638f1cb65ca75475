"""A sweep's Ray job as the store remembers it, and what its cluster says of it over HTTP, which needs no Ray here."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ablatrix.errors import DamagedRecord, InvalidInput, Refused, Unreachable
from ablatrix.records import SCHEMA, decode, encode, write_atomically
from ablatrix.store import SweepDirectory

FILE = "job.json"
COMMAND = "ABLATRIX_COMMAND"  # in a job's environment: the command that submitted it, which goes on with the sweep
DEFAULT_SERVER = "http://127.0.0.1:8265"
TIMEOUT_S = 10.0
ENDED = ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True)
class Job:
    """`job.json` of a sweep: the job that was submitted last."""

    id: str
    sweep: str
    server: str
    command: str
    submitted: float
    schema: int = SCHEMA


def write_job(sweep: SweepDirectory, job: Job) -> None:
    """Replace the record."""
    write_atomically(sweep.path / FILE, encode(job))


def read_job(sweep: SweepDirectory) -> Job | None:
    """The sweep's last job, or None where it was never submitted as one."""
    path = sweep.path / FILE
    try:
        return decode(Job, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DamagedRecord(path, error, "Take it away.") from error


def server_address(option: str | None) -> str:
    """Where jobs are sent: the option, else what Ray's own environment says, else the dashboard of this machine."""
    given = option or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or DEFAULT_SERVER
    try:
        parts = urllib.parse.urlsplit(given if "://" in given else f"http://{given}")
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # a port that is none raises
    except ValueError:
        sound, parts = False, None
    if not sound or parts is None:
        raise InvalidInput(f"jobs go to the dashboard of a Ray head, such as http://10.0.0.1:8265; {given!r} is no such address.")
    # A user and password in it would be of no use to Ray, and would stand in the store.
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def check_server(server: str) -> None:
    """Raises Unreachable where no Ray answers, and Refused where anybody in the network could run code on it."""
    mode = _ask(server, "/api/authentication_mode").get("authentication_mode")
    if mode != "token" and not is_loopback(urllib.parse.urlsplit(server).hostname or ""):
        raise Refused(
            f"the Ray cluster at {server} runs without token authentication, and whoever reaches it can run code on it. "
            "Start every node with RAY_AUTH_MODE=token."
        )
    if mode == "token":
        if token() is None:
            raise Refused(f"the Ray cluster at {server} wants a token. Give it with --token-file, RAY_AUTH_TOKEN or ~/.ray/auth_token.")
        os.environ["RAY_AUTH_MODE"] = "token"


def job_state(job: Job) -> str | None:
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; None where the cluster is gone or has forgotten it."""
    with contextlib.suppress(Unreachable, Refused):
        state = _ask(job.server, f"/api/jobs/{urllib.parse.quote(job.id)}").get("status")
        return str(state) if state else None
    return None


def stop_job(job: Job) -> None:
    """Have the cluster end the job's process, and its trials with it; their checkpoints stay. Raises Unreachable."""
    _ask(job.server, f"/api/jobs/{urllib.parse.quote(job.id)}/stop", method="POST")


def token() -> str | None:
    """Ray's token, from where Ray looks for it; None where there is none, or something that can be no token."""
    given = os.environ.get("RAY_AUTH_TOKEN")
    if not given:
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        try:
            given = path.expanduser().read_text()
        except (OSError, ValueError):
            return None
    # More than one word would end in an error about the header, which shows it.
    return given.strip() if len(given.split()) == 1 and given.isascii() else None


def is_loopback(host: str) -> bool:
    """Whether `host` can be this machine only."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"


def _ask(server: str, path: str, method: str = "GET") -> dict[str, Any]:
    request = urllib.request.Request(server + path, method=method)
    if known := token():  # for this server alone, and none to which it redirects
        request.add_unredirected_header("Authorization", f"Bearer {known}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            found = json.loads(answer.read() or b"{}")
            return found if isinstance(found, dict) else {}
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise Refused(f"the Ray cluster at {server} does not accept our token (HTTP {error.code}).") from None
        raise Unreachable(f"the Ray cluster at {server} answers {path} with HTTP {error.code}.") from None
    except (OSError, ValueError, HTTPException) as error:  # what listens there may speak no HTTP
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise Unreachable(f"no Ray dashboard answers at {server} ({reason}). Start a head with `ray start --head`.") from None
