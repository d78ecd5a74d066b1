"""Locks that a session of the database server holds: they end with the session, and so with the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tightship.core.errors import ExecutorBusy, StoreError
from tightship.ledger._pg import Address, connect, script, translate_errors

if TYPE_CHECKING:
    import psycopg

SILENT: Final = 10.0
"""Seconds for which a session that holds a lock may have asked nothing before it counts as frozen or cut off."""


def take(db: psycopg.Connection[Any], key: tuple[int, int]) -> bool:
    """Whether this session has taken an advisory lock whose holder asks something every few seconds.

    A frozen process keeps its session, and a cut cable leaves it to the server for minutes: a silent holder's session
    is ended, and the lock is free at the next try. The user may do so to sessions of its own name; those of another are
    left alone.
    """
    row = db.execute("SELECT pg_try_advisory_lock(%s, %s)", key).fetchone()
    if row is not None and row[0]:
        return True
    db.execute(script("end_silent_holder"), (*key, SILENT))
    return False


class ServerLock:
    """An advisory lock in a session of its own. Taking it may block for a moment.

    Args:
        url: the store's. purpose: what it is for; locks of several purposes do not meet.
    """

    def __init__(self, url: str, purpose: str) -> None:
        self._address = Address.of(url)
        self._key = self._address.lock(purpose)
        self._db: psycopg.Connection[Any] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            ExecutorBusy: another process holds it. StoreError and its kinds: as the server answers.
        """
        db = connect(self._address)
        try:
            with translate_errors(self._address):
                taken = db.execute("SELECT pg_try_advisory_lock(%s, %s)", self._key).fetchone()
                holder = None if taken and taken[0] else db.execute(script("lock_holder"), self._key).fetchone()
            if not taken or not taken[0]:
                who = f"the session {holder[0]} from {holder[1]}" if holder else "another process"
                raise ExecutorBusy(
                    f"{who} executes on this workspace",
                    where=self._address.shown,
                    fix="use it (`inbox`, `halt`, `runs watch` work beside it), stop it, or wait for it",
                )
        except BaseException:
            db.close()
            raise
        self._db = db

    def release(self) -> None:
        """Give it back."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock: a lost session holds nothing."""
        if self._db is None:
            return False
        try:
            with translate_errors(self._address):
                self._db.execute("SELECT")
        except StoreError:
            return False
        return True
