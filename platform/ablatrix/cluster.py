"""A Ray to run on: our own (`local_ray`) or a cluster that somebody started. With `local_ray` and `runner`, the only importer of ray."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablatrix.errors import Refused, Unreachable
from ablatrix.job import Job, is_loopback
from ablatrix.local_ray import QUIET, START_S, end, start
from ablatrix.occupancy import Occupancy
from ablatrix.packing import bundle, check_fits, room, shortage
from ablatrix.schema import Resources
from ablatrix.wheel import build_wheel

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory

PROBE_S = 3.0
YOUNG_S = 60.0  # a head answers before it can take jobs
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set where we are a Ray job, which has brought our code along
ROOM_S = 15.0  # what a group of workers waits in Ray Train for its places, before its trial is given out anew
SETTINGS = {
    "RAY_memory_monitor_refresh_ms": "0",  # its out-of-memory kill takes the whole fit with it
    "RAY_worker_niceness": "0",  # at Ray's 15 a trial starves beside any other busy process
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_server_port_wait_time_s": f"{START_S:.0f}",
    "RAY_raylet_start_wait_time_s": f"{START_S:.0f}",
    "RAY_agent_register_timeout_ms": f"{1000 * START_S:.0f}",
    "RAY_worker_register_timeout_seconds": f"{START_S:.0f}",
    "RAY_raylet_client_connect_timeout_milliseconds": "50",  # a daemon that asks its own store too early waits a second else
    "RAY_raylet_client_num_connect_attempts": "200",
    "RAY_prestart_worker_first_driver": "0",  # Tune asks for workers with variables of its own, and takes none of those
    "RAY_ENABLE_AUTO_CONNECT": "0",  # Tune would start a Ray by itself, and as it likes, when its own is gone
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it would print twice what a worker prints to its trial's log
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{ROOM_S:.0f}",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial's last word is its exit code
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def preload() -> None:
    """Import what a fit needs, which takes two seconds."""
    _set_up()
    importlib.import_module("ray.tune")
    gc.freeze()  # else the interpreter's end goes through all of it once more, for a third of a second


def _set_up() -> None:
    """Ray reads some of them once, when it is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def connected(address: str | None, cpus: int, resources: Resources | None = None) -> Iterator[str | None]:
    """A Ray for the time of the block; yields HOST:PORT of its dashboard, where it has one.

    Without `address` a private one of `cpus` cores, gone at the end. Raises Unreachable where there is none, and Refused where
    it is not safe to use, or no node can ever hold a trial of `resources`.
    """
    _set_up()
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it calls errors we judge, and tell at the end
    try:
        with _signals_kept():
            context = start(cpus) if address is None else _join(address)
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
        end()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray's native code takes SIGTERM for a crash and ends the process on it, where ours saves and stops."""
    system, kept = ctypes.CDLL(None), ctypes.create_string_buffer(1024)  # a `struct sigaction`, whatever is in it
    system.sigaction(signal.SIGTERM, None, kept)
    try:
        yield
    finally:
        system.sigaction(signal.SIGTERM, kept, None)


def _join(address: str) -> Any:
    import ray

    _check_address(address)
    with tempfile.TemporaryDirectory(prefix="ablatrix-wheel-") as place:  # Ray has taken it up when it is connected
        brought = None if IN_JOB in os.environ else {"py_modules": [str(build_wheel(Path(place)))]}
        return ray.init(address, runtime_env=brought, **QUIET)


def request(resources: Resources, share: float = 1.0) -> PlacementGroupFactory:
    """What Ray is to set aside for one trial. A larger share keeps neighbours away; the trial's threads stay as they are."""
    from ray.tune import PlacementGroupFactory

    if resources.workers > 1:  # Ray Train sets the workers' part aside; what waits for them needs next to nothing
        return PlacementGroupFactory([{"memory": 1e6}])
    labels = {"bundle_label_selector": [dict(resources.labels)]} if resources.labels else {}
    return PlacementGroupFactory([bundle(resources, share)], strategy="PACK", **labels)


def on_workers(work: Callable[[dict[str, Any]], None], config: dict[str, Any], resources: Resources, share: float = 1.0) -> None:
    """Run `work` on `resources.workers` of Ray Train's workers within one process group: NCCL on GPUs, gloo without.

    Raises Ray's WorkerGroupError when one of them raises or is lost; the others are ended then. Raises its ControllerError when
    there was no room for them: left waiting, and then ended from outside, they may keep their places for ever.
    """
    _set_up()  # what Ray Train reads here
    from ray.train import FailureConfig, RunConfig, ScalingConfig
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
            run_config=RunConfig(name="together", storage_path=scratch, failure_config=FailureConfig(controller_failure_limit=0)),
        ).fit()


def free_lost_places() -> None:
    """Give back the places of groups of workers of this run that nobody has any more.

    Ray Train forgets those of a group that fails between its workers' start and its training, as when they cannot reach each
    other, and its own cleaner needs a dashboard. Ray itself takes them back when the whole job ends.
    """
    import ray
    from ray._private.state import state
    from ray._raylet import PlacementGroupID
    from ray.core.generated import gcs_pb2
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    record: Any = gcs_pb2.PlacementGroupTableData  # pyright: ignore[reportAttributeAccessIssue] - made when it is imported
    job = ray.get_runtime_context().get_job_id()
    for data in state._connect_and_get_accessor().get_placement_group_table():  # the public table does not say who made a group
        group = record.FromString(data)
        ours = group.creator_job_id.hex() == job and not group.is_detached and group.state != record.REMOVED
        if ours and group.creator_actor_dead and group.creator_actor_id.strip(b"\xff"):  # without an actor the driver made it
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))


def fitting_share(resources: Resources, wanted: float) -> float:
    """The share that a trial can get on the connected Ray: the one wanted, or the usual one where no node is large enough."""
    import ray

    return wanted if wanted == 1.0 or room(resources, wanted, ray.nodes()) >= resources.workers else 1.0


def free_slots(resources: Resources) -> int:
    """How many trials the connected Ray could hold, were it empty; at least 1."""
    import ray

    return max(1, room(resources, 1.0, ray.nodes()) // resources.workers)


def head() -> str:
    """HOST:PORT of the connected Ray's head."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def answers(address: str) -> bool:
    """Whether anybody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port)), timeout=PROBE_S).close()
        return True
    return False


def in_use(dashboard: str | None, resources: Resources) -> Occupancy:
    """What the connected Ray has, what trials take of it now, and what one of `resources` lacks of it."""
    import ray

    total, free, nodes = ray.cluster_resources(), ray.available_resources(), ray.nodes()
    hidden = (":", "object_store", "_group_")
    shown: dict[str, float] = {name: float(amount) for name, amount in total.items() if not any(part in name for part in hidden)}
    used = {name: round(amount - free.get(name, 0.0), 3) for name, amount in shown.items()}
    alive, place = sum(node["Alive"] for node in nodes), f"http://{dashboard}" if dashboard else None
    return Occupancy(time.time(), alive, shown, used, place, shortage(resources, nodes))


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
    for name in ("ray", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="ablatrix-wheel-") as place:
        wheel = build_wheel(Path(place))
        brought = {"working_dir": str(directory), "py_modules": [str(wheel)], "env_vars": {**SETTINGS, **environment}}
        _send_job(job, entrypoint, brought)


def _send_job(job: Job, entrypoint: str, brought: dict[str, Any]) -> None:
    from ray.job_submission import JobSubmissionClient

    deadline = time.monotonic() + YOUNG_S
    while True:
        try:
            JobSubmissionClient(job.server).submit_job(entrypoint=entrypoint, submission_id=job.id, runtime_env=brought)
            return
        except (Exception, SystemExit) as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise Unreachable(f"the Ray cluster at {job.server} did not take the job: {error}") from error
        time.sleep(1.0)


def probe() -> str:
    """Start a local Ray and end it again; its version. Raises Unreachable when it does not start."""
    with connected(None, 1):
        import ray

        return str(ray.__version__)
