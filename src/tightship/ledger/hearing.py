"""Who is told of entries, and until when all that others have appended was told: silence is not freshness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from tightship.core import kinds
from tightship.core.world import Clock
from tightship.ledger.entries import Entry
from tightship.ledger.vault import Vault

if TYPE_CHECKING:
    from tightship.ledger.follower import Follower

Listener = Callable[[list[Entry], bool], None]
"""Entries, and whether another process wrote them."""


class Hearing:
    """The listeners of one ledger.

    Args:
        vault: forgets keys that another process has destroyed. clock: monotonic time.
    """

    def __init__(self, vault: Vault, clock: Clock) -> None:
        self._vault = vault
        self._listeners: list[Listener] = []
        self.heard = clock.monotonic()
        """Monotonic time (s): what others had appended by then was told. It goes forward by looking, not by hearing:
        an entry of this process says nothing of those of others."""
        self.follower: Follower | None = None
        """Tells of others' entries, so that nobody has to ask."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell somebody; the function that is returned ends it."""
        self._listeners.append(listener)

        def stop() -> None:
            self._listeners = [one for one in self._listeners if one is not listener]

        return stop

    def caught_up(self, asked: float) -> None:
        """All that others had appended at this moment (monotonic s) was told."""
        self.heard = max(self.heard, asked)

    def deliver(self, entries: list[Entry], foreign: bool) -> None:
        """Tell everybody."""
        if foreign:
            self._forget_erased(entries)
        for listener in tuple(self._listeners):
            try:
                listener(entries, foreign)
            except Exception as error:  # one that fails must not keep the entries from the others
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a listener of the ledger raised", "exception": error}
                )

    def _forget_erased(self, entries: list[Entry]) -> None:
        """Another process has destroyed keys: they must not live on in our memory."""
        for entry in entries:
            if entry.kind == kinds.ERASED:
                self._vault.keyring.forget(entry.body["subject"])
                self._vault.forget(entry.body["subject"])
