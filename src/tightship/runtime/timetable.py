"""What is done again and again: each at its own times, by whoever executes. On a shared store the jobs' engine calls it
once for all workers (`jobs`), and this is the fall-back while that does not run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tightship.core.errors import TightshipError
from tightship.core.world import Clock


@dataclass(frozen=True, slots=True)
class Periodic:
    """Something that may be done twice, or never, without harm.

    Attributes:
        name: what it is called in the jobs' tables and in the log.
        cron: when, in UTC; a sixth field counts seconds.
        do: does it once.
        of_build: it is done by the workers of every build, once for each.
        again: it is a short look, which every process takes as well, `GRACE` seconds later, whoever does it else.
    """

    name: str
    cron: str
    do: Callable[[], Awaitable[None]]
    of_build: bool = False
    again: bool = False


GRACE: Final = 15.0
"""Seconds that others have for something before a process looks whether it was done."""


async def attempt(one: Periodic) -> None:
    """Do it once; what is wrong is logged, and it is done again at its next time."""
    try:
        await one.do()
    except TightshipError as error:
        logging.getLogger(__name__).warning("%s was put off: %s", one.name, error)
    except Exception as error:  # its defect ends neither the others nor the worker
        logging.getLogger(__name__).error("%s failed: %s: %s", one.name, type(error).__name__, error)


async def keep_looking(look: Callable[[], Awaitable[None]], clock: Clock, every: float) -> None:
    """Look every so many seconds, until it is cancelled; what cannot be read now is looked at again."""
    while True:
        await clock.sleep(every)
        with contextlib.suppress(TightshipError):
            await look()


class Timetable:
    """Does what is due in this process.

    Args:
        periodic: what.
        clock: whose time counts.
        elsewhere: whether somebody else does it now.
    """

    def __init__(
        self, periodic: Sequence[Periodic], clock: Clock, elsewhere: Callable[[], bool] = lambda: False
    ) -> None:
        self._periodic = periodic
        self._clock = clock
        self._elsewhere = elsewhere
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Do each at its times, until `close`."""
        self._tasks = [asyncio.ensure_future(self._repeat(one)) for one in self._periodic]

    async def close(self) -> None:
        """End it."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    async def _repeat(self, one: Periodic) -> None:
        from croniter import croniter

        if not self._elsewhere():
            await attempt(one)  # what was due while nobody was here
        while True:
            now = self._clock.now()
            await self._clock.sleep(max(croniter(one.cron, now).get_next(float) - now, 0.05))
            if self._elsewhere():
                if not one.again:
                    continue
                await self._clock.sleep(GRACE)
            await attempt(one)
