"""Which positions of a shared store this process has appended itself, so that a follower can tell others' entries."""

from __future__ import annotations

import bisect
import contextlib
import operator
import threading
from collections.abc import Generator


class Own:
    """Ranges of positions by log, from the last that a follower has passed.

    The writer holds the lock from before a commit until it knows its outcome. Whoever has read entries takes it once
    before he asks: then every entry that he saw is either known here or somebody else's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ranges: dict[int, list[tuple[int, int]]] = {}

    @contextlib.contextmanager
    def settling(self) -> Generator[None]:
        """A commit, until its outcome is known."""
        with self._lock:
            yield

    settled = settling

    def add(self, log: int, first: int, last: int) -> None:
        """Positions that were committed; inside `settling`."""
        ranges = self._ranges.setdefault(log, [])
        if ranges and ranges[-1][1] == first - 1:
            ranges[-1] = (ranges[-1][0], last)
        else:
            ranges.append((first, last))

    def has(self, log: int, n: int) -> bool:
        """Whether a position is this process's; inside `settled`."""
        ranges = self._ranges.get(log, [])
        at = bisect.bisect_right(ranges, n, key=operator.itemgetter(0)) - 1
        return at >= 0 and n <= ranges[at][1]

    def passed(self, log: int, upto: int) -> None:
        """Forget what nobody will ask for again; inside `settled`."""
        ranges = self._ranges.get(log)
        if ranges:
            self._ranges[log] = [(first, last) for first, last in ranges if last > upto]
