"""Name a dataset by its content, so that equal data gives equal trials on any host. Free of torch and numpy."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path

from ablatrix_models.data.layout import find
from ablatrix_models.data.places import DataError, cache_root
from ablatrix_models.recipe.data import Data

WHOLE_BYTES = 1 << 30  # up to here every byte counts
PIECE_BYTES = 1 << 20  # beyond, the first and the last of each sampled file
SAMPLED_FILES = 1024  # evenly spaced; of all others the name and size count
RULE = b"ablatrix fingerprint 1"

Member = tuple[str, Path, os.stat_result]

_known: dict[str, str] = {}


def fingerprint(config: Data) -> str:
    """'sha256:' and 16 hex digits over the whole dataset, whatever `config`'s limits.

    Only the files that are read count, by name within the dataset and content; place, host and times stay out, and a
    file compressed by gzip counts as its content. Remembered in this process and in the cache until a size or time
    changes. Raises DataError where the dataset is absent or cannot be read.
    """
    source = find(config)
    try:
        members = sorted((unicodedata.normalize("NFC", name), path, path.stat()) for name, path in source.members())
        key = _key(source.place, members)
        if key not in _known:
            _known[key] = _remembered(key) or _digest(members)
            _remember(key, _known[key])
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source.place} cannot be read to the end ({error}). Check its permissions, or get the dataset again.") from error
    return _known[key]


def _key(place: Path, members: Sequence[Member]) -> str:
    digest = hashlib.sha256(RULE + os.fsencode(place.resolve()))
    for name, _, stat in members:
        digest.update(f"\0{name}\0{stat.st_size}\0{stat.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _digest(members: Sequence[Member]) -> str:
    whole = sum(stat.st_size for _, _, stat in members) <= WHOLE_BYTES
    step = max(1, -(-len(members) // SAMPLED_FILES))
    digest = hashlib.sha256(RULE)
    for position, (name, path, stat) in enumerate(members):
        sample = _ends(path, stat.st_size) if not whole and position % step == 0 else ""
        content = _whole_file(path) if whole else f"{stat.st_size} {sample}"
        digest.update(f"\0{name}\0{content}".encode(errors="surrogateescape"))
    return f"sha256:{digest.hexdigest()[:16]}"


def _whole_file(path: Path) -> str:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(PIECE_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _ends(path: Path, size: int) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256(stream.read(PIECE_BYTES))
        stream.seek(max(0, size - PIECE_BYTES))
        digest.update(stream.read(PIECE_BYTES))
    return digest.hexdigest()


def _remembered(key: str) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(_note(key).read_text(encoding="utf-8"))["fingerprint"])
    return None


def _remember(key: str, found: str) -> None:
    # A cache that cannot be written costs time, not correctness.
    with contextlib.suppress(OSError):
        _note(key).parent.mkdir(parents=True, exist_ok=True)
        draft = _note(key).with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"fingerprint": found}), encoding="utf-8")
        draft.replace(_note(key))


def _note(key: str) -> Path:
    return cache_root() / "fingerprints" / f"{key}.json"
