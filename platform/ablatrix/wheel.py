"""Our own code as a wheel, made from the packages as they run here: what a node of a cluster is sent.

It names no requirements: Ray would install them with pip on every node, torch included, and a node needs its own in any case.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ablatrix.shipped import root

PACKAGES = ("ablatrix", "ablatrix_models", "ablatrix_reports")
EPOCH = (1980, 1, 1, 0, 0, 0)  # equal code is an equal wheel, and Ray installs it once


def build_wheel(place: Path) -> Path:
    """Write the wheel into `place`; returns its path."""
    version = importlib.metadata.version("ablatrix")
    files = dict(_files())
    # Ray knows a wheel by its name alone, so other code needs another name: a build tag of its content.
    tag = hashlib.sha256(b"".join(name.encode() + data for name, data in files.items())).hexdigest()[:12]
    path = place / f"ablatrix-{version}-1{tag}-py3-none-any.whl"
    info = f"ablatrix-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: ablatrix\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: ablatrix\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
    return path


def _files() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        yield from _below(_place(package), package)
    # In a checkout the shipped sweeps lie beside the packages, in a wheel inside.
    if not (shipped := root()).is_relative_to(_place("ablatrix")):
        yield from _below(shipped, "ablatrix/sweeps")


def _place(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _below(directory: Path, name: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{name}/{path.relative_to(directory).as_posix()}", path.read_bytes()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
