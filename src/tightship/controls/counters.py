"""The `counters` table: what has been counted for a run and all runs below it, whichever processes drive them (F1).

A handoff and a peer's messages count for the run that they are of and for those above it, which their notes name. The
sums are folded in the append's transaction, so a guard (`Guards.counts`) lets exactly so many through as are allowed,
however many processes ask at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tightship.controls.limits import HANDOFF, PEER_TURN
from tightship.core import kinds
from tightship.core.ports import Delta, EntryView


class CountersProjection:
    """One row per run in which, or below which, control has passed or peers have sent messages."""

    table = "counters"
    key_columns: Sequence[str] = ("run",)
    kinds = frozenset({kinds.NOTE, kinds.SIGNAL})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Add what the entry counts."""
        body = entry.body
        if entry.kind == kinds.SIGNAL:
            return _taken_over(entry.run, body)
        added: dict[str, Any] = {}
        if body.get("type") == HANDOFF:
            added = {"handoffs": 1}
        elif body.get("type") == PEER_TURN and body.get("messages"):
            added = {"messages": int(body["messages"])}
        if not added or not entry.run:
            return ()
        return [Delta((run,), add=dict(added)) for run in (entry.run, *body.get("above", ()))]


def _taken_over(run: str, body: Mapping[str, Any]) -> Iterable[Delta]:
    """What an ended child of the run has told of was counted when it happened; to a fork it is only told."""
    if "copied" not in body:
        return ()
    added = {"handoffs": len(body.get("handoffs", ())), "messages": sum(body.get("messages", {}).values())}
    return [Delta((run,), add=added)] if any(added.values()) else ()
