"""A connected MLflow client, quiet and quick to fail, and the border at which MLflow's exceptions end."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ablatrix.errors import AblatrixError, InvalidInput, Unreachable
from ablatrix.tracking.address import Address, check_sqlite

if TYPE_CHECKING:
    from mlflow import MlflowClient

MIGRATION_S = 180.0
PROBE_S = 3.0
# The mirror retries by itself, so a request either succeeds soon or fails; nothing is sent to MLflow's makers.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
FOREIGN = {"mlflow", "requests", "urllib3", "sqlalchemy", "alembic", "sqlite3", "psycopg", "psycopg2", "pymysql", "MySQLdb", "pyodbc"}
LOGIN_REFUSALS = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}
REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}


class Rejected(Unreachable):
    """MLflow answers, but refused this one request; others may still succeed."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def run_is_gone(self) -> bool:
        """Whether the run was deleted behind the mirror's back."""
        return self.code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in str(self)


def connect(address: Address) -> MlflowClient:
    """A client whose store answers, migrated where it is a fresh SQLite file; raises Unreachable or InvalidInput."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address.kind == "database":
        _probe(address)
    if address.kind != "sqlite":
        return _client(address)
    check_sqlite(address.path)
    with migration_lock(address):
        return _client(address)


@contextmanager
def migration_lock(address: Address) -> Iterator[None]:
    """Held around the first connection: MLflow's migration of a fresh SQLite file stands no company."""
    if address.kind != "sqlite":
        yield
        return
    try:
        lock = FileLock(f"{address.path}.lock")
        with lock.acquire(timeout=MIGRATION_S):
            yield
    except Timeout as error:
        raise Unreachable(
            f"another process has been setting up {address.public} for {MIGRATION_S:.0f} s. See what holds {address.path}.lock."
        ) from error


@contextmanager
def border(address: Address) -> Iterator[None]:
    """Turn every exception of MLflow and of what lies below it into one of ours; let all others pass."""
    try:
        yield
    except AblatrixError:
        raise
    except ImportError as error:
        raise InvalidInput(f"MLflow cannot open {address.public}: {error}. Install that package, or use another tracking URI.") from error
    except Exception as error:
        if not _is_foreign(error):
            raise
        # The foreign exception is dropped where it may carry a password in its text.
        raise _translated(error, address) from (None if address.secrets else error)


def _client(address: Address) -> MlflowClient:
    with border(address):
        from mlflow import MlflowClient

        if "MLFLOW_LOGGING_LEVEL" not in os.environ:
            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            # It writes a traceback of each exception that the border tells in a line, as on a full disk.
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        return MlflowClient(tracking_uri=address.uri, registry_uri=address.uri)


def _probe(address: Address) -> None:
    """Ask for a TCP connection first: MLflow would try a dead database ten times."""
    host, port = address.host
    try:
        socket.create_connection((host, port), PROBE_S).close()
    except OSError as error:
        raise Unreachable(f"no database answers at {host}:{port} ({error}). Start it, or use another tracking URI.") from error


def _is_foreign(error: Exception) -> bool:
    modules = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
    return bool(modules & FOREIGN) or isinstance(error, OSError)


def _translated(error: Exception, address: Address) -> Unreachable:
    text = address.redact(" ".join(str(error).split()))
    code = str(getattr(error, "error_code", ""))
    if code in LOGIN_REFUSALS or " 401" in text or " 403" in text:
        step = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        return Unreachable(f"MLflow at {address.public} refuses the login ({text[:200]}). {step}")
    if "out-of-date database schema" in text:
        step = f"Back it up, then run `mlflow db upgrade {address.public}`."
        return Unreachable(f"the database {address.public} was made by another version of MLflow. {step}")
    if code in REFUSALS:
        return Rejected(f"MLflow at {address.public} refused a request: {text[:300]}", code)
    step = "Start the server, or use another tracking URI" if address.kind == "server" else "See that the database can be written"
    return Unreachable(f"MLflow does not answer at {address.public} ({text[:200]}). {step}; nothing is lost, `ablatrix sync` catches up.")
