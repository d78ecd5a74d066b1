"""A lock that a session of the database server holds: it ends with the session, and so with the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tightship.core.errors import ExecutorBusy, StoreError
from tightship.ledger._pg import Address, connect, script, translate_errors

if TYPE_CHECKING:
    import psycopg


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
