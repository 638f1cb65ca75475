"""A PostgreSQL server of our own, from Debian's package: on loopback, with a password, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "pg-s3cret"
START_S = 60.0


@dataclass(frozen=True)
class Database:
    """`server`: the address without a database's name, for psycopg; `uri`: MLflow's database, for MLflow."""

    server: str

    @property
    def uri(self) -> str:
        return self.server.replace("postgresql://", "postgresql+psycopg://") + "/mlflow"


def programs() -> Path | None:
    """Where `initdb` and `postgres` lie; Debian keeps them off the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    found = shutil.which("initdb")
    return versions[-1].parent if versions else Path(found).resolve().parent if found else None


def why_not() -> str | None:
    """Why no PostgreSQL can be started here, or None."""
    if programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.getuid() == 0 and _owner() is None:
        return "PostgreSQL refuses to run as root, and there is no user `postgres`"
    return None


def _owner() -> str | None:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return None


@contextmanager
def postgresql() -> Iterator[Database]:
    """A fresh server with an empty database `mlflow`."""
    bin_directory = programs()
    assert bin_directory is not None
    # Not below pytest's own directory, which other users, and so `postgres`, may not enter.
    place = Path(tempfile.mkdtemp(prefix="ablatrix-pg-"))
    user = {"user": _owner(), "group": _owner(), "extra_groups": []} if os.getuid() == 0 else {}
    if user:
        shutil.chown(place, "postgres", "postgres")
    (place / "password").write_text(PASSWORD)
    (place / "password").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    initdb = [
        bin_directory / "initdb",
        "-D",
        place / "data",
        "-U",
        "ada",
        "--auth=scram-sha-256",
        f"--pwfile={place / 'password'}",
        "--no-sync",
    ]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/", **user)
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (place / "log").open("wb") as log:
        server = subprocess.Popen([bin_directory / "postgres", "-D", place / "data", *options], stdout=log, stderr=log, cwd="/", **user)
    try:
        database = Database(f"postgresql://ada:{PASSWORD}@127.0.0.1:{port}")
        _create_database(database, server, place / "log")
        yield database
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown: the other signal waits for every client to go
        server.wait(START_S)
        shutil.rmtree(place, ignore_errors=True)


def _create_database(database: Database, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + START_S
    while True:
        try:
            with psycopg.connect(f"{database.server}/postgres", autocommit=True) as connection:
                connection.execute("CREATE DATABASE mlflow")
                return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text()) from None
            time.sleep(0.2)
