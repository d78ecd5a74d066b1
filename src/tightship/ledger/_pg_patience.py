"""How long a server may say nothing while it is asked something.

The settings of the connection (`tcp_user_timeout`, keepalives) notice a machine that is gone. A relay, a pooler or a
server that is stuck takes what is sent to it all the same and never answers: that only whoever waits can notice.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    import psycopg

ANSWER_SECONDS: Final = 60.0
"""Silence after which a question is given up; a statement that waits for a lock gives up before (`LOCK_SECONDS`)."""
LONG_SECONDS: Final = 3600.0
"""The same for statements that go through whole tables: migrations, the exchange of projections."""
CLOSING_SECONDS: Final = 10.0
"""The same for what a closing store still waits for."""
_T = TypeVar("_T")


class Patience:
    """How much silence is borne, from question to question, by the connections that share it.

    Args:
        seconds: of silence; ANSWER_SECONDS by default.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = ANSWER_SECONDS if seconds is None else seconds
        self._closing = False

    @property
    def seconds(self) -> float:
        """What is borne now; safe from any thread, and heard by who waits already."""
        return min(self._seconds, CLOSING_SECONDS) if self._closing else self._seconds

    def closing(self) -> None:
        """From now on little is borne."""
        self._closing = True

    @contextlib.contextmanager
    def long(self) -> Generator[None]:
        """More is borne in this block."""
        before, self._seconds = self._seconds, max(self._seconds, LONG_SECONDS)
        try:
            yield
        finally:
            self._seconds = before


@functools.cache
def connection_class() -> type[psycopg.Connection[Any]]:
    """The client library's connection, closed when the server has said nothing for longer than its `patience`."""
    import psycopg

    class PatientConnection(psycopg.Connection[Any]):
        patience: Patience | None = None

        def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
            if self.patience is None or options.get("timeout") is not None:  # who listens awaits no answer
                return super().wait(gen, *args, **options)
            try:
                return super().wait(_answered(gen, self.patience), *args, **options)
            except _Silent as silence:
                self.close()  # an answer that still came would be taken for that to another question
                raise psycopg.OperationalError(str(silence)) from None

    return PatientConnection


class _Silent(Exception):
    """Nothing was heard for too long."""


def _answered(work: Generator[Any, Any, _T], patience: Patience) -> Generator[Any, Any, _T]:
    """What the client library waits for, step by step, ended after too long a silence.

    It is sent a true value when the connection is ready, and a false one some times a second in between.
    """
    heard = time.monotonic()
    try:
        wanted = next(work)
        while True:
            ready = yield wanted
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > patience.seconds:
                raise _Silent(f"it has not answered for {patience.seconds:g} seconds")
            wanted = work.send(ready)
    except StopIteration as end:
        return end.value
