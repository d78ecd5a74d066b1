"""An effect under way: whoever waits for it may be cut off, the effect never is."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from tightship.core.ports import Json

Work = Callable[[], Coroutine[Any, Any, Json]]


class Flights:
    """The effects of one run that are under way, by key."""

    __slots__ = ("_by_key", "_tasks")

    def __init__(self) -> None:
        self._by_key: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def any(self) -> bool:
        """Whether anything is under way."""
        return bool(self._tasks)

    def get(self, key: str) -> Flight | None:
        """The one under this key."""
        return self._by_key.get(key)

    def begin(self, key: str, args: str, work: Work) -> Flight:
        """Start an effect; `args` is the address of its arguments."""
        flight = self._by_key[key] = Flight(args)
        flight.task = asyncio.get_running_loop().create_task(self._fly(key, flight, work))
        self._tasks.add(flight.task)
        return flight

    def abandon(self, key: str, flight: Flight) -> None:
        """Stop one of which nothing was admitted yet; a new one of this key may begin at once."""
        self._forget(key, flight)
        flight.task.add_done_callback(functools.partial(self._stopped, flight))
        flight.task.cancel()

    async def drain(self) -> None:
        """Wait until all have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def drain_below(self, key: str) -> None:
        """Wait until those below a key have ended."""
        while flying := [flight.task for at, flight in self._by_key.items() if at.startswith(f"{key}/")]:
            await asyncio.wait(flying)

    async def _fly(self, key: str, flight: Flight, work: Work) -> None:
        try:
            value = await work()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._end(key, flight)
            flight.fail(error)
        else:
            self._end(key, flight)
            flight.land(value)

    def _stopped(self, flight: Flight, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step never comes to its own end."""
        self._tasks.discard(task)
        flight.fail(asyncio.CancelledError())

    def _end(self, key: str, flight: Flight) -> None:
        self._tasks.discard(flight.task)
        self._forget(key, flight)

    def _forget(self, key: str, flight: Flight) -> None:
        if self._by_key.get(key) is flight:
            del self._by_key[key]


class Flight:
    """One effect under way.

    Attributes:
        args: the address of its arguments.
        task: what carries it.
    """

    __slots__ = ("_waiting", "args", "task")

    task: asyncio.Task[None]

    def __init__(self, args: str) -> None:
        self.args = args
        # not `asyncio.shield`: that costs each effect four more turns of the event loop
        self._waiting: list[asyncio.Future[Json]] = []

    def landing(self) -> asyncio.Future[Json]:
        """Its outcome, for one more who waits; whoever stops waiting changes nothing for it."""
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def land(self, value: Json) -> None:
        """Tell all who wait."""
        for future in self._waiting:
            if not future.done():
                future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Tell all who wait that it failed, or was stopped."""
        for future in self._waiting:
            if future.done():
                continue
            if isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                future.set_exception(error)
