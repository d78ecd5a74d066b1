"""The jobs of a shared store: wake-ups that come with the append, and what is done once for all workers.

They hold no truth about a run. Due runs are in the table of runs, which every worker looks at by itself; what is done
again and again may be done twice. So a lost job, a dead engine of jobs or a dropped table costs latency and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from tightship.core.errors import StoreError
from tightship.runtime.timetable import Periodic, attempt

if TYPE_CHECKING:
    from procrastinate.worker import Worker

    from tightship.ledger._pg import Address
    from tightship.runtime._jobs_engine import Queues

FIRST_PAUSE: Final = 0.5
"""Seconds until an engine that has ended is started anew; twice as long each time, up to `LONGEST_PAUSE`."""
LONGEST_PAUSE: Final = 5.0
STEADY: Final = 10.0
"""Seconds after which an engine that ends has run well: the next is started soon again."""
CLOSING_SECONDS: Final = 15.0
"""How long its thread may take to end, before and after it is cut off; Procrastinate itself takes a few."""


class Jobs(Protocol):
    """What carries jobs to this process."""

    @property
    def alive(self) -> bool:
        """Whether jobs are carried out at present; while they are not, whoever executes does it by itself."""
        ...

    async def start(self) -> None:
        """Begin."""
        ...

    async def close(self) -> None:
        """End it; jobs under way have a moment."""
        ...


class PostgresJobs:
    """Procrastinate in the store's own schema, in a thread of its own: a busy event loop misses no beat of it.

    Args:
        url: the store's. build: the code that this worker runs.
        wake: called on the event loop when something has become due. periodic: what is done again and again.
    """

    def __init__(self, url: str, build: str, wake: Callable[[], None], periodic: Sequence[Periodic]) -> None:
        self._url, self._build = url, build
        self._wake, self._periodic = wake, periodic
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._engine: tuple[Worker, asyncio.AbstractEventLoop] | None = None
        self._work_task: tuple[asyncio.Task[Any], asyncio.AbstractEventLoop] | None = None
        self._thread: threading.Thread | None = None
        self._said = ""
        self.woken = 0
        """How often this worker was woken by a job."""

    @property
    def alive(self) -> bool:
        """Whether the engine runs."""
        return self._engine is not None

    async def start(self) -> None:
        """Make the tables where there are none, and begin.

        Raises:
            StoreError: Procrastinate is not installed, or its tables cannot be made by this user.
        """
        from tightship.ledger._pg import Address

        address = Address.of(self._url)
        where = await asyncio.to_thread(self._prepare, address)
        from tightship.runtime._jobs_engine import THREAD

        self._thread = threading.Thread(target=self._run, args=(address, where), name=THREAD, daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """End it; what waits for a server that does not answer is cut off, and losing a job costs nothing but time."""
        self._stop.set()
        with self._lock:
            if self._engine is not None:
                worker, loop = self._engine
                loop.call_soon_threadsafe(worker.stop)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, CLOSING_SECONDS)
            with self._lock:
                if self._work_task is not None:
                    work, loop = self._work_task
                    loop.call_soon_threadsafe(work.cancel)
            await asyncio.to_thread(self._thread.join, CLOSING_SECONDS)

    def _prepare(self, address: Address) -> Queues:
        try:
            import procrastinate  # noqa: F401  # pyright: ignore[reportUnusedImport]
        except ImportError as error:
            raise StoreError(
                f"workers of a Postgres store need procrastinate, which cannot be imported: {error}",
                fix="pip install 'tightship[postgres]'",
            ) from None
        from tightship.ledger.pg_jobs import prepare_jobs, queues
        from tightship.runtime._jobs_engine import Queues

        prepare_jobs(address)
        return Queues(*queues(address, self._build))

    # --- the thread --------------------------------------------------------------------------------

    def _run(self, address: Address, where: Queues) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            began = time.monotonic()
            why = "its worker has ended"
            try:
                asyncio.run(self._work(address, where))
            except asyncio.CancelledError:  # it is being closed
                return
            except Exception as error:  # the engine's own defects end no worker of ours
                why = type(error).__name__
            if time.monotonic() - began > STEADY:
                pause, self._said = FIRST_PAUSE, ""
            self._say(why)
            self._stop.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _work(self, address: Address, where: Queues) -> None:
        """Run one worker of Procrastinate's until it ends."""
        task = asyncio.current_task()
        assert task is not None
        with self._lock:
            self._work_task = task, asyncio.get_running_loop()
        try:
            await self._run_worker(address, where)
        finally:
            with self._lock:
                self._work_task = None

    async def _run_worker(self, address: Address, where: Queues) -> None:
        from tightship.runtime._jobs_engine import keep_quiet, make_app, make_worker

        keep_quiet()
        app = make_app(address, where, self._woken, self._periodic, self._call)
        keep_quiet()
        async with app.open_async():
            worker = make_worker(app, where)
            with self._lock:
                if self._stop.is_set():
                    return
                self._engine = worker, asyncio.get_running_loop()
            try:
                await worker.run()
            finally:
                with self._lock:
                    self._engine = None

    def _say(self, what: str) -> None:
        """Log that jobs are not carried out, once; an error's text may hold a part of the server's address."""
        if not self._stop.is_set() and what != self._said:
            self._said = what
            logging.getLogger(__name__).warning("jobs are not carried out, and every worker looks itself: %s", what)

    async def _woken(self) -> None:
        self.woken += 1
        with contextlib.suppress(RuntimeError):  # the loop was closed under us
            self._loop.call_soon_threadsafe(self._wake)

    async def _call(self, one: Periodic) -> None:
        """Do it on the worker's own event loop, where all its state is."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(attempt(one), self._loop))
