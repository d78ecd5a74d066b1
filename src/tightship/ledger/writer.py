"""Group commit: callers wait, one writer commits all that waits in one fsync'd transaction."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from tightship.core.errors import StoreError
from tightship.ledger.entries import Entry, Unit

CommitFunction = Callable[[list[Unit]], list[Entry]]
DeliverFunction = Callable[[list[Entry], bool], None]
MAX_BATCH = 2048
HAND_OVER_SECONDS = 0.0005
"""How long one thread keeps the interpreter lock while another waits for it (CPython's default is 5 ms).

A commit asks for the lock once per statement. With the default, an event loop that is busy holds every statement up for
as long as its burst of work lasts, and while it does nothing is written. The setting is the process's.
"""


class Commitment(asyncio.Future[list[Entry]]):
    """What waits for a unit. It cannot be cancelled: whoever is cut off hears of it once the outcome is known.

    A task that is cancelled while it awaits this is told so (CancelledError) once the unit is on the disk or refused,
    and finds the outcome here: nobody ever has to guess whether something was written.
    """

    __slots__ = ()

    def cancel(self, msg: object | None = None) -> bool:
        """Refused: what was handed to the writer is on its way."""
        return False


class Writer(Protocol):
    """A port: a thread in a live process, in the loop itself under simulation."""

    def submit(self, unit: Unit) -> Commitment:
        """Queue a unit; the future gives its entries or raises its refusal or the store's error."""
        ...

    def job(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run something on the writer between two batches."""
        ...

    async def close(self) -> None:
        """Commit what waits and stop. What is submitted later is refused."""
        ...


class _Job:
    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.work, self.future = work, future
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.work()
        except Exception as error:
            self.error = _passable(error)

    def resolve(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def _passable(error: BaseException) -> Exception:
    """The error as a future can carry it: one that would end the writer's thread ends the caller's wait instead."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return StoreError(f"the writer was interrupted: {error!r}")


def _closed() -> StoreError:
    return StoreError("the ledger is closed", fix="open it again")


def commit_units(
    commit: CommitFunction, units: list[Unit], caught: type[BaseException]
) -> tuple[list[Entry], Exception | None]:
    """Commit a batch: others' entries, and the error that has kept all of it from the disk, and what comes behind."""
    try:
        return commit(units), None
    except caught as failure:
        error = _passable(failure)
    for unit in units:
        unit.refuse(error)
    return [], error


def resolve_units(units: list[Unit], error: BaseException | None) -> None:
    """Give each caller its outcome."""
    for unit in units:
        future = unit.future
        if future is None or future.done():
            continue
        failure = error or unit.refusal
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(unit.entries)


class ThreadWriter:
    """A writer thread, fed once per tick of the event loop: one hand-over carries all that the tick has queued."""

    def __init__(self, commit: CommitFunction, deliver: DeliverFunction) -> None:
        self._commit = commit
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Unit] = []
        self._fed = False
        self._open = True
        self._queue: queue.SimpleQueue[list[Unit] | _Job | None] = queue.SimpleQueue()
        sys.setswitchinterval(min(sys.getswitchinterval(), HAND_OVER_SECONDS))
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, unit: Unit) -> Commitment:
        """Queue a unit for the next hand-over."""
        future = unit.future = Commitment(loop=self._loop)
        if not self._open:
            future.set_exception(_closed())
            return future
        self._waiting.append(unit)
        if not self._fed:
            self._fed = True
            self._loop.call_soon(self._feed)
        return future

    def job(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Queue a job."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._open:
            future.set_exception(_closed())
            return future
        self._feed()
        self._queue.put(_Job(work, future))
        return future

    def _feed(self) -> None:
        self._fed = False
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._queue.put(waiting)

    async def close(self) -> None:
        """Feed what waits, then end the thread."""
        self._feed()
        self._open = False
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # let the last outcomes reach their callers

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            units: list[Unit] = []
            while isinstance(item, list):
                units.extend(item)
                if len(units) >= MAX_BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            if units:
                self._commit_batch(units)
            if isinstance(item, _Job):
                try:
                    item.run()
                except BaseException as error:
                    item.error = _passable(error)
                self._call(item.resolve)
            elif item is None:
                return

    def _commit_batch(self, units: list[Unit]) -> None:
        self._call(self._finish, units, *commit_units(self._commit, units, BaseException))

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop was closed under us: nobody waits any more
            return

    def _finish(self, units: list[Unit], foreign: list[Entry], error: BaseException | None) -> None:
        finish(self._deliver, units, foreign, error)


def finish(
    deliver: DeliverFunction,
    units: list[Unit],
    foreign: list[Entry],
    error: BaseException | None,
) -> None:
    """Resolve the callers, then tell the listeners, others' entries first since they came first."""
    resolve_units(units, error)
    if foreign:
        deliver(foreign, True)
    if error is None:
        own = [entry for unit in units if unit.refusal is None for entry in unit.entries]
        if own:
            deliver(own, False)


class LoopWriter:
    """The writer inside the loop: each tick's units are one batch. Deterministic; for simulation and tests."""

    def __init__(self, commit: CommitFunction, deliver: DeliverFunction) -> None:
        self._commit = commit
        self._deliver = deliver
        self._waiting: list[Unit] = []
        self._open = True

    def submit(self, unit: Unit) -> Commitment:
        """Queue a unit for the end of this tick."""
        loop = asyncio.get_running_loop()
        future = unit.future = Commitment(loop=loop)
        if not self._open:
            future.set_exception(_closed())
            return future
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append(unit)
        return future

    def job(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run it now."""
        job = _Job(work, asyncio.get_running_loop().create_future())
        if not self._open:
            job.error = _closed()
        else:
            self._flush()
            job.run()
        job.resolve()
        return job.future

    def _flush(self) -> None:
        units, self._waiting = self._waiting, []
        if not units:
            return
        finish(self._deliver, units, *commit_units(self._commit, units, Exception))

    async def close(self) -> None:
        """Commit what waits."""
        self._flush()
        self._open = False
