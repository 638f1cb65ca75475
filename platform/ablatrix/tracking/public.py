"""A server that more than this machine can reach: MLflow's own login, and the names that may be called.

MLflow by itself asks for no password: whoever reaches it may read and overwrite everything.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Sequence

from ablatrix.errors import InvalidInput, Refused
from ablatrix.records import write_atomically
from ablatrix.store import Store

PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"
SHORTEST = 12  # MLflow's own minimum
CONFIG, USERS = "mlflow-auth.ini", "mlflow-auth.db"
# Without the cache a request costs MLflow a third of a second for its password alone.
SETTINGS = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{users}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


def check_public(host: str, allowed_hosts: Sequence[str]) -> None:
    """Refuse to open MLflow to the network without a password and without the names that browsers may call it by."""
    if not allowed_hosts:
        why = f"on {host} MLflow must know by which names it may be called, or any web page could call it"
        raise Refused(f"{why}. Stay on 127.0.0.1, or name them with --allow-host.")
    if len(os.environ.get(PASSWORD, "")) < SHORTEST:
        why = f"on {host} everyone in the network could write to MLflow, which by itself asks for no password"
        raise Refused(f"{why}. Stay on 127.0.0.1, or set {PASSWORD} to {SHORTEST} characters or more; the user is `admin`.")
    if importlib.util.find_spec("flask_wtf") is None:
        raise InvalidInput("MLflow's login needs the package Flask-WTF. Install it with `pip install 'ablatrix[auth]'`.")


def login_environment(store: Store) -> dict[str, str]:
    """What a server with a login is started with; its settings lie in the store, its secrets in the environment alone."""
    config = store.root.absolute() / CONFIG
    write_atomically(config, SETTINGS.format(users=store.root.absolute() / USERS))
    key = os.environ.get("MLFLOW_FLASK_SERVER_SECRET_KEY") or secrets.token_hex(32)
    return {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": key}
