"""Keeps as many worker processes on this machine as the load asks for (S3), and none when it is gone itself.

A worker that died is started again, at once the first time, then after a pause that doubles; one that lived for a
minute has made up for it. Those that keep dying are reported. Each worker holds the other end of a pipe as its
standard input and ends itself when that closes (`tether.end_with_parent`), so that nothing outlives this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from tightship.core.errors import TightshipError, Unavailable
from tightship.runtime.scaling import Bounds, Load, Past, Policy, desired

LOOK: Final = 5.0
"""Seconds between two looks at the load."""
GRACE: Final = 30.0
"""Seconds that a worker has to settle what is under way before it is killed."""
PAUSE: Final = 1.0
"""Seconds before a worker that died twice is started again; doubled with each further time."""
LONGEST: Final = 60.0
"""The longest such pause (s)."""
STEADY: Final = 60.0
"""Seconds after which a worker that lives counts as sound again."""
LOOP: Final = 3
"""Deaths in a row from which on a crash loop is reported."""
_PIECE: Final = 65_536
"""Bytes of output that are read at a time, and of a line that are kept together."""

_REST: Final = 1.0
"""Seconds for which the rest of a worker's output is awaited: what has left its session may hold it open for ever."""

Kind = Literal["started", "line", "scaled", "stopping", "killed", "ended", "died", "crash_loop", "blind"]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to the crew.

    Attributes:
        kind: `line` is one of output; `scaled` another number that is wished; `blind` that the load cannot be read;
            `died` that a worker ended which nobody had told to.
        worker: its number, from 1; 0 for the crew.
        pid: its process.
        text: the line, the exit code or signal, the number, or what is wrong.
    """

    kind: Kind
    worker: int = 0
    pid: int = 0
    text: str = ""


Tell = Callable[[Event], None]
Demand = Callable[[], Awaitable[Load]]


@dataclass(slots=True)
class _Place:
    """A worker's number, and how it has fared."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    watch: asyncio.Task[None] | None = None
    stopping: bool = False
    deaths: int = 0
    not_before: float = 0.0


async def supervise(
    command: Sequence[str],
    bounds: Bounds,
    demand: Demand,
    stop: asyncio.Event,
    *,
    policy: Policy | None = None,
    tell: Tell = lambda event: None,
    look: float = LOOK,
    grace: float = GRACE,
    pause: float = PAUSE,
) -> None:
    """Keep workers until told to stop; returns once all have ended.

    Args:
        command: what starts a worker, program first. It is given a pipe as its standard input and calls
            `tether.end_with_parent`.
        bounds: how many there may be.
        demand: reads the load; when it fails, the number stays as it is.
        stop: ends it: SIGTERM to all, and SIGKILL to those that are left after the grace.
        policy: what is wished of the workers.
        tell: is told what happens, lines of output included, on the event loop.
        look: seconds between two readings.
        grace: seconds that a worker has to end.
        pause: seconds before the second restart of a worker that keeps dying.

    Raises:
        Unavailable: the command cannot be started at all.
    """
    crew = _Crew(command, bounds, tell, grace, pause)
    try:
        await crew.keep(demand, policy or Policy(), stop, look)
    finally:
        await crew.end()


class _Crew:
    def __init__(self, command: Sequence[str], bounds: Bounds, tell: Tell, grace: float, pause: float) -> None:
        self._command = tuple(command)
        self._bounds = bounds
        self._tell = tell
        self._grace, self._pause = grace, pause
        self._places: dict[int, _Place] = {}
        self._changed = asyncio.Event()
        self._threads = ThreadPoolExecutor(bounds.most * 2 + 1, "crew")
        """One waits for each process: asyncio's own waiting ends only when nobody holds its output any more."""
        self._wanted = bounds.hold(bounds.least)
        self._blind = False
        self._proven = False
        """Whether the command could ever be started."""

    async def keep(self, demand: Demand, policy: Policy, stop: asyncio.Event, look: float) -> None:
        """Look at the load, and at who has died, until told to stop."""
        clock = asyncio.get_running_loop().time
        past, next_look = Past(), 0.0
        while not stop.is_set():
            if clock() >= next_look:
                load = await self._read(demand, look)
                next_look = clock() + look
                if load is not None:
                    wanted, past = desired(clock(), self._wanted, load, self._bounds, past, policy)
                    self._want(wanted)
            self._changed.clear()
            until = min(await self._adjust(), next_look)
            await _first(stop, self._changed, until - clock())

    async def end(self) -> None:
        """Stop all; when that is cut short, kill them."""
        try:
            for place in self._living():
                self._stop(place)
            await asyncio.gather(*(place.watch for place in self._places.values() if place.watch is not None))
        except BaseException:
            for place in self._places.values():
                self._kill(place)
            raise
        finally:
            self._threads.shutdown(wait=False)

    async def _read(self, demand: Demand, look: float) -> Load | None:
        try:
            async with asyncio.timeout(max(look, 1.0)):
                load = await demand()
        except (TightshipError, OSError, TimeoutError) as error:
            if not self._blind:
                self._tell(Event("blind", text=str(error) or type(error).__name__))
            self._blind = True
            return None
        self._blind = False
        return load

    def _want(self, wanted: int) -> None:
        if wanted != self._wanted:
            self._tell(Event("scaled", text=f"{self._wanted} -> {wanted}"))
        self._wanted = wanted

    # --- who is there ----------------------------------------------------------------------------

    def _living(self) -> list[_Place]:
        return [one for one in self._places.values() if one.process is not None and not one.stopping]

    async def _adjust(self) -> float:
        """Start who is missing, stop who is too many; returns when the next may be started (s)."""
        now = asyncio.get_running_loop().time()
        soonest = float("inf")
        held = len(self._living())
        for place in self._vacant()[: max(0, self._wanted - held)]:
            if place.not_before <= now:
                await self._start(place)
            else:
                soonest = min(soonest, place.not_before)
        for place in sorted(self._living(), key=lambda one: -one.number)[: max(0, held - self._wanted)]:
            self._stop(place)
        return soonest

    def _vacant(self) -> list[_Place]:
        """Numbers that no process has, the lowest first; one whose worker keeps dying waits for its own turn."""
        for number in range(1, self._bounds.most * 2 + 1):  # those that are stopping still have theirs
            self._places.setdefault(number, _Place(number))
        return sorted((one for one in self._places.values() if one.process is None), key=lambda one: one.number)

    async def _start(self, place: _Place) -> None:
        try:
            process = await asyncio.get_running_loop().run_in_executor(self._threads, _spawn, self._command)
        except OSError as error:
            if not self._proven:
                raise Unavailable(
                    f"a worker cannot be started: {error.strerror}", where=self._command[0], fix="correct the command"
                ) from error
            self._tell(Event("died", place.number, text=str(error)))  # no process or memory left, which may pass
            self._note_death(place, asyncio.get_running_loop().time(), 0.0, str(error))
            return
        self._proven = True
        place.process, place.stopping = process, False
        place.watch = asyncio.ensure_future(self._watch(place, process))
        self._tell(Event("started", place.number, process.pid))

    async def _watch(self, place: _Place, process: subprocess.Popen[bytes]) -> None:
        """Forward what it says until it ends, and note how it ended."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        forward = asyncio.ensure_future(self._forward(place.number, process))
        code = await loop.run_in_executor(self._threads, process.wait)
        _kill_group(process.pid)  # what it has started and left behind, which may hold its output open
        await asyncio.wait([forward], timeout=_REST)
        forward.cancel()
        await asyncio.gather(forward, return_exceptions=True)
        _let_go(process)
        place.process = None
        how = _ending(code)
        if place.stopping:
            self._tell(Event("ended", place.number, process.pid, how))
        else:
            self._tell(Event("died", place.number, process.pid, how))
            self._note_death(place, loop.time(), loop.time() - began, how)
        self._changed.set()

    def _note_death(self, place: _Place, now: float, lived: float, how: str) -> None:
        place.deaths = 1 if lived >= STEADY else place.deaths + 1
        wait = 0.0 if place.deaths == 1 else min(LONGEST, self._pause * 2 ** (place.deaths - 2))
        place.not_before = now + wait
        if place.deaths >= LOOP:
            text = f"{place.deaths} times in a row ({how}); the next try is in {wait:g} s"
            self._tell(Event("crash_loop", place.number, text=text))

    async def _forward(self, number: int, process: subprocess.Popen[bytes]) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        try:
            async for line in _lines(reader):
                self._tell(Event("line", number, process.pid, line))
        finally:
            transport.close()

    # --- ending ----------------------------------------------------------------------------------

    def _stop(self, place: _Place) -> None:
        process = place.process
        if process is None or place.stopping:
            return
        place.stopping = True
        self._tell(Event("stopping", place.number, process.pid))
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        late = asyncio.get_running_loop().call_later(self._grace, self._too_late, place, process)
        if place.watch is not None:
            place.watch.add_done_callback(lambda _: late.cancel())

    def _too_late(self, place: _Place, process: subprocess.Popen[bytes]) -> None:
        if place.process is process:
            self._tell(Event("killed", place.number, process.pid, f"it had not ended after {self._grace:g} s"))
            self._kill(place)

    def _kill(self, place: _Place) -> None:
        if place.process is not None and place.process.poll() is None:
            _kill_group(place.process.pid)


def _ending(code: int) -> str:
    """How a process ended, in words."""
    try:
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    except ValueError:  # a signal without a name
        return f"signal {-code}"


def _kill_group(pid: int) -> None:
    """A worker and whatever it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for this process alone, which tells them once
    )


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Close our end of its tether."""
    if process.stdin is not None:
        process.stdin.close()


async def _first(stop: asyncio.Event, changed: asyncio.Event, seconds: float) -> None:
    waiting = [asyncio.ensure_future(one.wait()) for one in (stop, changed)]
    try:
        await asyncio.wait(waiting, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _lines(stream: asyncio.StreamReader) -> AsyncGenerator[str]:
    """The lines of a stream without their ends; one that goes on and on comes in pieces."""
    rest = b""
    while piece := await stream.read(_PIECE):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")
        if len(rest) >= _PIECE:
            yield rest.decode("utf-8", "replace")
            rest = b""
    if rest:
        yield rest.decode("utf-8", "replace")
