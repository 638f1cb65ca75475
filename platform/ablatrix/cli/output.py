"""Two streams: data to stdout, the rest to stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console


def data() -> Console:
    """The console for what a user may want to pipe on."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def notes() -> Console:
    """The console for everything else."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=not sys.stderr.isatty())


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
