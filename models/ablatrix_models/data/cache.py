"""Decoded splits, kept as memory-mapped arrays that the trials of a node share. Free of torch."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import mmap
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from filelock import FileLock
from tqdm import tqdm

from ablatrix_models.data.arrays import Arrays, wanted
from ablatrix_models.data.decode import Failure, decoded, pixel_size
from ablatrix_models.data.fingerprint import fingerprint
from ablatrix_models.data.folders import list_folder
from ablatrix_models.data.layout import Source, Split
from ablatrix_models.data.listing import Listing
from ablatrix_models.data.parquet import list_parquet
from ablatrix_models.data.places import DataError, cache_root
from ablatrix_models.recipe.data import DATASETS, Data

FORMAT = 1  # raised whenever the same files would be decoded to other pixels or kept in another way
SURVEYED = 256  # images per split whose headers tell whether a dataset has one size
MOST_FAILURES = 100  # unreadable images after which decoding gives up

LISTERS: dict[str, Callable[[Source, Split], Listing]] = {"parquet": list_parquet, "folder": list_folder}


def cached(config: Data, source: Source, split: Split) -> Arrays:
    """The split, decoded once: as many images as the recipe uses, or more; read-only pages, private when written to.

    The place is named by dataset, content and size, so a changed source never meets old pixels. One process
    builds while others wait; a build becomes visible in one step, complete, or not at all. Raises DataError
    naming every unreadable image (up to a hundred), or what keeps the cache from being written.
    """
    mark = fingerprint(config)
    home = cache_root() / "decoded" / f"{config.name}-{mark.removeprefix('sha256:')}-{config.store_size}-v{FORMAT}"
    arrays = _ready(home, split, config.limit(split))
    if arrays is not None:
        return arrays
    try:
        with _locked(home):
            arrays = _ready(home, split, config.limit(split))
            return _build(home, config, source, split, mark) if arrays is None else arrays
    except (OSError, NotImplementedError) as error:
        raise DataError(f"the cache {home} cannot be written ({error}). Set ABLATRIX_CACHE to a local directory with room.") from error


def stored_side(config: Data, source: Source) -> int:
    """Pixels per side that images are kept at: never more than they have, where all have one square size."""
    if DATASETS[config.name][0]:
        return config.store_size
    listings = [LISTERS[source.kind](source, split) for split in source.parts]
    sizes = {pixel_size(payload) for listing in listings for _, payload in listing.first(SURVEYED)} - {None}
    only = sizes.pop() if len(sizes) == 1 else None
    return min(only[0], config.store_size) if only and only[0] == only[1] else config.store_size


def _ready(home: Path, split: Split, limit: int | None) -> Arrays | None:
    for directory in sorted(home.glob(f"{split}-*")):
        meta = _meta(directory)
        serves = meta and (meta["count"] == meta["total"] or (limit is not None and limit <= meta["count"]))
        if meta and serves and _sound(directory, meta):
            with contextlib.suppress(OSError):  # another process may be replacing it
                return Arrays(_mapped(directory / "images.npy"), np.load(directory / "labels.npy"), tuple(meta["classes"]))
    return None


def _mapped(path: Path) -> np.ndarray:
    """The array in `path`, mapped so that writing to it makes a private copy of the page.

    Linux counts such a mapping against its memory unless told otherwise, and would refuse one larger than that.
    """
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape = np.lib.format.read_array_header_1_0(file)[0]
        if sys.platform == "linux":
            flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)  # named since Python 3.13
            pages = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        else:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return np.frombuffer(pages, np.uint8, offset=file.tell()).reshape(shape)


def _meta(directory: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
        if isinstance(meta, dict) and {"count", "total", "classes", "images", "labels"} <= meta.keys():
            return meta
    return None


def _sound(directory: Path, meta: dict[str, Any]) -> bool:
    """Whether both files are as they were written. Their bytes are read again only when size or time has changed."""
    try:
        now = {name: _stamp(directory / f"{name}.npy") for name in ("images", "labels")}
        changed = [name for name, stamp in now.items() if stamp != {k: meta[name][k] for k in stamp}]
        if any(_checksum(directory / f"{name}.npy") != meta[name]["sha256"] for name in changed):
            return False
    except (OSError, KeyError, TypeError):
        return False
    if changed:  # a copied cache: note the new times, where that is allowed
        with contextlib.suppress(OSError):
            _write_meta(directory, meta | {name: meta[name] | now[name] for name in now})
    return True


def _build(home: Path, config: Data, source: Source, split: Split, mark: str) -> Arrays:
    for left_over in home.glob(".building-*"):  # by a builder that was killed: the lock says that none is alive
        shutil.rmtree(left_over)
    listing = LISTERS[source.kind](source, split)
    count, side = wanted(config, split, len(listing)), stored_side(config, source)
    _require_room(home, count * 3 * side * side)
    draft = home / f".building-{split}-{os.getpid()}"
    draft.mkdir()
    try:
        sums = {"images": _write_images(draft / "images.npy", listing, count, side, f"decoding {config.name} {split}")}
        np.save(draft / "labels.npy", listing.labels[:count])
        sums["labels"] = _checksum(draft / "labels.npy")
        meta = {"format": FORMAT, "fingerprint": mark, "count": count, "total": len(listing), "side": side, "classes": listing.classes}
        files = {name: {"sha256": digest, **_stamp(draft / f"{name}.npy")} for name, digest in sums.items()}
        _write_meta(draft, meta | {"pillow": PIL.__version__} | files)
        if fingerprint(config) != mark:
            raise DataError(f"{source.place} changed while it was being decoded. Run again when nothing writes there.")
        _publish(draft, home / f"{split}-{count}")
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    arrays = _ready(home, split, config.limit(split))
    if arrays is None:
        raise DataError(f"the cache {home} was changed while it was written. Delete it and run again.")
    return arrays


def _write_images(path: Path, listing: Listing, count: int, side: int, title: str) -> str:
    """Decode `count` images into an array file, in order; its checksum. Written, not mapped: a full disk is an error then."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (count, 3, side, side)})
    digest = hashlib.sha256(header.getvalue())
    failures: list[Failure] = []
    with path.open("wb") as file, tqdm(total=count, desc=title, unit="img", file=sys.stderr, disable=None) as progress:
        file.write(header.getvalue())
        for image in decoded(listing.first(count), side):
            if isinstance(image, Failure):
                failures.append(image)
                if len(failures) == MOST_FAILURES:
                    break
            else:
                block = image.tobytes()
                digest.update(block)
                file.write(block)
            progress.update()
        file.flush()
        os.fsync(file.fileno())
    if failures:
        raise DataError(_unreadable(failures, title))
    return digest.hexdigest()


def _unreadable(failures: list[Failure], title: str) -> str:
    named = "; ".join(map(str, itertools.islice(failures, 5)))
    more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
    many = f"{len(failures)} images cannot be read" if len(failures) > 1 else "an image cannot be read"
    return f"{title}: {many}: {named}{more}. Get the dataset again, or remove what is broken; `ablatrix data check` lists all."


def _publish(draft: Path, final: Path) -> None:
    if final.exists():  # damaged; whoever has it mapped keeps the old file
        aside = final.with_name(f".building-damaged-{os.getpid()}")
        final.replace(aside)
        shutil.rmtree(aside)
    draft.replace(final)


def _require_room(home: Path, needed: int) -> None:
    free = shutil.disk_usage(home).free
    if needed > free:
        raise DataError(
            f"the decoded images need {needed / 1e9:.1f} GB, but {home} has {free / 1e9:.1f} GB free. "
            "Set ABLATRIX_CACHE to a larger disk, or limit data.train_images and data.test_images."
        )


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home.with_name(f"{home.name}.lock")):  # the kernel releases it when its holder dies
        yield


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_meta(directory: Path, meta: dict[str, Any]) -> None:
    draft = directory / f"meta.{os.getpid()}"
    draft.write_text(json.dumps(meta, indent=1), encoding="utf-8")
    draft.replace(directory / "meta.json")
