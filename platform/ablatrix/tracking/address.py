"""Where the mirror goes: tracking URIs, checked, and without the secrets that may stand in them."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ablatrix.errors import InvalidInput
from ablatrix.store import Store

DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
# The user and password of an address, wherever it stands in a text, and its query, where databases take passwords too.
CREDENTIALS = re.compile(r"([A-Za-z][\w.+-]*://)\S*@")
QUERY = re.compile(r"([A-Za-z][\w.+-]*://[^?\s]*)\?\S*")
USE = "Use sqlite:///PATH/mlflow.db, postgresql+psycopg://HOST/NAME or http(s)://HOST:PORT (--tracking-uri, MLFLOW_TRACKING_URI)."


@dataclass(frozen=True)
class Address:
    """A checked tracking URI. `public` is all that may be shown or written; `uri` may hold a database's password."""

    kind: Literal["server", "sqlite", "database"]
    uri: str
    public: str
    secrets: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file of a SQLite address."""
        return Path(self.uri.removeprefix("sqlite:///"))

    @property
    def host(self) -> tuple[str, int]:
        """Host and port of a database server."""
        parts = urlsplit(self.uri)
        return parts.hostname or "localhost", parts.port or DATABASES[parts.scheme.partition("+")[0]]

    def redact(self, text: str) -> str:
        """`text` with every secret of this address blacked out."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def tracking_uri(option: str | None, store: Store) -> str:
    """`--tracking-uri`, else `MLFLOW_TRACKING_URI`, else a SQLite file in the store."""
    return option or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.root.absolute() / 'mlflow.db'}"


def public_uri(uri: str) -> str:
    """`uri` without user, password, query and fragment: the form to print, and the key in tracking.json."""
    parts = urlsplit(uri)
    if not parts.netloc:  # a file; urlunsplit would eat the slashes of sqlite:////
        return uri.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def public_command(words: Sequence[str]) -> str:
    """A command line to write down or show: shell words, without the secrets of the addresses in it."""
    return shlex.join(CREDENTIALS.sub(r"\1***@", QUERY.sub(r"\1?***", word)) for word in words)


def parse(uri: str) -> Address:
    """Check a tracking URI; raises InvalidInput that says what to use instead.

    The user and password of an http(s) URI are taken out of it: MLflow reads them from its own environment
    variables, so they stand in no log line and no error of the client.
    """
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        return _server(uri)
    if scheme == "sqlite":
        return _sqlite(uri)
    if scheme.partition("+")[0] in DATABASES:
        return Address("database", uri, public_uri(uri), _secrets(uri))
    if scheme in ("", "file"):
        raise InvalidInput(f"the tracking URI {public_uri(uri)!r} is MLflow's file store, which MLflow 3 refuses. {USE}")
    raise InvalidInput(f"the tracking URI {public_uri(uri)!r} has the unknown scheme {scheme!r}. {USE}")


def check_sqlite(path: Path) -> None:
    """Refuse at once what MLflow would retry for minutes: a place that cannot be written, a file that is no database."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"the directory {path.parent} for MLflow's database cannot be made: {error.strerror}. {USE}") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidInput(f"MLflow's database {path} cannot be written here. {USE}")
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.DatabaseError as error:
        raise InvalidInput(f"{path} cannot be opened as a SQLite database ({error}). Name another file. {USE}") from error


def _server(uri: str) -> Address:
    parts = urlsplit(uri)
    if not parts.hostname:
        raise InvalidInput(f"the tracking URI {public_uri(uri)!r} names no host. {USE}")
    for name, value in (("MLFLOW_TRACKING_USERNAME", parts.username), ("MLFLOW_TRACKING_PASSWORD", parts.password)):
        if value:
            os.environ.setdefault(name, unquote(value))
    return Address("server", public_uri(uri), public_uri(uri), _secrets(uri))


def _sqlite(uri: str) -> Address:
    name = uri.removeprefix("sqlite:///").partition("?")[0]
    if uri == name or name in ("", ":memory:"):
        raise InvalidInput(f"the tracking URI {uri!r} names no file. {USE}")
    path = Path(name).expanduser().absolute()
    return Address("sqlite", f"sqlite:///{path}", f"sqlite:///{path}")


def _secrets(uri: str) -> tuple[str, ...]:
    """What must not be shown: the password and the query, as written and decoded."""
    parts = urlsplit(uri)
    found = {parts.password or "", unquote(parts.password or ""), parts.query}
    found |= {os.environ.get(name, "") for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")}
    return tuple(sorted(found - {""}, key=len, reverse=True))
