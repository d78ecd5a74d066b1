"""Ids of runs to come, whose keys are made ahead: many keys become durable with one fsync, before anybody waits."""

from __future__ import annotations

from collections import deque
from typing import Final

from tightship.core.ids import new_id
from tightship.core.world import World
from tightship.ledger.keyring import Keyring

MOST: Final = 64
"""Ids that are made at once."""
SECONDS: Final = 60.0
"""How old an id may be when it is given out: ids sort by when they were made."""


class Reserve:
    """New ids of runs. Each refill makes twice as many as the one before, so no more lie idle than were ever used.

    A key that nobody comes to use seals nothing; it stays in the keystore.
    """

    def __init__(self, keyring: Keyring, world: World) -> None:
        self._keyring, self._world = keyring, world
        self._spare: deque[str] = deque()
        self._made = 0.0
        self._size = 1

    def take(self) -> str:
        """An id that nobody has, its key in memory, and on the disk before anything that is sealed with it."""
        now = self._world.clock.monotonic()
        if now - self._made > SECONDS:
            self._spare.clear()
            self._size = 1
        while self._spare:
            run = self._spare.popleft()
            if self._keyring.has(run):
                return run
        for _ in range(self._size):
            run = new_id("r", self._world)
            self._keyring.create(run)
            self._spare.append(run)
        self._made = now
        self._size = min(2 * self._size, MOST)
        return self._spare.popleft()
