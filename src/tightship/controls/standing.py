"""Runs of this process that only wait for what other runs have begun, and runs that are kept back meanwhile.

A run over which processes have ended is driven alone, once nothing else moves (runtime/takeover.py). What it had begun
is open until then: an action on a shared value that others wait to read, a part of a budget that it holds. Whoever
waits for that does not move, or the two would wait for each other.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator


class Standing:
    """Who stands still here, and for whom."""

    __slots__ = ("_waiting", "kept_back")

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self.kept_back: set[str] = set()
        """Runs here whose turn has not come: what they have begun does not end while they wait."""

    @contextlib.contextmanager
    def waits(self, run: str) -> Generator[None]:
        """Meanwhile this run waits for what other runs have begun."""
        self._waiting[run] += 1
        try:
            yield
        finally:
            self._waiting[run] -= 1
            if not self._waiting[run]:
                del self._waiting[run]

    def __contains__(self, run: object) -> bool:
        """Whether a run waits so."""
        return run in self._waiting
