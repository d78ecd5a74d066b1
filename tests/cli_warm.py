"""Commands forked from a process that has loaded all of Tightship, since loading is most of what a short one does.

Each is a real process with its own loop, threads and files, which signals reach and end as `python -m tightship`.
Commands that are started anew, with nothing loaded, are those of README.md and of the tutorial (docs_runner.py), and
those that test_cli_warm.py compares with forked ones.

It reads requests from the socket that it is given, and from those who connect to the other one, by which a shell's
commands come (warm_client.py): `python tests/cli_warm.py FD PATH`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_LENGTH = 8
"""Bytes that say how long a request is."""


class Forked:
    """A process under way, as `subprocess.Popen` has it.

    Args:
        told: says its id when it begins and its exit code when it has ended, a line each.
        stdout: what it prints, where it is read. stderr: the same; a file, which never fills up.
    """

    def __init__(self, told: socket.socket, stdout: IO[str] | None = None, stderr: IO[str] | None = None) -> None:
        self._told, self._heard = told, b""
        self.stdout, self.stderr = stdout, stderr
        while b"\n" not in self._heard:
            self._hear(None)
        self.pid = int(self._heard.split()[0])
        self.returncode: int | None = None

    def _hear(self, seconds: float | None) -> None:
        if select.select([self._told], [], [], seconds)[0]:
            more = self._told.recv(64)
            assert more, "the loaded process has ended"
            self._heard += more

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            self._hear(None if end is None else max(0.0, end - time.monotonic()))
            if self._heard.count(b"\n") == 2:
                self.returncode = int(self._heard.split()[1])
                self._told.close()
            elif end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What is left of its output, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it had to be killed.
        """
        watch = threading.Timer(timeout or 3600.0, self.kill)
        watch.start()
        out = self.stdout.read() if self.stdout else ""
        self.wait()
        late = not watch.is_alive()
        watch.cancel()
        err = ""
        if self.stderr:
            self.stderr.seek(0)
            err = self.stderr.read()
        if late:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0, out, err)
        return out, err

    def close(self) -> None:
        """Kill what is left of it, and close its files."""
        self.kill()
        self.wait()
        for file in (self.stdout, self.stderr):
            if file:
                file.close()


class Warm:
    """The loaded process, as the tests see it.

    Args:
        environment: its own; each command brings its own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        self.path = Path(self._folder.name) / "socket"
        """Where it listens."""
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), str(self.path)],
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
            forked = self._fork(args, folder, environment, (reads, out, err), stderr=err)
            files.callback(forked.close)
            try:
                _, said = forked.communicate(timeout)
            except subprocess.TimeoutExpired as late:
                out.seek(0)
                raise subprocess.TimeoutExpired(list(args), timeout, out.read(), late.stderr) from None
            out.seek(0)
            return subprocess.CompletedProcess(list(args), forked.wait(), out.read(), said)

    def start(
        self,
        args: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        log: IO[str] | None = None,
        code: str = "",
    ) -> Forked:
        """Begin `tightship ARGS`.

        Args:
            folder, environment: as of `run`. log: where its output goes, in place of a pipe and a file to be read.
            code: Python that runs with these arguments in place of the command line.
        """
        with open(os.devnull) as nothing:
            if log is not None:
                return self._fork(args, folder, environment, (nothing, log, log), code)
            ours, theirs = os.pipe()
            err = tempfile.TemporaryFile("w+")  # noqa: SIM115  (Forked.close closes it)
            with open(theirs, "w") as out:
                return self._fork(args, folder, environment, (nothing, out, err), code, open(ours), err)

    def _fork(
        self,
        args: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        files: Sequence[IO[str]],
        code: str = "",
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> Forked:
        request = {"args": list(args), "folder": str(folder), "env": dict(environment), "code": code}
        ours, theirs = socket.socketpair()
        data = json.dumps(request).encode()
        with theirs, self._lock:
            fds = [*(file.fileno() for file in files), theirs.fileno()]
            socket.send_fds(self._ours, [len(data).to_bytes(_LENGTH, "big")], fds)
            self._ours.sendall(data)
        return Forked(ours, stdout, stderr)

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._process.wait(300)
        self._folder.cleanup()


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
    gc.freeze()  # what is loaded stays, and no process looks through it for what may go


def _serve(requests: socket.socket, listener: socket.socket) -> Mapping[str, Any] | None:
    """Fork a process for each request. Comes back in that process, with the request, and at the end of all."""
    while True:
        ready, _, _ = select.select([requests, listener], [], [])
        source = requests if requests in ready else listener.accept()[0]
        head, fds, _, _ = socket.recv_fds(source, _LENGTH, 4)
        if not head:
            return None
        request = json.loads(_exactly(source, int.from_bytes(head, "big")))
        if source is not requests:
            source.close()
        if os.fork() == 0:
            requests.close()
            listener.close()
            told = fds.pop()
            child = os.fork()
            if child == 0:
                os.close(told)
                _become(request, fds)
                return request
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
    if request["env"].get("PYTHONWARNINGS") == "error":
        warnings.simplefilter("error")
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv = [str(importlib.import_module("tightship").__path__[0]) + "/__main__.py", *request["args"]]


def main(fd: int, path: str) -> int:
    """Serve requests, or be the command of one of them; returns the exit code."""
    _load()
    with socket.socket(fileno=fd) as requests, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        request = _serve(requests, listener)
    if request is None:
        return 0
    if request["code"]:
        exec(compile(request["code"], "<code>", "exec"), {"__name__": "__main__"})
        return 0
    from tightship.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
