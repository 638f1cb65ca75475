"""A process of this machine that has torch imported, and from which the trials of a run are forked.

It imports while Ray starts, once for all workers; a worker by itself would import when its first trial waits for it. A worker
that has no nursery, as on another machine of a cluster, forks from a server of its own (`slot`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablatrix.trial import Order, run

PRELOADED = ("torch", "ablatrix_models.pretrain", "ablatrix_models.data.load", "ablatrix.trial")
# Each worker has devices of its own, which the nursery cannot know. It leaves CUDA alone.
DEVICES = "CUDA_VISIBLE_DEVICES"
BIRTH_S = 120.0  # the first waits for the imports, on a busy machine
END_S = 10.0


@contextmanager
def nursery(threads: int, log: Path) -> Iterator[str]:
    """A nursery for the time of the block; yields the address that workers reach it by. What it prints goes to `log`.

    `threads` are its OMP_NUM_THREADS, as Ray sets it for a worker of so many CPUs. A trial that still runs when the block ends
    ends itself, as soon as its worker is gone.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ablatrix-nursery-", ignore_cleanup_errors=True) as place, log.open("ab") as output:
        address = str(Path(place) / "socket")
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with socket.socket(socket.AF_UNIX) as door:  # open before anybody comes; the process inherits it
            door.bind(address)
            door.listen(64)
            process = subprocess.Popen(
                [sys.executable, "-m", "ablatrix.nursery", str(door.fileno())],
                stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=[door.fileno()], env=environment, process_group=0,
            )  # fmt: skip
        assert process.stdin
        try:
            yield address
        finally:
            process.stdin.close()  # the sign to end
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Born:
    """A trial's process, forked by the nursery at `address`. Raises OSError where there is none."""

    def __init__(self, address: str, order: Order) -> None:
        self.exitcode: int | None = None
        self.orphaned = False  # ended because the nursery was gone, and the run's driver most likely with it
        self._line, self._heard = socket.socket(socket.AF_UNIX), b""
        try:
            self._line.connect(address)
            asked = {"order": dataclasses.asdict(order), "devices": os.environ.get(DEVICES)}
            self._line.sendall(json.dumps(asked).encode() + b"\n")
            answer = self._answer(BIRTH_S)
        except OSError:
            self._line.close()
            raise
        if not answer:
            self._line.close()
            raise OSError(f"the nursery at {address} does not answer")
        self.pid = int(answer)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the end of the process."""
        if self.exitcode is None and (answer := self._answer(timeout_s)) is not None:
            if not answer:  # the nursery is gone, and nobody is left to tell how the trial ends
                self.kill()
                self.orphaned = True
            self.exitcode = int(answer or -signal.SIGKILL)
            self._line.close()

    def kill(self) -> None:
        """End it at once."""
        if self.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _answer(self, timeout_s: float | None) -> bytes | None:
        """The next line; empty where none will come, None where none has come yet."""
        while b"\n" not in self._heard:
            if not select.select([self._line], [], [], timeout_s)[0]:
                return None
            more = self._line.recv(4096)
            if not more:
                return b""
            self._heard += more
        answer, _, self._heard = self._heard.partition(b"\n")
        return answer


class Nursery:
    """The server: forks on request, and tells each worker its trial's process id and then its exit code."""

    def __init__(self, door: socket.socket) -> None:
        self._door = door
        self._waiting: dict[int, socket.socket] = {}  # by the trial's process id
        self._bell, ring = socket.socketpair()
        for end in (self._bell, ring):
            end.setblocking(False)
        self._ring = ring
        signal.set_wakeup_fd(ring.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, signal.SIG_IGN)  # the run ends it, after its trials have saved

    def serve(self, until: int) -> None:
        """Serve until the file descriptor `until` is closed at its other end."""
        with selectors.DefaultSelector() as waiting:
            for source in (self._door, self._bell, until):
                waiting.register(source, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in waiting.select()}
                if until in ready:
                    return
                if self._bell in ready:
                    self._bell.recv(4096)
                    self._reap()
                if self._door in ready:
                    self._bear(self._door.accept()[0])

    def _bear(self, line: socket.socket) -> None:
        with line.makefile("rb") as asking:
            asked = asking.readline()
        if not asked.endswith(b"\n") or _is_gone(line):
            return  # the worker is, or did not wait so long
        pid = os.fork()
        if not pid:
            self._grow_up(line)
            _live(asked)
        self._waiting[pid] = line
        _tell(line, pid)

    def _grow_up(self, line: socket.socket) -> None:
        """In the child: keep nothing of the nursery's."""
        signal.set_wakeup_fd(-1)
        for sign in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, signal.SIG_DFL)
        for connection in (line, self._door, self._bell, self._ring, *self._waiting.values()):
            connection.close()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                _tell(self._waiting.pop(pid), os.waitstatus_to_exitcode(status))


def _is_gone(line: socket.socket) -> bool:
    """Whether the other side has closed its end; it says nothing after its request."""
    try:
        return line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _tell(line: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # a worker that is gone asks nothing any more
        line.sendall(f"{number}\n".encode())


def _live(asked: bytes) -> None:
    """Run the trial; never returns."""
    wanted = json.loads(asked)
    os.environ.pop(DEVICES, None)
    if wanted["devices"] is not None:
        os.environ[DEVICES] = wanted["devices"]
    try:
        run(Order(**wanted["order"]))
    finally:
        os._exit(1)


def main() -> None:
    """The nursery's process: `python -m ablatrix.nursery DOOR` with the descriptor of a listening socket; lives until its
    standard input ends."""
    born = Nursery(socket.socket(fileno=int(sys.argv[1])))
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()  # what was imported stays shared with the children
    born.serve(sys.stdin.fileno())
    os._exit(0)  # nothing is left to do, and an interpreter with torch in it takes half a second to end


if __name__ == "__main__":
    main()
