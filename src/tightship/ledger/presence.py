"""Who executes on a shared store: each worker is registered, and shows every second that it lives.

A worker that was killed is noticed at once: the server ends its session, and with it the advisory lock that it held.
One that is frozen, or cut off, is noticed by its beat, which is then older than the lease. The worker itself counts
from when it *sent* its last beat that arrived, so that its own lease ends before anybody takes its runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from tightship.core.errors import StoreError
from tightship.ledger._pg import Address, connect, script, translate_errors
from tightship.ledger._pg_patience import Patience

if TYPE_CHECKING:
    import psycopg

BEAT: Final = 1.0
"""Seconds between two beats."""
LEASE: Final = 10.0
"""Seconds after its last beat until a worker counts as dead."""
OnLost = Callable[[str], Awaitable[None]]


class Presence:
    """A worker's registration, kept up by a thread of its own over a connection of its own.

    When it is lost (the server was restarted, the process stood still for longer than the lease), whatever this worker
    owns may be taken by others; it is registered anew under another id. Use `start`.
    """

    def __init__(self, url: str, build: str, on_lost: OnLost | None, every: float, lease: float) -> None:
        self._address = Address.of(url)
        self._build = build
        self._on_lost = on_lost
        self._every, self._lease = every, lease
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._id = ""
        self._sent = 0.0
        self._stop = threading.Event()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._calls: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="worker-presence", daemon=True)

    @classmethod
    async def start(
        cls, url: str, build: str, on_lost: OnLost | None = None, *, every: float = BEAT, lease: float = LEASE
    ) -> Presence:
        """Register a worker.

        Args:
            url: the store's. build: the code that it runs.
            on_lost: called with the id that was lost, on the event loop.
            every, lease: seconds; every worker of a store has the same.

        Raises:
            StoreError and its kinds: as the server answers.
        """
        presence = cls(url, build, on_lost, every, lease)
        presence._thread.start()
        try:
            await presence._ready
        except BaseException:
            await presence.close()
            raise
        return presence

    @property
    def id(self) -> str:
        """The worker's id; another one after a loss, empty while there is none."""
        return self._id

    @property
    def alive(self) -> bool:
        """Whether others take this worker for alive."""
        return self.lease_left() > 0

    def lease_left(self) -> float:
        """Seconds for which nobody may take what this worker owns; 0 when they have run out."""
        with self._lock:
            return max(self._sent + self._lease - time.monotonic(), 0.0) if self._id else 0.0

    async def close(self) -> None:
        """End it: what this worker owns is free at once."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join)
        for task in tuple(self._calls):
            await asyncio.wait([task])

    # --- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = 0.05
        while not self._stop.is_set():
            try:
                with (
                    contextlib.closing(connect(self._address, Patience(self._lease))) as db,
                    translate_errors(self._address),
                ):
                    self._register(db)
                    pause = 0.05
                    self._beat(db)
            except StoreError as error:
                self._call(_fail, self._ready, error)
            self._lose()
            self._stop.wait(pause)
            pause = min(pause * 2, self._every)

    def _register(self, db: psycopg.Connection[Any]) -> None:
        db.execute("SET statement_timeout TO '5s'")
        db.execute(script("forget_workers"))
        worker = f"w-{secrets.token_hex(8)}"
        sent = time.monotonic()
        row = db.execute(script("register"), (worker, socket.gethostname(), os.getpid(), self._build)).fetchone()
        assert row is not None
        db.execute("SELECT pg_advisory_lock(%s, %s)", (self._address.workers, row[0]))
        with self._lock:
            self._id, self._sent = worker, sent
        self._call(_succeed, self._ready)

    def _beat(self, db: psycopg.Connection[Any]) -> None:
        """Beat until it is ended, or too late."""
        while not self._stop.wait(self._every):
            sent = time.monotonic()
            if sent - self._sent > self._lease:
                return  # it stood still: others may have taken what it owned
            if db.execute(script("beat"), (self._id,)).fetchone() is None:
                return
            with self._lock:
                self._sent = sent
        with self._lock:
            left, self._id = self._id, ""  # before anybody else can know: nothing is sent from here on
        db.execute(script("unregister"), (left,))
        db.execute(script("wake_for_released"), (left,))

    def _lose(self) -> None:
        with self._lock:
            lost, self._id = self._id, ""
        if lost and self._on_lost is not None and not self._stop.is_set():
            self._call(self._tell, lost)

    def _tell(self, lost: str) -> None:
        assert self._on_lost is not None
        task = asyncio.ensure_future(self._on_lost(lost))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed under us
            self._loop.call_soon_threadsafe(function, *args)


def _succeed(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _fail(ready: asyncio.Future[None], error: Exception) -> None:
    if not ready.done():
        ready.set_exception(error)
