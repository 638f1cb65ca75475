"""Two streams: data to stdout, the rest to stderr."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from ablatrix.store import Store

PIPED_WIDTH = 200  # a pipe has no width, and a wrapped table cannot be searched

# Messages of trials and texts of files are shown as they are: brackets are no markup, and `:name:` no picture.
PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}


def data() -> Console:
    """The console for what a user may want to pipe on; nothing is wrapped when it is piped."""
    piped = not sys.stdout.isatty()
    return Console(soft_wrap=piped, width=PIPED_WIDTH if piped and "COLUMNS" not in os.environ else None, **PLAIN)


@functools.cache
def notes() -> Console:
    """The console for everything else; one object, so that a message is printed above the live board."""
    return Console(stderr=True, soft_wrap=not sys.stderr.isatty(), **PLAIN)


def command() -> str:
    """How the user called us: `ablatrix` where that is on the path, else the script's own path."""
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return "python -m ablatrix"
    found = shutil.which(script.name)
    if found and Path(found).resolve() == script.resolve():
        return script.name
    return os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)


def call(verb: str, *words: str, store: Store) -> str:
    """A command that a user can paste: how we were called, the verb and its words, and the store where it is not the default one."""
    place = [] if Store.at(None).root == store.root else ["--store", str(store.root)]
    return f"{command()} {shlex.join([verb, *words, *place])}"


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
