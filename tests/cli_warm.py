"""Commands forked from a process that has loaded all of Tightship, since loading is most of what a short one does.

Each is a real process with its own loop, threads and files, and ends as `python -m tightship` does. Commands that are
started anew, with nothing loaded, are those of the documentation's pages (docs_runner.py) and of `cli_desk.process`.

It reads requests from the socket that it is given: `python tests/cli_warm.py FD`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_LENGTH = 8
"""Bytes that say how long a request is."""


class Warm:
    """The loaded process, as the tests see it.

    Args:
        environment: its own; each command brings its own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    def run(
        self, args: Sequence[str], folder: Path, environment: Mapping[str, str], given: str | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `tightship ARGS` to its end.

        Args:
            folder: in which it runs. environment: all of it. given: what it reads. timeout: after so many seconds it is
                killed.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        with contextlib.ExitStack() as files:
            reads, out, err = (files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
            reads.write(given or "")
            reads.seek(0)
            told = self._begin({"args": list(args), "folder": str(folder), "env": dict(environment)}, (reads, out, err))
            with told, told.makefile("r") as answer:
                pid = int(answer.readline())
                watch = threading.Timer(timeout, os.kill, (pid, signal.SIGKILL))
                watch.start()
                code = int(answer.readline())
                late = not watch.is_alive()
                watch.cancel()
            out.seek(0)
            err.seek(0)
            if late:
                raise subprocess.TimeoutExpired(list(args), timeout, out.read(), err.read())
            return subprocess.CompletedProcess(list(args), code, out.read(), err.read())

    def _begin(self, request: Mapping[str, Any], files: Sequence[IO[str]]) -> socket.socket:
        """Send a request; what comes of it is told on the socket: the process id, then the exit code, a line each."""
        ours, theirs = socket.socketpair()
        data = json.dumps(request).encode()
        with theirs, self._lock:
            fds = [*(file.fileno() for file in files), theirs.fileno()]
            socket.send_fds(self._ours, [len(data).to_bytes(_LENGTH, "big")], fds)
            self._ours.sendall(data)
        return ours

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._process.wait(20)


@functools.cache
def warm() -> Warm:
    """The loaded process of this test process; it ends when this one does."""
    import atexit

    from cli_desk import environment

    made = Warm(environment())
    atexit.register(made.close)
    return made


# --- its own side ----------------------------------------------------------------------------------------


def _load() -> None:
    import tightship

    for module in pkgutil.walk_packages(tightship.__path__, "tightship."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("anyio._backends._asyncio", "certifi", "httpcore2", "truststore"):  # loaded when they are needed
        importlib.import_module(name)


def _serve(requests: socket.socket) -> None:
    """Fork a process for each request. Comes back in that process, to run the command, and at the end of all."""
    while True:
        head, fds, _, _ = socket.recv_fds(requests, _LENGTH, 4)
        if not head:
            return
        request = json.loads(_exactly(requests, int.from_bytes(head, "big")))
        if os.fork() == 0:
            requests.close()
            told = fds.pop()
            child = os.fork()
            if child == 0:
                os.close(told)
                _become(request, fds)
                return
            _keep(child, told)
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # those that have told how their command ended


def _exactly(requests: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += requests.recv(length - len(data))
    return data


def _keep(child: int, told: int) -> None:
    """Tell of a command's beginning and end; ends this process."""
    os.write(told, f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: Mapping[str, Any], fds: Sequence[int]) -> None:
    """This process is a command's from here on."""
    for fd, wanted in zip(fds, (0, 1, 2), strict=True):
        os.dup2(fd, wanted)
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv = [str(importlib.import_module("tightship").__path__[0]) + "/__main__.py", *request["args"]]


def main(fd: int) -> int:
    """Serve requests, or be the command of one of them; returns the exit code."""
    _load()
    beginning = sys.argv
    with socket.socket(fileno=fd) as requests:
        _serve(requests)
    if sys.argv is beginning:
        return 0
    from tightship.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
