"""Two real nodes of one Ray cluster on this machine: host names, temporary directories and ports of their own, and a token."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PATIENCE_S = 120.0
NAMES = ("node-a", "node-b")
ADDRESSES = ("127.0.0.2", "127.0.0.3")  # Ray takes 127.0.0.1 for a wish to be reached from other machines
OWN_HOST_NAME = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"']


@dataclass(frozen=True)
class Cluster:
    """`server` takes jobs, `address` drivers; `environment` is that of a user's shell, with the token.

    `start` starts the second node again where it was killed.
    """

    server: str
    address: str
    environment: dict[str, str]
    nodes: list[subprocess.Popen[bytes]]
    start: Callable[[], None]

    def cli(self, *arguments: str) -> list[str]:
        """The command line of one of our verbs."""
        return [sys.executable, "-m", "ablatrix", *arguments]

    def run(self, *arguments: str, timeout_s: float = 180.0) -> subprocess.CompletedProcess[str]:
        """One of our verbs, in a process of its own."""
        return subprocess.run(self.cli(*arguments), capture_output=True, text=True, check=False, env=self.environment, timeout=timeout_s)

    def kill(self, node: int) -> None:
        """Every process of a node, as when it loses its power."""
        _kill(self.nodes[node])


def missing() -> str | None:
    """Why two nodes cannot be had here, if so."""
    command = [*OWN_HOST_NAME, NAMES[1], "hostname"]
    with contextlib.suppress(OSError):
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        if told.stdout.strip() == NAMES[1]:
            return None
    return "a host name of its own for each node needs the right to `unshare --uts`"


@contextmanager
def two_nodes(cpus: int = 1) -> Iterator[Cluster]:
    """A cluster of two nodes with `cpus` each, gone at the end with all that ran there."""
    port, dashboard = free_port(), free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_worker_niceness": "0",
        # A job's process is `python`, as it is on a head whose environment is on its PATH.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    head = ["--head", "--port", str(port), "--dashboard-host", ADDRESSES[0], "--dashboard-port", str(dashboard)]
    head += ["--ray-client-server-port", str(free_port())]
    server, address = f"http://{ADDRESSES[0]}:{dashboard}", f"{ADDRESSES[0]}:{port}"
    nodes: list[subprocess.Popen[bytes]] = []
    places: list[Path] = []

    def start() -> None:
        number = min(len(nodes), 1)
        del nodes[1:]  # one that was killed
        places.append(Path(tempfile.mkdtemp(prefix=f"{NAMES[number]}-")))  # short: sockets have names of 107 bytes at most
        nodes.append(_start(number, ["--address", address] if number else head, places[-1], environment, cpus))
        _wait(server, environment, nodes)

    try:
        for _ in NAMES:
            start()
        yield Cluster(server, address, environment, nodes, start)
    finally:
        for node in reversed(nodes):
            _kill(node)
        for place in places:
            shutil.rmtree(place, ignore_errors=True)


def _start(number: int, first: list[str], place: Path, environment: dict[str, str], cpus: int) -> subprocess.Popen[bytes]:
    ports = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export", "object-manager", "node-manager")
    command = [
        *OWN_HOST_NAME, NAMES[number], sys.executable, "-m", "ray.scripts.scripts", "start", *first, "--block",
        "--node-ip-address", ADDRESSES[number], "--num-cpus", str(cpus), "--num-gpus", "0", "--object-store-memory", "80000000",
        "--temp-dir", str(place), "--disable-usage-stats", *(word for name in ports for word in (f"--{name}-port", str(free_port()))),
    ]  # fmt: skip
    with (place / "start.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def _wait(server: str, environment: dict[str, str], nodes: list[subprocess.Popen[bytes]]) -> None:
    """Until as many nodes are alive as were started."""
    count = len(nodes)
    request = urllib.request.Request(f"{server}/api/v0/nodes", headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"})
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if any(node.poll() is not None for node in nodes):
            raise RuntimeError(f"node {count} of Ray ended as it started")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), urllib.request.urlopen(request, timeout=10) as answer:
            found = json.loads(answer.read())["data"]["result"]["result"]
            if sum(node["state"] == "ALIVE" for node in found) == count:
                return
        time.sleep(0.3)
    raise RuntimeError(f"node {count} of Ray did not come up in {PATIENCE_S:.0f} s")


def _kill(node: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    node.wait()


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
