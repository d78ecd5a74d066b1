"""What all commands share: their common options, how they speak, how they fail, how they run async code."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TextIO, TypeVar

import click

from tightship.cli._exit import BUSY, DONE, ERROR, INTERRUPTED, OVERLOADED
from tightship.core.errors import ExecutorBusy, Overloaded, TightshipError
from tightship.core.signals import Halted, Signal

_P = ParamSpec("_P")
_T = TypeVar("_T")
Command = Callable[Concatenate["Shell", _P], int | None]

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that steer a terminal or turn text around: what agents and customers write must do neither."""


@dataclass(slots=True)
class Shell:
    """How one command was called, and its voice.

    Attributes:
        folder: the workspace. json: JSON instead of text. debug: whole tracebacks.
        prefix: stands before every line of text (a rehearsal says so on every line).
    """

    folder: Path
    json: bool = False
    debug: bool = False
    prefix: str = ""
    out: TextIO | None = None
    """Where JSON goes; None is stdout."""

    @property
    def place(self) -> str:
        """The option that names this workspace in a command to be copied, empty for the current folder."""
        from shlex import quote

        return "" if self.folder == Path(".") else f" -w {quote(str(self.folder))}"

    def say(self, text: str = "", style: str = "") -> None:
        """Text for a person, on stdout; nothing with --json."""
        if self.json:
            return
        for line in clean(text).split("\n"):
            whole = f"{self.prefix}{line}"
            click.echo(click.style(whole, **_STYLES[style]) if style else whole)

    def note(self, text: str) -> None:
        """Text beside the output, on stderr; nothing with --json."""
        if not self.json:
            click.echo(f"{self.prefix}{clean(text)}", err=True)

    def emit(self, document: Any) -> None:
        """The one JSON document of a command; nothing without --json."""
        if self.json:
            click.echo(dumps(document, indent=True), file=self.out)

    def line(self, record: Any) -> None:
        """One JSON line of a command that goes on; nothing without --json."""
        if self.json:
            click.echo(dumps(record), file=self.out)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        right: Sequence[str] = (),
        words: Sequence[str] = (),
        drop: Sequence[str] = (),
    ) -> None:
        """A table, on stdout; nothing with --json.

        Args:
            columns, rows: headings and cells. right: columns that are aligned to the right.
            words: columns that may go over several lines. drop: columns that a narrow terminal goes without, in order.
        """
        if self.json:
            return
        from tightship.cli._tables import render, terminal_width

        for line in render(columns, rows, right, words, drop, terminal_width(len(self.prefix))):
            click.echo(f"{self.prefix}{line}")

    def next_steps(self, commands: Sequence[tuple[str, str]]) -> None:
        """Commands to go on with, each with what it is good for."""
        if self.json or not commands:
            return
        self.say()
        self.say("Next:")
        program = this_program()
        shown = [(command.replace("tightship", program, 1), good) for command, good in commands]
        width = max(len(command) for command, _ in shown)
        for command, good in shown:
            self.say(f"  {command:<{width}}   {good}")


_STYLES: Mapping[str, Mapping[str, Any]] = {
    "good": {"fg": "green"},
    "bad": {"fg": "red"},
    "warn": {"fg": "yellow"},
    "head": {"bold": True},
    "dim": {"dim": True},
}


def this_program() -> str:
    """How this program is called from this shell: by its name, or by its path where it is on no PATH."""
    import shutil

    given = Path(sys.argv[0])
    if given.name != "tightship" or shutil.which("tightship"):
        return "tightship"
    return os.path.relpath(given) if given.is_absolute() else str(given)


def clean(text: str) -> str:
    """Text without the characters that steer a terminal; each becomes U+FFFD."""
    return _CONTROL.sub("\ufffd", text)


def dumps(value: Any, indent: bool = False) -> str:
    """JSON text."""
    import orjson

    option = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | (orjson.OPT_INDENT_2 if indent else 0)
    return orjson.dumps(value, default=_plain, option=option).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "as_dict"):
        return value.as_dict()
    return str(value)


# --- commands -----------------------------------------------------------------------------------------


def command(function: Command[_P]) -> Callable[..., int]:
    """Give a command its common options and its way of failing; what it returns is the exit code."""

    @click.option(
        "-w",
        "--workspace",
        type=click.Path(path_type=Path),
        default=".",
        metavar="DIR",
        help="The workspace's folder (default: here).",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.option("--debug", is_flag=True, help="Print whole tracebacks.")
    @functools.wraps(function)
    def called(*args: Any, workspace: Path, as_json: bool, debug: bool, **options: Any) -> int:
        shell = Shell(workspace, as_json, debug, out=sys.stdout)
        # What agents print must not stand in the JSON: it goes to stderr.
        aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
        try:
            with aside:
                return function(shell, *args, **options) or DONE
        except (TightshipError, Signal) as error:
            return fail(shell, error)
        except KeyboardInterrupt as error:
            return _interrupted(shell, error)
        except (click.ClickException, click.exceptions.Exit, click.exceptions.Abort, BrokenPipeError):
            raise
        except Exception as error:
            return _defect(shell, error)

    return called


def fail(shell: Shell, error: TightshipError | Signal) -> int:
    """Print an error on stderr; returns the exit code."""
    if shell.debug:
        traceback.print_exception(error)
    told = as_error(error)
    if shell.json:
        click.echo(dumps(told), err=True)
    else:
        click.echo(click.style("error: ", fg="red") + clean(told["message"]), err=True)
        for name in ("where", "fix"):
            if told.get(name):
                click.echo(f"  {name + ':':<6} {clean(told[name])}", err=True)
    return BUSY if isinstance(error, ExecutorBusy) else OVERLOADED if isinstance(error, Overloaded) else ERROR


def as_error(error: TightshipError | Signal) -> dict[str, Any]:
    """An error as JSON: error, message, where, fix."""
    if isinstance(error, TightshipError):
        return error.as_dict()
    told = {"error": type(error).__name__, "message": error.reason or type(error).__doc__ or ""}
    if isinstance(error, Halted) and error.scope:
        told["fix"] = f"when it may go on: `tightship unhalt {error.scope}`"
    return told


def _interrupted(shell: Shell, error: KeyboardInterrupt) -> int:
    """Ctrl-C, or code of the workspace that ends the process: that is said with its place."""
    if shell.debug:
        traceback.print_exception(error)
    folder = shell.folder.resolve()
    frames = [one for one in traceback.extract_tb(error.__traceback__) if folder in Path(one.filename).parents]
    if not frames:
        shell.note("interrupted; nothing is lost: what was begun is continued by `tightship runs resume --all`")
        return INTERRUPTED
    place = Path(frames[-1].filename).relative_to(folder)
    told = TightshipError(
        "code of the workspace has raised KeyboardInterrupt, which ends the process; nothing is lost",
        where=f"{place}:{frames[-1].lineno}",
        fix="raise an exception of the work instead (docs/exceptions.md), then `tightship runs resume --all`",
    )
    return fail(shell, told)


def _defect(shell: Shell, error: Exception) -> int:
    """Something that is nobody's input: a defect of ours, named with its place so that it can be reported."""
    if shell.debug:
        traceback.print_exception(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    told = TightshipError(
        f"a defect in Tightship: {type(error).__name__}: {error}",
        where=f"{frame.filename}:{frame.lineno}",
        fix="run it again with --debug and report what it prints",
    )
    return fail(shell, told)


# --- async --------------------------------------------------------------------------------------------


class _Threads(ThreadPoolExecutor):
    """The event loop's threads. An agent's function that hangs in one of them must not hold up the end."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let go without waiting."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)


def run_async(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a command's coroutine."""

    async def main() -> _T:
        asyncio.get_running_loop().set_default_executor(_Threads(thread_name_prefix="tightship"))
        return await work()

    return asyncio.run(main(), debug=False)


def is_terminal() -> bool:
    """Whether progress may be drawn: stderr is a terminal."""
    return sys.stderr.isatty()
