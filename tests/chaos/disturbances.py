"""What can befall a sweep. Each is real: SIGKILL, a file system without space, bytes in files."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from chaos.weather import PATIENCE_S, SWEEP, TRIALS, Weather


def processes(driver: subprocess.Popen[bytes], words: tuple[str, ...]) -> list[psutil.Process]:
    """Descendants of the driver's Ray whose command line or title holds one of `words`."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(word in " ".join(process.cmdline()) for word in words):
                found.append(process)
    return found


def trial_processes(weather: Weather) -> list[int]:
    """Process ids of the trials at work, as their statuses tell."""
    found = []
    for trial in weather.store.trials():
        with contextlib.suppress(Exception):
            status = trial.status()
            if status and status.state == "running" and trial.result() is None and psutil.pid_exists(status.pid):
                found.append(status.pid)
    return found


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def kill_trial(weather: Weather, driver: subprocess.Popen[bytes]) -> None:
    if weather.wait_until(driver, weather.moment()):
        running = trial_processes(weather)
        if running and kill(weather.random.choice(running)):
            weather.say("killed a trial's process")


def kill_worker(weather: Weather, driver: subprocess.Popen[bytes]) -> None:
    """A Ray worker dies with everything below it."""
    if weather.wait_until(driver, weather.moment()):
        workers = processes(driver, ("ray::ImplicitFunc", "ray::run_order"))
        if workers:
            chosen = weather.random.choice(workers)
            below = chosen.children(recursive=True)
            if kill(chosen.pid):
                weather.say(f"killed a worker, with {len(below)} processes below it")


def kill_driver(weather: Weather, driver: subprocess.Popen[bytes]) -> None:
    if weather.wait_until(driver, weather.moment(0.05)):
        weather.remember_finished()
        driver.kill()
        driver.wait()
        weather.say("killed the driver")


def spoil_records(weather: Weather, driver: subprocess.Popen[bytes]) -> None:
    """The driver dies, and last lines of records are torn, as after a loss of power."""
    if not weather.wait_until(driver, weather.moment(0.2)):
        return
    weather.remember_finished()
    for process in [*psutil.Process(driver.pid).children(recursive=True), psutil.Process(driver.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    driver.wait()
    records = [trial.metrics_file for trial in weather.store.trials() if trial.metrics_file.exists() and trial.metrics_file.stat().st_size]
    for record in weather.random.sample(records, min(3, len(records))):
        spoil(record, weather.random)
    weather.say(f"killed everything and spoilt the last line of {min(3, len(records))} records")


def spoil(record: Path, chance: random.Random) -> None:
    content = record.read_bytes()
    last = content.splitlines(keepends=True)[-1]
    kept = content[: len(content) - len(last)]
    spoilt = {
        "cut": last[: chance.randrange(len(last))],
        "zeros": b"\0" * len(last),
        "bits": bytes(byte ^ 0x55 for byte in last[:-1]) + b"\n",
        "more": last + b'{"epoch": 99, "st',
    }[chance.choice(["cut", "zeros", "bits", "more"])]
    record.write_bytes(kept + spoilt)


def change_file(weather: Weather, driver: subprocess.Popen[bytes]) -> None:
    """The sweep is stopped by Ctrl-C, its file edited, run a while, and put back."""
    if not weather.wait_until(driver, weather.moment(0.05, 0.5)):
        return
    weather.remember_finished()
    driver.send_signal(signal.SIGINT)
    code = weather.end(driver)
    assert code in (130, 0, 6), f"Ctrl-C ended with exit {code}"  # 6: Ray did not start in time, on a busy machine
    changed = SWEEP.replace("seeds: 3", "seeds: [0, 1, 2, 3]").replace("bad weather", "changed weather").replace("[2, 4]", "[4, 2]")
    weather.file.write_text(changed)
    second = weather.start()
    weather.wait_until(second, weather.lines() + weather.random.randrange(1, 12))
    second.send_signal(signal.SIGINT)
    code = weather.end(second)
    assert code in (130, 0, 6), f"Ctrl-C ended with exit {code}"  # 6: Ray did not start in time, on a busy machine
    weather.file.write_text(SWEEP)
    weather.say("pressed Ctrl-C, changed the file, ran it, pressed Ctrl-C, and put the file back")


LOCAL = (kill_trial, kill_worker, kill_driver, spoil_records, change_file)


def local(weather: Weather) -> None:
    """One to three disturbances of a run on this machine."""
    driver = weather.start()
    for disturbance in weather.random.sample(LOCAL, weather.random.randrange(1, 4)):
        if driver.poll() is not None:
            weather.remember_finished()
            driver = weather.start()
        disturbance(weather, driver)
    if driver.poll() is None:
        code = weather.end(driver)
        assert code == 0, f"what was disturbed while its driver lived ended with exit {code}"


def own_ray(weather: Weather) -> None:
    """The run's own Ray loses its daemon or its head, or SIGTERM comes to the whole process group, Ray's processes with it."""
    driver = weather.start()
    chosen = weather.random.choice(["raylet", "gcs_server", "SIGTERM"])
    if weather.wait_until(driver, weather.moment(0.05, 0.7)):
        weather.remember_finished()
        if chosen == "SIGTERM":
            os.killpg(driver.pid, signal.SIGTERM)
            weather.say("sent SIGTERM to the whole process group")
        else:
            for process in processes(driver, (f"/{chosen}",)):
                if process.name() == chosen and kill(process.pid):
                    weather.say(f"killed the {chosen} of the run's own Ray")
    code, expected = weather.end(driver), {"raylet": 0, "gcs_server": 6, "SIGTERM": 130}[chosen]
    assert code in (expected, 0), f"{chosen}: the run ended with exit {code}"  # 0: all was done by then


def full_disk(weather: Weather) -> None:
    """The store's file system runs full in the middle of the sweep; then there is room again."""
    weather.store.root.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(weather.store.root)], check=True)
    driver = weather.start()
    if weather.wait_until(driver, weather.moment(0.05, 0.6)):
        weather.remember_finished()
        with contextlib.suppress(OSError), (weather.store.root / "ballast").open("wb") as ballast:
            while True:
                ballast.write(b"\0" * 2**16)
                ballast.flush()
        code = weather.end(driver)
        weather.say(f"filled the disk (exit {code})")
        assert code in (0, 1, 3, 6), f"a full disk ended with exit {code}"
        (weather.store.root / "ballast").unlink()


def kill_node(weather: Weather) -> None:
    """Two nodes of Ray's own test cluster; the second one's raylet is killed."""
    # Ray reads the token once, when it is imported, so all rounds of one process have the same.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_worker_niceness": "0"}
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
        weather.options = ["--address", str(cluster.address)]
        driver = weather.start()
        if weather.wait_until(driver, weather.moment(0.05)):
            cluster.remove_node(second, allow_graceful=False)
            weather.say("killed the second node's raylet")
        code = weather.end(driver)
        assert code == 0, f"the run on the node that is left ended with exit {code}"
        weather.options = []
    finally:
        cluster.shutdown()


def kill_mlflow(weather: Weather) -> None:
    """The MLflow server dies and comes back later; the mirror must catch up."""
    port = free_port()
    weather.options = ["--tracking-uri", f"http://127.0.0.1:{port}"]
    server = start_mlflow(weather, port)
    driver = weather.start()
    try:
        if weather.wait_until(driver, weather.moment(0.05, 0.7)):
            kill_group(server)
            weather.say("killed the MLflow server")
        code = weather.end(driver)
        assert code == 0, f"without MLflow the sweep ended with exit {code}"
    finally:
        kill_group(server)
    server = start_mlflow(weather, port)
    try:
        command = [sys.executable, "-m", "ablatrix", "sync", "--store", str(weather.store.root), "--json", *weather.options]
        synced = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert synced.returncode == 0, synced.stderr
        progress = json.loads(synced.stdout)["sweeps"]["storm"]
        assert progress["mirrored"] == TRIALS, f"MLflow has {progress['mirrored']} of {TRIALS} trials"
    finally:
        kill_group(server)
    weather.options = []


def start_mlflow(weather: Weather, port: int) -> subprocess.Popen[bytes]:
    if weather.pristine and not (weather.place / "mlflow.db").exists():
        shutil.copyfile(weather.pristine, weather.place / "mlflow.db")
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{weather.place}/mlflow.db", "--workers", "1"]
    command += ["--artifacts-destination", str(weather.place / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    with (weather.place / "mlflow.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, process_group=0, env=environment)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return server
        time.sleep(0.2)
    raise RuntimeError("MLflow's server did not start")


def kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


KINDS: dict[str, Callable[[Weather], None]] = {
    "local": local, "own": own_ray, "node": kill_node, "mlflow": kill_mlflow, "disk": full_disk,
}  # fmt: skip
