"""Download datasets, or say how to obtain them; and check what is there."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import shutil
import socket
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ablatrix_models.data.check import CheckReport, check
from ablatrix_models.data.layout import find
from ablatrix_models.data.places import DataError, data_root, locate
from ablatrix_models.recipe.data import DATASETS, Data
from ablatrix_models.recipe.fields import nearest

__all__ = ["CheckReport", "check", "get"]

SILENCE_S = 60  # a server that says nothing for this long is given up

BY_HAND = {
    "digits": "come with scikit-learn: `pip install scikit-learn`",
    "tiny-imagenet": "must be unpacked by hand: http://cs231n.stanford.edu/tiny-imagenet-200.zip into {place}",
    "imagenet-1k": (
        "needs an account that has accepted its terms: from https://image-net.org sort the images into "
        "{place}/train/<class>/ and {place}/val/<class>/, "
        "or put the parquet files of https://huggingface.co/datasets/ILSVRC/imagenet-1k into {place}/data"
    ),
    "folder": "names a layout, not a dataset: put images into train/<class>/ and test/<class>/, and set data.path",
    "parquet": (
        "names a layout, not a dataset: put train-00000-of-00001.parquet and test-00000-of-00001.parquet into a directory, "
        "and set data.path"
    ),
}


def get(name: str, root: Path, progress: bool | None = None) -> Path:
    """Download the dataset `name` into `root`/`name` and return that directory; at once where it is already complete.

    progress: show the download on stderr; None means only on a terminal. An interrupted download leaves nothing
    that looks complete. Raises DataError where the network, the disk or the files fail, or a dataset must be had by hand.
    """
    place = root / name
    if name not in DATASETS:
        raise DataError(f"{name!r} is no known dataset. {nearest(name, list(DATASETS))}")
    if name == "digits":
        return find(Data(name)).place
    packaged = locate(Data(name)) if root == data_root() else None  # Debian keeps Fashion-MNIST elsewhere
    place = packaged or place
    if place.is_dir() and any(place.iterdir()):
        find(Data(name, str(place)))
        return place
    if name in BY_HAND:
        raise DataError(f"{name!r} {BY_HAND[name].format(place=place)}. Then `ablatrix data check {name}`.")
    draft = root / f".{name}.getting-{os.getpid()}"
    try:
        with _told(progress), _silence_limit():
            draft.mkdir(parents=True)
            _downloads()[name](draft)
        for archive in (*draft.glob("*.tar.gz"), *draft.glob("*.tgz")):
            archive.unlink()
        draft.replace(place)
    except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{name!r} could not be downloaded into {place} ({reason}). Check network and disk and run again, or copy it there."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    find(Data(name, str(place)))
    return place


def _downloads() -> dict[str, Callable[[Path], object]]:
    """torchvision's downloads, which compare each archive with a known checksum before it is unpacked."""
    from torchvision import datasets  # slow to import, and only needed here

    return {
        "cifar10": lambda place: datasets.CIFAR10(place, download=True),
        "cifar100": lambda place: datasets.CIFAR100(place, download=True),
        "fashion-mnist": lambda place: datasets.FashionMNIST(place, download=True),
        "imagenette": lambda place: datasets.Imagenette(place, download=True),
    }


@contextlib.contextmanager
def _told(progress: bool | None) -> Iterator[None]:
    """torchvision always draws its bar on stderr; keep it from there where it is not wanted."""
    if progress or (progress is None and sys.stderr.isatty()):
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield


@contextlib.contextmanager
def _silence_limit() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
