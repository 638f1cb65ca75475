"""Hugging Face's parquet layout for images: shards of rows with an encoded image and a label, in the files' order."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ablatrix_models.data.layout import Source, Split
from ablatrix_models.data.listing import Encoded, Listing
from ablatrix_models.data.places import DataError

IMAGE_COLUMNS = ("image", "img", "images", "picture")
LABEL_COLUMNS = ("label", "fine_label", "labels", "fine_labels")
ROWS_AT_ONCE = 64


def list_parquet(source: Source, split: Split) -> Listing:
    """The split's rows in their order; class names from the `huggingface` metadata, else the labels as text.

    Raises DataError naming file and row where a column is missing, or a label is empty or no class.
    """
    names = _class_names(source.parts["train"][0])
    labels = {part: _labels(source.parts[part], len(names)) for part in ("train", "test")}
    classes = names or tuple(str(n) for n in range(1 + max(int(part.max()) for part in labels.values())))
    shards = source.parts[split]
    return Listing(labels[split], classes, lambda count: _images(shards, count))


def _images(shards: Sequence[Path], count: int) -> Iterator[Encoded]:
    left = count
    for path in shards:
        for row, payload in enumerate(_shard_images(path)):
            if left == 0:
                return
            left -= 1
            yield f"{path} row {row}", payload


def _shard_images(path: Path) -> Iterator[bytes | None]:
    with _reading(path) as file:
        column = _column(path, file.schema_arrow, IMAGE_COLUMNS)
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[column]):
            images = batch.column(0)
            if pa.types.is_struct(images.type):
                images = images.field("bytes")
            yield from images.to_pylist()


def _labels(shards: Sequence[Path], classes: int) -> np.ndarray:
    found = np.concatenate([_shard_labels(path, classes) for path in shards])
    if not len(found):
        raise DataError(f"{shards[0]} holds no row. Get the dataset again.")
    return found


def _shard_labels(path: Path, classes: int) -> np.ndarray:
    with _reading(path) as file:
        name = _column(path, file.schema_arrow, LABEL_COLUMNS)
        column = file.read(columns=[name]).column(0)
    if not pa.types.is_integer(column.type):
        raise DataError(f"{path}: the column {name!r} is of type {column.type}, but labels must be integers.")
    labels = column.fill_null(-1).to_numpy().astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= (classes or np.inf)))
    if len(wrong):
        known = f"the {classes} classes that the metadata names" if classes else "0 or more"
        raise DataError(
            f"{path} row {wrong[0]}: the label is {labels[wrong[0]]} or empty, not one of {known}. An unlabelled split cannot be used."
        )
    return labels


def _class_names(path: Path) -> tuple[str, ...]:
    with _reading(path) as file:
        schema = file.schema_arrow
    features: Any = {}
    with contextlib.suppress(KeyError, ValueError, TypeError):
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    names = (features.get(_column(path, schema, LABEL_COLUMNS)) or {}).get("names", ())
    if isinstance(names, dict):  # as older versions of `datasets` wrote them: by index, as text
        names = [names[key] for key in sorted(names, key=int)]
    return tuple(map(str, names))


def _column(path: Path, schema: pa.Schema, spellings: Sequence[str]) -> str:
    name = next((s for s in spellings if s in schema.names), None)
    if name is None:
        raise DataError(
            f"{path} has the columns {', '.join(schema.names)}, but one of {', '.join(spellings)} is needed. Rename the column."
        )
    if spellings is IMAGE_COLUMNS:
        kind = schema.field(name).type
        binary = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
        if not (pa.types.is_binary(binary) or pa.types.is_large_binary(binary)):
            raise DataError(
                f"{path}: the column {name!r} is of type {kind}, but encoded images are needed: struct{{bytes, path}} or binary."
            )
    return name


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet ({error}). Get this file again.") from error
