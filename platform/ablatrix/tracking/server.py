"""MLflow's own server for the browser: one for each store, found again, and stopped only if we started it."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from ablatrix.errors import InvalidInput, Refused, Unreachable
from ablatrix.records import SCHEMA, decode, encode, write_atomically
from ablatrix.store import Store
from ablatrix.tracking.address import Address, check_sqlite, parse
from ablatrix.tracking.client import ENVIRONMENT, migration_lock
from ablatrix.tracking.public import check_public, login_environment

STATE, LOG, LOCK, ARTIFACTS = "mlflow-server.json", "mlflow-server.log", "mlflow-server.lock", "mlflow-artifacts"
START_S = 120.0
STOP_S = 10.0
DEAF_S = 10.0  # a server of a busy machine may be slow to answer
FIRST_PORT, PORTS = 20_000, 10_000  # below those that systems hand out by themselves
LOOPBACK = ("127.0.0.1", "localhost")
# Without jobs a server takes a fifth of the memory and ends when it is told to.
SERVER_ENVIRONMENT = {**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@dataclass(frozen=True)
class Running:
    """`mlflow-server.json`. `created` is the process's start in seconds since 1970: a recycled pid has another."""

    pid: int
    created: float
    host: str
    port: int
    uri: str
    schema: int = SCHEMA

    @property
    def url(self) -> str:
        """The address for a browser."""
        return f"http://{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.port}"


def serve(
    store: Store, uri: str, host: str = "127.0.0.1", port: int | None = None, allowed_hosts: Sequence[str] = (), timeout_s: float = START_S
) -> str:
    """The base URL of an MLflow that shows `uri`: the server itself, the one already started for this store, or a new one.

    A new server runs detached on `host`, on the store's usual port or any free one unless `port` is given, and logs into
    the store. Off loopback it asks for a password, and needs `allowed_hosts` (names under which browsers call it); see
    `ablatrix.tracking.public`. Raises Refused where the store's server runs differently or would be open to everyone,
    Unreachable where none comes up within `timeout_s` seconds.
    """
    address = parse(uri)
    if address.kind == "server":
        return address.uri
    if host not in LOOPBACK:
        check_public(host, allowed_hosts)
    store.root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(store.root / LOCK).acquire(timeout=timeout_s):
            running = _find(store)
            if running is not None:
                return _fitting(running, address, host, port)
            return _start(store, address, host, port or _free_port(host, _usual_port(store)), allowed_hosts, timeout_s).url
    except Timeout as error:
        raise Unreachable(
            f"another process has been starting this store's MLflow server for {timeout_s:.0f} s. See {store.root / LOG}."
        ) from error


def usual_url(store: Store) -> str:
    """Where the store's server runs, or would run next unless its port is taken then."""
    running = _recorded(store)
    return running.url if running else f"http://127.0.0.1:{_usual_port(store)}"


def stop_server(store: Store) -> bool:
    """End the server that `serve` started for this store, and its workers; whether there was one."""
    running = _recorded(store)
    process = _process(running) if running else None
    if running and process:
        members = [process, *_children(process)]  # asked for first: orphans are no one's children
        _signal_group(running.pid, signal.SIGTERM)
        _, alive = psutil.wait_procs(members, timeout=STOP_S)
        if alive:
            _signal_group(running.pid, signal.SIGKILL)
            psutil.wait_procs(alive, timeout=STOP_S)
    (store.root / STATE).unlink(missing_ok=True)
    return process is not None


def _fitting(running: Running, address: Address, host: str, port: int | None) -> str:
    if running.uri != address.public or running.host != host or port not in (None, running.port):
        what = f"this store's MLflow server already runs at {running.url} and shows {running.uri}"
        raise Refused(f"{what}. Stop it first, or use it as it is.")
    return running.url


def _find(store: Store) -> Running | None:
    """The recorded server if it is alive and answers; a dead or deaf one is cleared away."""
    running = _recorded(store)
    if running is None:
        return None
    deadline = time.monotonic() + DEAF_S
    while _process(running) is not None and time.monotonic() < deadline:
        if _healthy(running):
            return running
        time.sleep(0.5)
    stop_server(store)
    return None


def _recorded(store: Store) -> Running | None:
    try:
        return decode(Running, (store.root / STATE).read_text())
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _process(running: Running) -> psutil.Process | None:
    """The process, if the pid still belongs to it and leads its own group."""
    try:
        process = psutil.Process(running.pid)
        same = abs(process.create_time() - running.created) < 1.0 and os.getpgid(running.pid) == running.pid
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, ProcessLookupError):
        return None


def _start(store: Store, address: Address, host: str, port: int, allowed_hosts: Sequence[str], timeout_s: float) -> Running:
    if address.kind == "sqlite":
        check_sqlite(address.path)
    _refuse_taken(host, port)
    with migration_lock(address):  # a new server migrates a fresh file, as the mirror does
        pid = _spawn(store, address, host, port, allowed_hosts)
        running = Running(pid, psutil.Process(pid).create_time(), host, port, address.public)
        write_atomically(store.root / STATE, encode(running))
        deadline = time.monotonic() + timeout_s
        while not _healthy(running):
            if _process(running) is None or time.monotonic() > deadline:
                stop_server(store)
                raise Unreachable(f"MLflow's server did not come up on port {port}: {_last_line(store, address)} See {store.root / LOG}.")
            time.sleep(0.2)
    return running


def _spawn(store: Store, address: Address, host: str, port: int, allowed_hosts: Sequence[str]) -> int:
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str((store.root / ARTIFACTS).absolute())]
    if allowed_hosts:
        # MLflow compares the whole Host header, so each name is needed with and without a port; naming any drops its own.
        names = dict.fromkeys([*LOOPBACK, host, *allowed_hosts])
        command += ["--allowed-hosts", ",".join(pattern for name in names for pattern in (name, f"{name}:*"))]
    if host not in LOOPBACK:
        command += ["--app-name", "basic-auth"]
    # The URI goes by the environment: a command line, and with it a password, is open to every user of the machine.
    environment = {**SERVER_ENVIRONMENT, **os.environ, "MLFLOW_BACKEND_STORE_URI": address.uri}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    environment.pop("MLFLOW_TRACKING_URI", None)
    if host not in LOOPBACK:
        environment |= login_environment(store)
    with (store.root / LOG).open("ab") as log, Path(os.devnull).open("rb") as nothing:
        streams = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), 0), *((os.POSIX_SPAWN_DUP2, log.fileno(), out) for out in (1, 2))]
        # A session of its own: it outlives us, and its group can be ended as one.
        return os.posix_spawn(sys.executable, command, environment, file_actions=streams, setsid=True)


def _healthy(running: Running) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{running.url}/health", timeout=2.0) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _usual_port(store: Store) -> int:
    """The same for the same store, so that links into its MLflow go on working."""
    return FIRST_PORT + int(hashlib.sha256(os.fsencode(store.root.resolve())).hexdigest(), 16) % PORTS


def _free_port(host: str, usual: int) -> int:
    for port in (usual, 0):
        with suppress(OSError), socket.create_server((host, port)) as listener:
            return int(listener.getsockname()[1])
    raise InvalidInput(f"no port of {host} is free for MLflow. Name one with --port.")


def _refuse_taken(host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        reason = f"port {port} of {host} cannot be used for MLflow ({error.strerror})"
        raise InvalidInput(f"{reason}. Name another, or none for a free one.") from error


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _last_line(store: Store, address: Address) -> str:
    lines = [line for line in (store.root / LOG).read_text(errors="replace").splitlines() if line.strip()]
    return address.redact(lines[-1].strip()[:200]) + "." if lines else "it said nothing."
