"""Tells a process of a shared store what others have appended: LISTEN to be woken, then read from the last position.

A NOTIFY may be lost, and a LISTEN is deaf after the server was restarted; so nothing is taken from the notice but
whether it is time to look, and without one the follower looks every quarter of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

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

    Use `start`; while it runs, `Ledger.poll` has nothing to do. A ledger has one, which all who start it share.
    """

    def __init__(self, ledger: Ledger, backend: PostgresBackend, only: frozenset[str] | None, every: float) -> None:
        self._ledger, self._backend = ledger, backend
        self._only, self._every = only, every
        self._users: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._link = Link(backend.address)
        self._looked = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-follower", daemon=True)
        self.error: Exception | None = None
        """Why the last look did not succeed; None when it did."""

    @classmethod
    def start(cls, ledger: Ledger, only: frozenset[str] | None = kinds.TOLD, *, every: float = EVERY) -> Follower:
        """Follow a ledger on Postgres, from where it was opened or last polled; each start needs its own `close`.

        Args:
            only: the kinds that are told; None for all. One that tells of fewer kinds goes on telling those alone.
            every: seconds; of several who share it the shortest counts.

        Raises:
            TypeError: its store is not shared; others' entries come with its own appends.
        """
        backend = ledger.backend
        if not isinstance(backend, PostgresBackend):
            raise TypeError("only a shared store has to be followed")
        follower = ledger.hearing.follower
        if follower is None:
            follower = ledger.hearing.follower = cls(ledger, backend, only, every)
            follower._thread.start()
        follower._users.append(every)
        follower._every = min(follower._users)
        return follower

    def silent_for(self) -> float:
        """Seconds since others' entries were last looked for: silence is not freshness."""
        return time.monotonic() - self._looked

    async def close(self, every: float = EVERY) -> None:
        """End it, once all who have started it have said so.

        Args:
            every: as it was started with.
        """
        if every in self._users:
            self._users.remove(every)
        if self._users:
            self._every = min(self._users)
            return
        if self._ledger.hearing.follower is self:
            self._ledger.hearing.follower = None
        self._stop.set()
        self._link.closing()
        await asyncio.to_thread(self._thread.join)
        self._link.close()

    # --- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        heard: object = None
        while not self._stop.is_set():
            try:
                with self._link.held() as db:
                    if self._link.session is not heard:
                        db.execute(f'LISTEN "{self._backend.address.schema}"'.encode())
                        heard = self._link.session
                began = time.monotonic()
                entries = self._backend.foreign_by(self._link, self._ledger.followed, self._only)
                self._looked, self.error = began, None
                self._on_loop(self._tell, entries, began)
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

    def _on_loop(self, work: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed under us
            self._loop.call_soon_threadsafe(work, *args)

    def _tell(self, entries: list[Entry], began: float) -> None:
        self._ledger.tell(entries)
        self._ledger.hearing.caught_up(began)
