"""A Ray to run on: one of our own on this machine, or a cluster that somebody started. With `runner`, the only importer of ray."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablatrix.errors import Refused, Unreachable
from ablatrix.job import Job, is_loopback
from ablatrix.occupancy import Occupancy
from ablatrix.packing import bundle, check_fits, room
from ablatrix.schema import Resources
from ablatrix.wheel import build_wheel

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory

OBJECT_STORE_BYTES = 100 * 2**20  # trials pass nothing through it
PROBE_S = 3.0
STARTS = 3
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
YOUNG_S = 60.0  # a head answers before it can take jobs
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set where we are a Ray job, which has brought our code along
SETTINGS = {
    "RAY_memory_monitor_refresh_ms": "0",  # its out-of-memory kill takes the whole fit with it
    "RAY_worker_niceness": "0",  # at Ray's 15 a trial starves beside any other busy process
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial's last word is its exit code
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def connected(address: str | None, cpus: int, resources: Resources | None = None) -> Iterator[str | None]:
    """A Ray for the time of the block; yields HOST:PORT of its dashboard, where it has one.

    Without `address` a private one of `cpus` cores, gone at the end. Raises Unreachable where there is none, and Refused where
    it is not safe to use, or no node can ever hold a trial of `resources`.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it calls errors we judge, and tell at the end
    try:
        context = _own(cpus) if address is None else _join(address)
    except (Refused, Unreachable):
        raise
    except (Exception, SystemExit) as error:
        where = f"the Ray cluster at {address} cannot be used" if address else "Ray did not start"
        raise Unreachable(f"{where}: {error}. See `ablatrix doctor`.") from error
    try:
        if resources is not None:
            check_fits(resources, ray.nodes())
        yield context.dashboard_url or None
    finally:
        ray.shutdown()


def _own(cpus: int) -> Any:
    import ray

    for attempt in range(STARTS):
        try:
            context = ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **QUIET)
            _close_token_file()
            return context
        except Exception as error:
            # Ray waits for its own processes for half a minute, which a busy machine may take.
            if attempt == STARTS - 1 or "timed out" not in str(error):
                raise
            ray.shutdown()
    raise AssertionError


def _join(address: str) -> Any:
    import ray

    _check_address(address)
    return ray.init(address, runtime_env=None if IN_JOB in os.environ else {"py_modules": [str(build_wheel())]}, **QUIET)


def request(resources: Resources, share: float = 1.0) -> PlacementGroupFactory:
    """What Ray is to set aside for one trial. A larger share keeps neighbours away; the trial's threads stay as they are."""
    from ray.tune import PlacementGroupFactory

    if resources.workers > 1:  # Ray Train sets the workers' part aside; what waits for them needs next to nothing
        return PlacementGroupFactory([{"memory": 1e6}])
    labels = {"bundle_label_selector": [dict(resources.labels)]} if resources.labels else {}
    return PlacementGroupFactory([bundle(resources, share)], strategy="PACK", **labels)


def on_workers(work: Callable[[dict[str, Any]], None], config: dict[str, Any], resources: Resources, share: float = 1.0) -> None:
    """Run `work` on `resources.workers` of Ray Train's workers within one process group: NCCL on GPUs, gloo without.

    Raises Ray's WorkerGroupError when one of them raises or is lost; the others are ended then.
    """
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    scaling = ScalingConfig(
        num_workers=resources.workers,
        use_gpu=resources.gpus > 0,
        resources_per_worker=bundle(resources, share),
        placement_strategy="PACK",
        label_selector=dict(resources.labels) or None,
    )
    with tempfile.TemporaryDirectory(prefix="ablatrix-train-", ignore_cleanup_errors=True) as scratch:
        TorchTrainer(
            work,
            train_loop_config=config,
            scaling_config=scaling,
            torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo"),
            run_config=RunConfig(name="together", storage_path=scratch),
        ).fit()


def fitting_share(resources: Resources, wanted: float) -> float:
    """The share that a trial can get on the connected Ray: the one wanted, or the usual one where no node is large enough."""
    import ray

    return wanted if wanted == 1.0 or room(resources, wanted, ray.nodes()) >= resources.workers else 1.0


def free_slots(resources: Resources) -> int:
    """How many trials the connected Ray could hold, were it empty; at least 1."""
    import ray

    return max(1, room(resources, 1.0, ray.nodes()) // resources.workers)


def in_use(dashboard: str | None) -> Occupancy:
    """What the connected Ray has, and what trials take of it now."""
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    hidden = (":", "object_store", "_group_")
    shown: dict[str, float] = {name: float(amount) for name, amount in total.items() if not any(part in name for part in hidden)}
    used = {name: round(amount - free.get(name, 0.0), 3) for name, amount in shown.items()}
    return Occupancy(time.time(), sum(node["Alive"] for node in ray.nodes()), shown, used, f"http://{dashboard}" if dashboard else None)


def _check_address(address: str) -> None:
    """Raises Unreachable where nobody listens, which Ray itself finds out after minutes, and Refused where anybody could."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise Refused(f"the address {address!r} is no HOST:PORT of a Ray head, such as 10.0.0.1:6379.")
    if not is_loopback(host) and os.environ.get("RAY_AUTH_MODE") != "token":
        raise Refused(
            f"the Ray cluster at {address} would be used without token authentication, and whoever reaches it can run code on it. "
            "Start every node with RAY_AUTH_MODE=token, and set it here too with RAY_AUTH_TOKEN or ~/.ray/auth_token."
        )
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_S).close()
    except OSError as error:
        raise Unreachable(
            f"no Ray head answers at {address} ({error}). Start one with `ray start --head`, or leave --address out."
        ) from error


def submit_job(job: Job, entrypoint: str, directory: Path, environment: dict[str, str]) -> None:
    """Send `directory` and our own code to the job's cluster and have it run `entrypoint`; returns at once. Raises Unreachable."""
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    brought = {"working_dir": str(directory), "py_modules": [str(build_wheel())], "env_vars": {**SETTINGS, **environment}}
    deadline = time.monotonic() + YOUNG_S
    while True:
        try:
            JobSubmissionClient(job.server).submit_job(entrypoint=entrypoint, submission_id=job.id, runtime_env=brought)
            return
        except (Exception, SystemExit) as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise Unreachable(f"the Ray cluster at {job.server} did not take the job: {error}") from error
        time.sleep(1.0)


def _close_token_file() -> None:
    """Ray makes its token readable for all; who reads it can run code as this user."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    with contextlib.suppress(OSError):
        if token.stat().st_mode & 0o077 and token.stat().st_uid == os.getuid():
            token.chmod(0o600)


def probe() -> str:
    """Start a local Ray and end it again; its version. Raises Unreachable when it does not start."""
    with connected(None, 1):
        import ray

        return str(ray.__version__)
