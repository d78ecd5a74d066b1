"""Tells a process of a shared store what others have appended: LISTEN to be woken, then read from the last position.

A NOTIFY may be lost, and a LISTEN is deaf after the server was restarted; so nothing is taken from the notice but
whether it is time to look, and without one the follower looks every quarter of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Final

from tightship.core import kinds
from tightship.core.errors import TightshipError
from tightship.ledger._pg import Link, translate_errors
from tightship.ledger.postgres import PostgresBackend

if TYPE_CHECKING:
    from psycopg import Notify

    from tightship.ledger.entries import Entry
    from tightship.ledger.ledger import Ledger

EVERY: Final = 0.25
"""Seconds without a notice after which it looks by itself."""


class Follower:
    """Others' entries for the ledger's listeners (`foreign=True`), in the order in which they were committed.

    Use `start`; while it runs, `Ledger.poll` has nothing to do.
    """

    def __init__(self, ledger: Ledger, backend: PostgresBackend, only: frozenset[str] | None, every: float) -> None:
        self._ledger, self._backend = ledger, backend
        self._only, self._every = only, every
        self._loop = asyncio.get_running_loop()
        self._link = Link(backend.address)
        self._looked = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-follower", daemon=True)
        self.error: Exception | None = None
        """Why the last look did not succeed; None when it did."""

    @classmethod
    def start(cls, ledger: Ledger, only: frozenset[str] | None = kinds.TOLD, *, every: float = EVERY) -> Follower:
        """Follow a ledger on Postgres, from where it was opened or last polled.

        Args:
            only: the kinds that are told; None for all.
            every: seconds.

        Raises:
            TypeError: its store is not shared; others' entries come with its own appends.
        """
        backend = ledger.backend
        if not isinstance(backend, PostgresBackend):
            raise TypeError("only a shared store has to be followed")
        follower = cls(ledger, backend, only, every)
        ledger.following = True
        follower._thread.start()
        return follower

    def silent_for(self) -> float:
        """Seconds since others' entries were last looked for: silence is not freshness."""
        return time.monotonic() - self._looked

    async def close(self) -> None:
        """End it."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join)
        self._link.close()
        self._ledger.following = False

    # --- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        heard: object = None
        while not self._stop.is_set():
            try:
                with self._link.held() as db:
                    if self._link.session is not heard:
                        db.execute(f"LISTEN {self._backend.address.schema}".encode())
                        heard = self._link.session
                began = time.monotonic()
                entries = self._backend.foreign_by(self._link, self._ledger.followed, self._only)
                self._looked, self.error = began, None
                if entries:
                    self._tell(entries)
                if self._link.session is heard:
                    self._wait()
            except TightshipError as error:
                self.error = error
                self._link.drop()
                self._stop.wait(self._every)

    def _wait(self) -> None:
        """Until something is heard that may be followed, for a while at most."""
        end = time.monotonic() + self._every
        with self._link.held() as db, translate_errors(self._backend.address):
            while (left := end - time.monotonic()) > 0:
                if any([self._concerns(notice) for notice in db.notifies(timeout=left, stop_after=1)]):
                    return

    def _concerns(self, notice: Notify) -> bool:
        """Whether others may have appended what is followed; this process's own batches are none of its business."""
        if notice.pid == self._backend.writing_as:
            return False
        return self._only is None or not self._only <= kinds.TOLD or '"mail":false' not in notice.payload

    def _tell(self, entries: list[Entry]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed under us
            self._loop.call_soon_threadsafe(self._ledger.tell, entries)
