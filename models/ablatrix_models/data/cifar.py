"""CIFAR's Python batches (Krizhevsky 2009), read without giving pickle the power to run code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ablatrix_models.data.arrays import Arrays
from ablatrix_models.data.layout import Source, Split
from ablatrix_models.data.places import DataError

BYTE_TYPES = ("u1", "|u1", "uint8")


class _BatchUnpickler(pickle.Unpickler):
    """Safe because of every name that a pickle may look up, only the four that rebuild a byte array are granted."""

    def find_class(self, module: str, name: str) -> Any:
        numpy_array = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": _byte_type}
        if module.split(".")[0] == "numpy" and name in numpy_array:
            return numpy_array[name]
        if (module, name) == ("_codecs", "encode"):  # how newer pickles write bytes in the old protocol
            return _bytes
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR batch does")


def read_cifar(source: Source, split: Split) -> Arrays:
    """The split's 32 x 32 images, with fine labels for CIFAR-100; classes take turns."""
    batches = [_batch(path) for path in source.parts[split]]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    classes = _classes(source.common[0])
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise DataError(
            f"{source.place} has labels from {labels.min()} to {labels.max()}, but names {len(classes)} classes. Get the dataset again."
        )
    return Arrays(images, labels, classes).interleaved()


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = _unpickled(path)
    try:
        labels = np.asarray(batch["labels"] if "labels" in batch else batch["fine_labels"], dtype=np.int64)
        return np.asarray(batch["data"], dtype=np.uint8).reshape(len(labels), 3, 32, 32), labels
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} is no CIFAR batch: it needs 'data' of 3,072 bytes a row, and 'labels' or 'fine_labels' ({error!r})."
        ) from error


def _classes(path: Path) -> tuple[str, ...]:
    meta = _unpickled(path)
    names = meta["label_names"] if "label_names" in meta else meta.get("fine_label_names")
    if not isinstance(names, list):
        raise DataError(f"{path} names no classes: 'label_names' or 'fine_label_names' is missing. Get the dataset again.")
    return tuple(map(str, names))


def _unpickled(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            # latin1: the batches were written by Python 2, whose strings are bytes.
            loaded = _BatchUnpickler(stream, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises almost any type
        raise DataError(f"{path} cannot be read as a CIFAR batch ({error}). Get the dataset again.") from error
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds a {type(loaded).__name__}, but a CIFAR batch is a dictionary. Get the dataset again.")
    return loaded


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding!r}, not as latin1")
    return text.encode("latin1")


def _byte_type(spec: str, *_: object) -> np.dtype:
    if spec not in BYTE_TYPES:
        raise pickle.UnpicklingError(f"it holds an array of type {spec!r}, not of bytes")
    # numpy itself deprecates the 0/1 flags that the official files pass beside the type.
    return np.dtype(np.uint8)
