"""Reading off the event loop: one thread, which nobody waits for any longer than a store may take to answer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from tightship.core.errors import StoreError, StoreLost
from tightship.ledger import _pg_patience

CLOSING_SECONDS: Final = 45.0
"""How long a closing ledger waits for what is being read. A store that does not answer is given up well before; this is
for a disk that does not."""
_T = TypeVar("_T")


class _Wanted(NamedTuple):
    """What is to be read, who waits for it, and since when (monotonic, s)."""

    function: Callable[[], Any]
    future: concurrent.futures.Future[Any]
    since: float


class Reader:
    """A thread that reads, one thing after the other.

    Whatever has waited behind a store that did not answer is told the same after a while, and does not try it anew:
    the time that a reading takes does not grow with how many wait.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Wanted | None] = queue.SimpleQueue()
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._lost: tuple[float, StoreLost] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ledger-reader", daemon=True)
        self._thread.start()

    async def read(self, function: Callable[[], _T]) -> _T:
        """What the function gives, called on the thread.

        Raises:
            whatever it raises. StoreLost: the store has not answered others that came before.
            StoreError: the ledger was closed meanwhile.
        """
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        self._queue.put(_Wanted(function, future, time.monotonic()))
        return await asyncio.wrap_future(future)

    async def close(self) -> bool:
        """End it, once all has been read that was asked for; whether the thread has ended.

        Where it hangs nonetheless, whoever waits is told, and the thread is left to end with the process.
        """
        self._closed = True
        self._queue.put(None)
        ended = asyncio.get_running_loop().create_future()
        watch = (asyncio.get_running_loop(), ended)
        threading.Thread(target=self._watch, args=watch, name="ledger-reader-end", daemon=True).start()
        await ended
        if not self._thread.is_alive():
            return True
        with contextlib.suppress(queue.Empty):  # first what it has not begun, so that it never will
            while True:
                self._queue.get_nowait()
        self._queue.put(None)
        for future in tuple(self._waiting):
            self._settle(future, None, _closed())
        return False

    def _watch(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        self._thread.join(CLOSING_SECONDS)
        with contextlib.suppress(RuntimeError):  # the loop was closed under us
            loop.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(None))

    def _run(self) -> None:
        while (wanted := self._queue.get()) is not None:
            if not wanted.future.set_running_or_notify_cancel():
                continue
            try:
                self._settle(wanted.future, self._read(wanted), None)
            except BaseException as error:
                self._settle(wanted.future, None, error)
            del wanted  # and with it what was read

    def _read(self, wanted: _Wanted) -> Any:
        if self._lost is not None and self._lost[0] > wanted.since:
            late = time.monotonic() - wanted.since > _pg_patience.ANSWER_SECONDS
            if late or self._closed:
                raise type(self._lost[1])(self._lost[1].message, where=self._lost[1].where, fix=self._lost[1].fix)
        try:
            return wanted.function()
        except StoreLost as error:
            self._lost = (time.monotonic(), error)
            raise

    @staticmethod
    def _settle(future: concurrent.futures.Future[Any], result: Any, error: BaseException | None) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # nobody waits any more
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _closed() -> StoreError:
    return StoreError("the ledger was closed, and the store has not answered", fix="look at the store; then try again")
