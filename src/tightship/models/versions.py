"""Which version of a model answers, as its provider reports it: a silent change is noticed at the first answer (F6).

What a tier reported last stands in the ledger, so a change between two processes is noticed as well. An answer costs a
look into a dictionary; only another version is an entry.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from tightship.core import kinds
from tightship.core.ids import CONDUCT
from tightship.ledger import Draft, Ledger

_DATED: Final = re.compile(r"\d{4}-?\d{2}-?\d{2}|\d{4}$")


class Versions:
    """The version that each tier has reported last, for one process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: dict[tuple[str, str], str] = {}
        self._known = False
        self._lock = asyncio.Lock()

    async def saw(self, tier: str, asked: str, reported: str, run: str) -> str:
        """Take in what an answer says.

        Args:
            tier: who was asked. asked: its model, `provider:name`. reported: the version. run: in which run.

        Returns: the version before it where it has changed with no change of ours, else nothing. A dated model that
            reports another version counts as changed at its first answer.

        Raises:
            StoreError: the change could not be recorded.
        """
        if not reported or self._last.get((tier, asked)) == reported:
            return ""
        async with self._lock:
            await self._learn()
            was = self._last.get((tier, asked), "")
            if was == reported:
                return ""
            pinned = asked.partition(":")[2]
            if not was and _DATED.search(pinned) and not _same(pinned, reported):
                was = pinned
            body = {"tier": tier, "asked": asked, "model": reported, **({"was": was, "run": run} if was else {})}
            await self._ledger.append(Draft(CONDUCT, kinds.MODEL, tier, body))
            self._last[tier, asked] = reported
            return was

    async def _learn(self) -> None:
        if self._known:
            return
        for entry in await self._ledger.run_entries(CONDUCT):
            if entry.kind == kinds.MODEL:
                self._last[entry.body["tier"], entry.body["asked"]] = entry.body["model"]
        self._known = True


def _same(pinned: str, reported: str) -> bool:
    """Whether a provider's name is that of the pinned model: some put the maker's name before it."""
    return pinned.rpartition("/")[2] == reported.rpartition("/")[2]
