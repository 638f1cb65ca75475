"""What an attempt runs on: code, packages, host, devices. A trial writes it down at its start, as `environment.json`."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path

from ablatrix.records import Environment

# Those that can change a result, and our own.
PACKAGES = ("ablatrix", "numpy", "pillow", "pyarrow", "scikit-learn", "timm", "torch", "torchvision")
GIT_S = 10.0


def environment(attempt: int, gpus: bool) -> Environment:
    """This process's environment; `gpus`: whether the trial was given any."""
    commit, dirty = source_version()
    return Environment(
        attempt, socket.gethostname(), _cpu_name(), os.cpu_count() or 1, _gpu_names() if gpus else [], commit, dirty, versions()
    )


def source_version() -> tuple[str | None, bool | None]:
    """The commit of the code that runs, and whether its tree was changed since; (None, None) outside a checkout."""
    try:
        # Installed into a user's own project, we lie in a repository that says nothing of our code.
        if not _git("ls-files", Path(__file__).name):
            return None, None
        lines = _git("status", "--porcelain=v2", "--branch").splitlines()
    except (OSError, subprocess.SubprocessError):
        return None, None
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), None)
    return (commit, any(not line.startswith("#") for line in lines)) if commit and commit != "(initial)" else (None, None)


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), "--no-optional-locks", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=GIT_S, check=True).stdout


def versions() -> dict[str, str]:
    """Python, the packages that can change a result, and CUDA where torch was built for it."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | _torch_versions()


def _torch_versions() -> dict[str, str]:
    """Torch's own word on its build, which its package's version leaves out."""
    import torch

    built = {"torch": str(torch.__version__)}
    return built | {"cuda": torch.version.cuda} if torch.version.cuda else built


def _gpu_names() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
