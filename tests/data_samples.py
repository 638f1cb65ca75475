"""Tiny datasets in every layout, written with real encoders, for the tests of `ablatrix_models.data`."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

REAL = Path(os.environ.get("ABLATRIX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def real_dataset(name: str) -> Path:
    """The directory of a real dataset; skips the test where it is absent."""
    if not (REAL / name).is_dir():
        pytest.skip(f"no real images {name}: set ABLATRIX_DATA to the directory that holds {name}/")
    return REAL / name


def pixels(seed: int, height: int = 6, width: int = 6) -> np.ndarray:
    """(height, width, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def chw(array: np.ndarray) -> torch.Tensor:
    """(height, width, 3) as (3, height, width)."""
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def encoded(array: np.ndarray, format: str = "PNG", mode: str | None = None) -> bytes:
    """An (height, width, 3) array as an image file."""
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, format)
    return buffer.getvalue()


def write_folder(root: Path, *, classes: tuple[str, ...] = ("cat", "dog"), train: int = 4, test: int = 2, test_name: str = "test") -> Path:
    """`train` and `test` images of each class as lossless PNG; image i of class c of a split has its own seed."""
    for split, count, offset in (("train", train, 0), (test_name, test, 500)):
        for label, name in enumerate(classes):
            directory = root / split / name
            directory.mkdir(parents=True)
            for number in range(count):
                (directory / f"{number}.png").write_bytes(encoded(pixels(offset + 100 * label + number)))
    return root


def write_parquet(
    root: Path,
    *,
    train: Sequence[tuple[bytes | None, int]] | None = None,
    test: Sequence[tuple[bytes | None, int]] | None = None,
    shards: int = 1,
    image: str = "image",
    label: str = "label",
    names: object = ("cat", "dog"),
) -> Path:
    """Rows of (encoded image, label) in Hugging Face's layout; by default six train and two test rows."""
    root.mkdir(parents=True, exist_ok=True)
    train = train if train is not None else [(encoded(pixels(n)), n % 2) for n in range(6)]
    test = test if test is not None else [(encoded(pixels(500 + n)), n % 2) for n in range(2)]
    features = {label: {"names": names, "_type": "ClassLabel"}} if names else {}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for split, rows, parts in (("train", train, shards), ("test", test, 1)):
        for shard in range(parts):
            own = rows[shard::parts]
            columns = {
                image: pa.array([{"bytes": b, "path": None} for b, _ in own], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                label: pa.array([n for _, n in own], pa.int64()),
            }
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), root / f"{split}-{shard:05d}-of-{parts:05d}.parquet")
    return root


def write_idx(root: Path, *, packed: bool = False, train: int = 20, test: int = 10) -> Path:
    """Fashion-MNIST's four files, 4 x 5 pixels, labels 0..9 in blocks."""
    root.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        grey = pixels(count, 4 * count, 5)[:, :, 0].reshape(count, 4, 5)
        labels = np.sort(np.arange(count) % 10).astype(np.uint8)
        files = {
            f"{prefix}-images-idx3-ubyte": struct.pack(">BBBBIII", 0, 0, 8, 3, count, 4, 5) + grey.tobytes(),
            f"{prefix}-labels-idx1-ubyte": struct.pack(">BBBBI", 0, 0, 8, 1, count) + labels.tobytes(),
        }
        for name, content in files.items():
            if packed:
                (root / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (root / name).write_bytes(content)
    return root


def write_cifar100(root: Path, *, train: int = 6, test: int = 3) -> Path:
    """CIFAR-100's three pickles, opcode by opcode as Python 2 and its numpy wrote them; labels in blocks of three classes."""
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("test", test)):
        data = pixels(count, 32 * count, 32).reshape(count, 3072)
        labels = sorted(n % 3 for n in range(count))
        (root / split).write_bytes(python2_batch(data, labels))
    names = b"".join(_string(name) for name in (b"apple", b"bear", b"chair"))
    (root / "meta").write_bytes(b"\x80\x02}" + _string(b"fine_label_names") + b"](" + names + b"es.")
    return root


def python2_batch(data: np.ndarray, labels: list[int], dtype: bytes = b"u1") -> bytes:
    """{'data': (n, 3072) uint8, 'fine_labels': list} as a protocol 2 pickle of Python 2."""
    rows, columns = data.shape
    rebuilt = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _string(b"b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + _string(dtype) + b"K\x00K\x01\x87R(K\x03" + _string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = data.tobytes()
    state = (
        b"(K\x01" + _integer(rows) + _integer(columns) + b"\x86" + kind + b"\x89" + b"T" + struct.pack("<I", len(content)) + content + b"tb"
    )
    return b"\x80\x02}(" + _string(b"data") + rebuilt + state + _string(b"fine_labels") + b"](" + b"".join(map(_integer, labels)) + b"eu."


def _string(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def _integer(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)
