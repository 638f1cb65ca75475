"""What an attempt uses of its machine, sampled by its heartbeat into the trial's `system.jsonl`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil

from ablatrix.records import Usage, encode_usage

# Samples come with every heartbeat at first, later once in a hundredth of the attempt's age: a day of training leaves a few hundred.
THINNING = 0.01
MEGABYTE = 1e6


class UsageLog:
    """Appends to `file`. `worked_s`: seconds of work before this attempt, so that samples of all attempts stand in one order."""

    def __init__(self, file: Path, worked_s: float) -> None:
        self._file, self._worked_s = file, worked_s
        self._process = psutil.Process()
        self._began = self._looked = time.monotonic()
        self._cpu_s = self._cpu_seconds()
        self._next = 0.0
        psutil.cpu_percent()  # counts from here on

    def sample(self, last: bool = False) -> None:
        """Write one line, unless one was written a short while ago; `last` always writes."""
        now = time.monotonic()
        if now < self._next and not last:
            return
        self._next = now + THINNING * (now - self._began)
        line = encode_usage(Usage(self._worked_s + now - self._began, time.time(), self._values(now)))
        with self._file.open("ab") as file:
            if file.tell() and not self._ends_whole():
                file.write(b"\n")
            file.write(line.encode())

    def _ends_whole(self) -> bool:
        """Whether the last line was written to its end; a kill may have torn it off."""
        with self._file.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _values(self, now: float) -> dict[str, float]:
        """`cpu_percent` and `memory_mb` are this process's (100 = one core), `machine_...` everybody's."""
        cpu_s = self._cpu_seconds()
        share = 100 * (cpu_s - self._cpu_s) / max(now - self._looked, 1e-3)
        self._cpu_s, self._looked = cpu_s, now
        values = {"cpu_percent": share, "memory_mb": self._process.memory_info().rss / MEGABYTE}
        values |= {"machine_cpu_percent": psutil.cpu_percent(), "machine_memory_percent": psutil.virtual_memory().percent}
        return {name: round(value, 2) for name, value in (values | gpu_usage()).items()}

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


def gpu_usage() -> dict[str, float]:
    """What this process holds of its GPU, its peak, and how busy that GPU is; nothing where torch does not use one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    values = {"gpu_memory_mb": torch.cuda.memory_reserved() / MEGABYTE, "gpu_memory_peak_mb": torch.cuda.max_memory_allocated() / MEGABYTE}
    try:
        values["gpu_percent"] = float(torch.cuda.utilization())
    except Exception:  # NVML may be absent or forbidden; the rest still counts
        return values
    return values
