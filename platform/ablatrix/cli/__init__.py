"""The front door: the only package that may import everything. Each verb imports what it needs, when it runs."""

from ablatrix.cli.app import main

__all__ = ["main"]
