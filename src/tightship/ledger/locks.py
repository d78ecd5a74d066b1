"""The executor lock: one process at a time executes runs on a workspace, where no workers share it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final, Protocol

from tightship.core.errors import ExecutorBusy, StoreReadOnly

EXECUTOR_LOCK: Final = "executor.lock"
_TRIES = 5
_WAIT = 0.02
"""Seconds between two tries: another command may look for a moment whether anybody holds the lock."""


class Lock(Protocol):
    """A lock that ends with its process, however it ends. Taking it may block."""

    def acquire(self) -> None:
        """Take it.

        Raises:
            ExecutorBusy: another process holds it. StoreError and its kinds: it cannot be tried.
        """
        ...

    def release(self) -> None:
        """Give it back."""
        ...

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        ...


def executor_lock(where: Path | str, folder: Path) -> Lock:
    """The executor lock of the store in a folder or at a URL."""
    if isinstance(where, str):
        from tightship.ledger.pg_lock import ServerLock

        return ServerLock(where, "executor")
    return ExecutorLock(folder / EXECUTOR_LOCK)


class ExecutorLock:
    """An flock'd file that names its holder. The lock ends with the process, however it ends. Taking it may block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            ExecutorBusy: another process holds it.
            StoreReadOnly: the file cannot be written.
        """
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreReadOnly(
                f"the lock file cannot be opened: {error.strerror}",
                where=str(self._path),
                fix="make the store's folder writable, or choose another in tightship.yaml",
            ) from None
        if not _lock(handle):
            holder = os.read(handle, 64).decode(errors="replace").strip()
            os.close(handle)
            raise ExecutorBusy(
                f"process {holder or 'unknown'} executes on this workspace",
                where=str(self._path),
                fix="use it (`inbox`, `halt`, `runs watch` work beside it), stop it, or wait for it",
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self._handle = handle

    def release(self) -> None:
        """Give it back."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._handle is not None


def _lock(handle: int) -> bool:
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_WAIT)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False
