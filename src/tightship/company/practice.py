"""The sample company as drills use it: in this process, signed in, in memory or in a file."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path

import httpx2

from tightship.company._app import build_app
from tightship.company._call import Json
from tightship.company._company import Company
from tightship.company._contract import contract
from tightship.company._faults import Faults
from tightship.company._transport import InProcessTransport
from tightship.core.world import Clock

_TOKEN = "practice"


class _SignedIn(httpx2.AsyncBaseTransport):
    """Gives every request the token, whatever the caller would have signed in with."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        request.headers["Authorization"] = f"Bearer {_TOKEN}"
        return await self._inner.handle_async_request(request)


class PracticeCompany:
    """A fresh sample company without a network.

    Args:
        database: a file, or None for one in memory.
        clock: the time that it lives by.
    """

    def __init__(self, database: Path | None, clock: Clock) -> None:
        self._company = Company(database or ":memory:", clock.now, random.Random(1))
        self.operations: Collection[str] = contract().operations
        self.transport = _SignedIn(InProcessTransport(build_app(self._company, Faults(random.Random(1)), _TOKEN)))

    def state(self) -> dict[str, list[Json]]:
        """Its business state in canonical form."""
        return self._company.state()

    def close(self) -> None:
        """Close it."""
        self._company.close()
