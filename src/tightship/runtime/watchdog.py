"""A watch over the event loop: an agent that blocks it stops every run of the process, so it is named and stopped.

A thread notices that the loop no longer ticks and looks at what the loop's thread is doing. Only where that is an
agent's own code, called by its turn, an exception is raised in it; the turn then ends as AgentHung. Code that never
comes back to the interpreter (a long call into C, `time.sleep` included) is named at once and stopped on its return.
Code that comes back by itself, but after its turn's time, has failed as well: the turn sees to that (`agents.turn`),
and learns from here at which line the loop was blocked.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import sysconfig
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TextIO

from tightship.agents import context, turn
from tightship.agents.context import Turn
from tightship.core.errors import AgentHung

TELL = 1.0
"""Seconds without a tick after which the agent is named."""
STOP = 10.0
"""Seconds without a tick after which it is stopped."""
_TICK = 0.25
_PACKAGE = str(Path(__file__).parent.parent)
_STDLIB = sysconfig.get_path("stdlib")
_CALLERS = {(turn.__file__, "_guarded"), (context.__file__, "_fork")}
"""What calls an agent's code."""


class Watchdog:
    """Watches the running loop until it is closed.

    Args:
        tell, stop: seconds, as above. out: where the agent is named.
    """

    def __init__(self, tell: float = TELL, stop: float = STOP, out: TextIO | None = None) -> None:
        self._tell, self._stop = tell, stop
        self._out = out
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._ticked = time.monotonic()
        self._closed = threading.Event()
        self._handle = self._loop.call_later(_TICK, self._tick)
        self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._handle.cancel()
        self._closed.set()

    def _tick(self) -> None:
        self._ticked = time.monotonic()
        self._handle = self._loop.call_later(_TICK, self._tick)

    def _watch(self) -> None:
        told = stopped = 0.0
        while not self._closed.wait(_TICK):
            ticked = self._ticked
            late = time.monotonic() - ticked
            if late < self._tell:
                continue
            where, its_turn = agent_code(sys._current_frames().get(self._thread_id))
            if its_turn is None:
                continue
            its_turn.blocked = where
            if told != ticked:
                told = ticked
                print(
                    f"tightship: an agent blocks the event loop, and with it every run, at {where}. "
                    "Fix: await what can be awaited; run the rest by asyncio.to_thread, or write a plain `def`",
                    file=self._out or sys.stderr,
                    flush=True,
                )
            if late >= self._stop and stopped != ticked:
                stopped = ticked
                raise_in(self._thread_id, AgentHung)


def agent_code(frame: FrameType | None) -> tuple[str, Turn | None]:
    """File and line of the agent's code that a thread is in, and the turn; no turn when it is in no agent's code."""
    found = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if (name, frame.f_code.co_name) in _CALLERS:
            caller = frame.f_locals
            return found, (caller["turn"] if "turn" in caller else caller["self"].turn) if found else None
        if name.startswith(_PACKAGE):
            break  # the agent has called us: nothing of its own to be stopped
        if not found and not name.startswith(_STDLIB) and "site-packages" not in name:
            found = f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "", None


def raise_in(thread: int, error: type[BaseException]) -> None:
    """Raise an exception in another thread, the next time that it executes Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
