"""Entries and a clock for tests that need no store: a list of entries is a ledger that somebody wrote before."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

START = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC."""


@dataclass(slots=True)
class Entry:
    n: int
    at: float
    log: str
    run: str
    kind: str
    key: str
    epoch: int = 1
    body: Mapping[str, Any] = field(default_factory=dict)


class Log:
    """Appends entries, one second apart unless told otherwise."""

    def __init__(self, run: str = "r-1", log: str = "default") -> None:
        self.run, self.log = run, log
        self.entries: list[Entry] = []
        self.now = START

    def add(self, kind: str, key: str = "", *, after: float = 1.0, **body: Any) -> Entry:
        self.now += after
        entry = Entry(len(self.entries) + 1, self.now, self.log, self.run, kind, key, 1, body)
        self.entries.append(entry)
        return entry


class VirtualClock:
    """Time that moves only when the test moves it."""

    def __init__(self, start: float = 1000.0) -> None:
        self.time = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> float:
        return START + self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.time + seconds, self._count, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Wake sleepers in order, letting each run before time moves on."""
        end = self.time + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, future = heapq.heappop(self._sleepers)
            self.time = max(self.time, at)
            if not future.done():
                future.set_result(None)
            await self.settle()
        self.time = end

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
