"""The envelopes of runs and of the runs above them: what a child spends, its parent's budget covers too.

A run's envelope is one object for all of its family that is here: its children reserve in it what they spend. It is
made from the ledger when the first of them comes (a child may go on while its parent is parked), charged with what the
run and all runs below it have spent, and forgotten when the last of them has left. Other processes may drive others of
the family at the same time: what all of them spend is counted by the store (`controls.family`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightship.controls.budgets import Amount, Chain, Limit
from tightship.controls.family import RunEnvelope
from tightship.controls.limits import Handoffs, Messages
from tightship.controls.rebuild import rebuild
from tightship.core import kinds
from tightship.ledger import Entry, Ledger


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a run and all runs below it may do together: spend, ask (attempts at anything outside), hand over, and send
    messages from peer to peer."""

    budget: Limit
    requests: int
    handoffs: int
    messages: int


@dataclass(slots=True)
class _Member:
    envelope: RunEnvelope
    parent: str
    requests: int
    """The most that it and the runs below it ask of anything outside (`limits.requests`)."""
    handoffs: Handoffs
    """How often control has passed in it and in the runs below it."""
    messages: Messages
    """What peers have sent in it and in the runs below it."""
    here: int = 0
    """How many runs are here that pay from it: itself, and runs below it."""


class Families:
    """The envelopes of the runs of one process.

    Args:
        ledger: where the figures come from.
        bounds: what a run and all runs below it may do, by its first entry.
    """

    def __init__(self, ledger: Ledger, bounds: Callable[[Entry], Awaitable[Bounds]]) -> None:
        self._ledger = ledger
        self._bounds = bounds
        self._members: dict[str, _Member] = {}
        self._loading = asyncio.Lock()

    def begin(self, run: str, parent: str, bounds: Bounds) -> None:
        """A new run is here; its parent is."""
        self._members[run] = self._member(run, parent, bounds)
        self._count(run, 1)

    async def parents(self, runs: list[str]) -> set[str]:
        """Those of some runs that have children."""
        return {row["parent"] for row in await self._ledger.select("runs", [("parent", "in", runs)])}

    async def join(self, run: str, parent: str, entries: Sequence[Entry], childless: bool) -> None:
        """A run that was taken over is here.

        Raises:
            StoreError: the disk. TightshipError: a run above it cannot be read.
        """
        async with self._loading:  # two children of one parent make its envelope once
            await self._bring(run, parent, entries, childless)
            if not childless:
                self._members[run].envelope.counted = True
            self._count(run, 1)
            for member in self._above(run):  # another process may have driven it since
                member.handoffs.restore(entries)
                member.messages.restore(entries)

    def leave(self, run: str) -> None:
        """A run is not here any more."""
        self._count(run, -1)

    def line(self, run: str) -> list[tuple[str, RunEnvelope]]:
        """The envelopes that a run pays from with their runs' ids, the outermost first and its own last."""
        return [(member.handoffs.run, member.envelope) for member in self._above(run)][::-1]

    def quotas(self, run: str) -> list[tuple[str, RunEnvelope, int]]:
        """How often a run and those above it may ask: id, envelope (which counts the calls of the family), the most."""
        return [(member.handoffs.run, member.envelope, member.requests) for member in self._above(run)]

    def handoffs(self, run: str) -> list[Handoffs]:
        """The counters of a run and of those above it, its own first."""
        return [member.handoffs for member in self._above(run)]

    def messages(self, run: str) -> list[Messages]:
        """The same of messages between peers."""
        return [member.messages for member in self._above(run)]

    def alone(self, run: str) -> bool:
        """Whether a run has none above it, and no child of it was started."""
        return not self._members[run].envelope.counted

    def _above(self, run: str) -> list[_Member]:
        """A run and those above it, itself first."""
        found: list[_Member] = []
        while run:
            member = self._members[run]
            found.append(member)
            run = member.parent
        return found

    def _count(self, run: str, change: int) -> None:
        while run:
            member = self._members[run]
            member.here += change
            if not member.here:
                del self._members[run]
            run = member.parent

    def _member(self, run: str, parent: str, bounds: Bounds, childless: bool = True) -> _Member:
        envelope = RunEnvelope(run, bounds.budget, self._look, counted=bool(parent) or not childless)
        handoffs, messages = Handoffs(run, bounds.handoffs), Messages(run, bounds.messages)
        return _Member(envelope, parent, bounds.requests, handoffs, messages)

    async def _look(self, run: str) -> Mapping[str, Any] | None:
        """What the store has counted for a run and those below it."""
        rows = await self._ledger.select("counters", [("run", "=", run)])
        return rows[0] if rows else None

    # --- from the ledger -------------------------------------------------------------------------

    async def _bring(self, run: str, parent: str, entries: Sequence[Entry], childless: bool = False) -> None:
        if run in self._members:
            return
        if parent and parent not in self._members:
            above = await self._ledger.run_entries(parent)
            await self._bring(parent, above[0].body.get("parent", ""), above)
        bounds = await self._bounds(entries[0])
        made = self._member(run, parent, bounds, childless)
        chain = Chain([made.envelope])
        _take_in(chain, made, entries)
        for entry in entries:
            if entry.kind == kinds.EXTENDED and entry.body["scope"] == "run":
                made.envelope.extend(granted(entry))
        await self._charge_below(chain, made, [] if childless else [run])
        self._members[run] = made

    async def _charge_below(self, chain: Chain, made: _Member, runs: list[str]) -> None:
        """Charge what runs below have spent: an ended one's totals, and the effects of the others.

        An ended one has told of its handoffs and messages in its signal, which the entries of the run above it hold."""
        while runs:
            rows = await self._ledger.select("runs", [("parent", "in", runs)])
            for row in rows:
                if row["state"] == "ended":
                    chain.charge(Amount(row["usd"], row["tokens_in"] + row["tokens_out"], row["calls"]))
            left = [row["id"] for row in rows if row["state"] != "ended"]
            for entries in (await self._ledger.runs_entries(left)).values() if left else ():
                _take_in(chain, made, entries)
            runs = [row["id"] for row in rows]


def granted(entry: Entry) -> Amount:
    """What an extension grants."""
    body = entry.body
    return Amount(int(body.get("usd", 0)), int(body.get("tokens", 0)), int(body.get("calls", 0)))


def _take_in(chain: Chain, made: _Member, entries: Sequence[Entry]) -> None:
    rebuild(entries, lambda _: chain)
    made.handoffs.restore(entries)
    made.messages.restore(entries)
