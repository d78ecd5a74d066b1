"""Run the blocks of one page for real, in order, in a folder of its own: `python tests/docs_runner.py PAGE FOLDER`.

Python blocks share a namespace and an event loop; shell blocks share the folder and the environment. The first block
that does not do what the page says ends it with exit code 1 and its place.

Where TIGHTSHIP_WARM names a loaded process (cli_warm.py), `tightship` in the shell is forked from it.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import random
import re
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import tightship
from docs_pages import Block, Command, Page, commands, fits, page
from tightship.cli.init import make_workspace

PORT = "8765"
"""The port of the sample company in the template and on the pages."""
SECONDS = 600
FEW_AT_ONCE = {
    "make demo": "tightship demo --concurrency 2",
    "run support --input tickets.jsonl --batch monday\n": "run support -c 2 --input tickets.jsonl --batch monday\n",
}
"""What is run in place of what is shown: on a busy machine sixteen agents at once do not end in the template's 30 s."""
_BRIEF = re.compile(r"\b(within|seconds): \d+s?(?=[\s,}])")
"""What a page gives an agent or a run in seconds; a busy machine is no fault of the page's."""
WARM = os.environ.get("TIGHTSHIP_WARM", "")
CLIENT = Path(__file__).with_name("warm_client.py")
_PROGRESS = re.compile(r"\S+: \d+ of \d+\b")
"""Lines on stderr that count: a terminal shows a bar in their place."""


class Wrong(Exception):
    """A block that does not do what the page says."""


class Runner:
    """One page at work."""

    def __init__(self, page: Page, folder: Path) -> None:
        self._page = page
        self._folder = folder / "page"
        self._state, self._bin = folder / "state", folder / "bin"
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._port = free_port()
        self._background: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        """All blocks, in order."""
        self._prepare()
        try:
            with asyncio.Runner() as loop:
                for block in self._page.blocks():
                    with timed(block.where):
                        self._block(block, loop)
        finally:
            for process in self._background:
                self._stop(process)

    def _prepare(self) -> None:
        if "empty" in self._page.marks:
            self._folder.mkdir(parents=True)
        else:
            make_workspace(self._folder, "support")
        if WARM:
            self._bin.mkdir()
            (self._bin / "tightship").write_text(f'#!/bin/sh\nexec {sys.executable} -IS {CLIENT} "$@"\n')
            (self._bin / "tightship").chmod(0o755)
        os.chdir(self._folder)
        self._state.write_text(f"cd {self._folder}\n")
        self._point()
        if "company" in self._page.marks:
            self._start("tightship company serve")

    def _point(self) -> None:
        """Let every workspace of the page find the sample company at this page's own port, and take its time."""
        for path in self._folder.rglob("*.yaml"):
            text = path.read_text()
            local = _BRIEF.sub(r"\1: 5m", text).replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{self._port}")
            if local != text:
                path.write_text(local)

    def _block(self, block: Block, loop: asyncio.Runner) -> None:
        if "file" in block.marks:
            path = self._cwd() / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            self._point()
        elif block.language == "python":
            self._python(block, loop)
        elif block.language in ("console", "sh") and "parse" not in block.marks:
            self._shell(block)
            self._point()

    # --- Python ----------------------------------------------------------------------------------

    def _python(self, block: Block, loop: asyncio.Runner) -> None:
        name = str(self._page.path)
        source = "\n" * block.line + self._local(block.text)  # so that a traceback shows the page's own line
        code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        os.chdir(self._cwd())
        try:
            if code.co_flags & inspect.CO_COROUTINE:
                loop.run(self._awaited(code))
            else:
                exec(code, self._names)
        except Exception as error:
            line = (
                next((f.lineno for f in traceback.extract_tb(error.__traceback__)[::-1] if f.filename == name), 0)
                or block.line
            )
            said = self._page.text.splitlines()[line - 1].strip()
            raise Wrong(f"{self._page.name}:{line}: {said}\n{type(error).__name__}: {error}") from error

    async def _awaited(self, code: Any) -> None:
        await eval(code, self._names)

    # --- the shell -------------------------------------------------------------------------------

    def _shell(self, block: Block) -> None:
        if "stop" in block.marks:
            self._stop(self._background.pop())
        if "background" in block.marks:
            for command in commands(block):
                self._start(command.text)
            return
        allowed = {0, int(block.marks.get("exit", 0))}
        if block.language == "sh":
            self._command(Command(block.line, block.text, ("…",)), allowed)
            return
        for command in commands(block):
            self._command(command, allowed)

    def _command(self, command: Command, allowed: set[int]) -> None:
        where = f"{self._page.name}:{command.line}"
        done = subprocess.run(
            ["bash", "-c", self._script(command.text)],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode not in allowed:
            raise Wrong(f"{where}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        noted = [line for line in done.stderr.splitlines() if not _PROGRESS.match(line)]
        wrong = fits(tuple(self._local(line) for line in command.output), "\n".join([done.stdout, *noted]))
        if command.output and wrong:
            raise Wrong(f"{where}: {command.text}\n{wrong}")

    def _start(self, text: str) -> None:
        """A command that goes on; returns when it has printed its first line."""
        process = subprocess.Popen(
            ["bash", "-c", self._script(f"exec {text}")],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._background.append(process)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise Wrong(f"{self._page.name}: {text} ended before it was ready")

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(SECONDS)
        if process.stdout is not None:
            process.stdout.close()

    def _script(self, text: str) -> str:
        text = self._local(text).rstrip("\n") + "\n"
        for shown, run in FEW_AT_ONCE.items():
            text = text.replace(shown, run)
        state = self._state
        return f'. "{state}"\n{text}code=$?\n{{ declare -px; echo "cd $PWD"; }} > "{state}"\nexit $code\n'

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        path = f"{self._bin}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        kept["PYTHONPATH"] = str(Path(tightship.__file__).parents[1])
        return kept | {
            "TIGHTSHIP_WARM": WARM,
            "PATH": path,
            "PYTHONWARNINGS": "error",
            "COLUMNS": "200",
            "USER": "you",
            "LOGNAME": "you",
        }

    def _local(self, text: str) -> str:
        return text.replace(PORT, str(self._port)).replace(".venv/bin/tightship", "tightship")

    def _cwd(self) -> Path:
        return Path(self._state.read_text().strip().splitlines()[-1].removeprefix("cd "))


def free_port() -> int:
    """A port of this machine that nobody uses now, and that the system gives nobody who asks for any."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def timed(name: str) -> Generator[None]:
    """Say how long it took."""
    began = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)


def main(name: str, folder: str) -> int:
    """Run one page; returns the exit code."""
    with timed(name):
        try:
            Runner(page(name), Path(folder)).run()
        except Wrong as wrong:
            print(wrong)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
