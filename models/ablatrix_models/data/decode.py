"""Encoded images to square uint8 RGB, in parallel."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ablatrix_models.data.listing import Encoded

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")  # trying all that Pillow knows costs more than a small image
TASK_IMAGES = 16  # decoded by one thread at a time: handing over single small images costs more than decoding them
TASKS_AHEAD = 8  # per thread, that may be decoded before the reader asks


@dataclass(frozen=True)
class Failure:
    """An image that cannot be read: where it stands, and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where} ({self.reason})"


def decoded(encoded: Iterable[Encoded], side: int) -> Iterator[np.ndarray | Failure]:
    """Each image as (3, side, side) uint8, or why not, in order; on as many threads as this process may use.

    Threads serve because Pillow's codecs release the interpreter lock.
    """
    waiting = iter(encoded)
    threads = usable_cores()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        while window := list(itertools.islice(waiting, threads * TASKS_AHEAD * TASK_IMAGES)):
            tasks = [window[start : start + TASK_IMAGES] for start in range(0, len(window), TASK_IMAGES)]
            for images in pool.map(lambda task: [_attempt(item, side) for item in task], tasks):
                yield from images


def usable_cores() -> int:
    """Cores that this process may run on, which a cluster's scheduler may have set below the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pixel_size(payload: bytes | Path | None) -> tuple[int, int] | None:
    """(width, height) from the image's header; None where it cannot be read."""
    try:
        with _opened(payload) as image:
            return image.size
    except Exception:  # Pillow's codecs raise almost any type; decoding names the reason
        return None


def to_square(payload: bytes | Path | None, side: int) -> np.ndarray:
    """(3, side, side) uint8: RGB, the shorter side resized to `side`, bilinear with antialias, then the centre.

    The arithmetic of torchvision's Resize and CenterCrop on PIL images, so that a centre crop of the result equals the
    official evaluation's. As there, an alpha channel is dropped and a camera's orientation mark is ignored.
    """
    with _opened(payload) as image:
        picture = _rgb(image)
    width, height = picture.size
    if (width, height) != (side, side):
        wide, high = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
        left, top = round((wide - side) / 2), round((high - side) / 2)
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
    return np.asarray(picture).transpose(2, 0, 1)


def _attempt(item: Encoded, side: int) -> np.ndarray | Failure:
    where, payload = item
    try:
        return to_square(payload, side)
    except Exception as error:  # Pillow's codecs raise almost any type on damaged input
        return Failure(where, str(error).replace(where, "the file") or type(error).__name__)


def _opened(payload: bytes | Path | None) -> Image.Image:
    if not payload or (isinstance(payload, Path) and payload.stat().st_size == 0):
        raise ValueError("it is empty")
    try:
        return Image.open(io.BytesIO(payload) if isinstance(payload, bytes) else payload, formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"it is none of {', '.join(FORMATS)}, or its start is damaged") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to white
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
