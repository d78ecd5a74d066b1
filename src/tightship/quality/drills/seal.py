"""While a drill runs, this process reaches nothing outside and writes nothing beside the scratch copy: default deny.

Agents are a workspace's own code and may do anything. Python tells of what they do through audit hooks (PEP 578), at
which sockets, other programs and files elsewhere are refused. A hook sees what goes through Python; it is no sandbox
against code that means harm, which is not what a drill is for. The refusal is a PermissionError too, so that a library
that can do without what it asked for does.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

from tightship.core.errors import OutsideReached

_NETWORK: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.bind"})
_PROGRAMS: Final = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"})
_REMOVING: Final = frozenset({"os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"})
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
_FREE: Final = ("/dev/", "/proc/self/")
_depth = 0
_allowed: tuple[str, ...] = ()
_hooked = False


@contextlib.contextmanager
def sealed(scratch: Path) -> Generator[None]:
    """Refuse network, other programs, and writing anywhere but below `scratch`, for as long as the block runs."""
    global _depth, _allowed, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    before = _allowed
    _allowed = (*before, os.path.realpath(scratch), os.path.realpath(tempfile.gettempdir()))
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        _allowed = before


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _depth == 0:
        return
    what: Any = next(iter(args), None)
    if event in _NETWORK:
        if event == "socket.getaddrinfo" or not _is_local(args):
            raise _refused("the network", event)
    elif event in _PROGRAMS:
        raise _refused(f"another program ({what!r})", event)
    elif event == "open":
        _opening(args)
    elif event in _REMOVING and not _inside(what, args[-1] if len(args) > 1 else None):
        raise _refused(str(what), event)


def _is_local(args: tuple[Any, ...]) -> bool:
    """A socket of this machine's own file system, as event loops use them."""
    return len(args) > 1 and isinstance(args[1], str | bytes)


def _opening(args: tuple[Any, ...]) -> None:
    path, mode, flags = args
    writes = any(one in mode for one in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITING)
    if writes and not _inside(path):
        raise _refused(str(path), "open")


def _inside(path: Any, folder: Any = None) -> bool:
    if not isinstance(path, str | bytes | os.PathLike) or (isinstance(folder, int) and folder >= 0):
        return True  # a descriptor that is open already, or below one
    text = os.fsdecode(path)
    if text.startswith(_FREE) or ".pyc" in text:
        return True
    real = os.path.realpath(text)
    return any(real == folder or real.startswith(folder + os.sep) for folder in _allowed)


def _refused(what: str, event: str) -> OutsideReached:
    return OutsideReached(
        f"a drill reaches nothing outside, and {what} was asked for ({event})",
        fix="reach systems through a declared tool (`ctx.tool`), so that a drill can put a stand-in in its place",
    )
