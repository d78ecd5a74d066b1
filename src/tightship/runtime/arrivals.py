"""Runs on their way into this process: their ledgers say that it has them before it holds them."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager


class Arrivals:
    """The runs that are being started or taken over here."""

    def __init__(self) -> None:
        self._coming: dict[str, asyncio.Event] = {}
        self._mail: set[str] = set()

    def __contains__(self, run: str) -> bool:
        return run in self._coming

    async def wait(self, run: str) -> None:
        """Wait while the run is on its way."""
        while (coming := self._coming.get(run)) is not None:
            await coming.wait()

    def note_mail(self, run: str) -> None:
        """Something was heard for a run that is not here yet; if it is on its way, it has to look for its mail."""
        if run in self._coming:
            self._mail.add(run)

    def has_mail(self, run: str) -> bool:
        """Whether something was heard for it while it was on its way."""
        return run in self._mail

    @contextmanager
    def expect(self, runs: Iterable[str]) -> Generator[None]:
        """These runs are on their way for as long as the block runs."""
        events = {run: asyncio.Event() for run in runs}
        self._coming |= events
        try:
            yield
        finally:
            for run, event in events.items():
                del self._coming[run]
                self._mail.discard(run)
                event.set()
