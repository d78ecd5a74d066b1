"""The `incidents` table: breakers that opened and closed, and arguments that were invented; for metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tightship.controls.spend import day_of
from tightship.core import kinds
from tightship.core.errors import InventedArgument
from tightship.core.ports import Delta, EntryView

BREAKER: Final = "breaker"
INVENTED: Final = "invented"


class IncidentsProjection:
    """One row per day (UTC), log, kind, name and state.

    Of a breaker, the name is what it stands before, the state what it came to; of an invented argument, the name is the
    tool, the state the agent.
    """

    table = "incidents"
    key_columns: Sequence[str] = ("day", "log", "kind", "name", "state")
    kinds = frozenset({kinds.NOTE, kinds.SETTLED})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Count it; what a fork has taken over happened in another run."""
        body = entry.body
        if "copied" in body:
            return ()
        if entry.kind == kinds.NOTE:
            if body.get("type") != BREAKER:
                return ()
            return (_one(entry, BREAKER, body["name"], body["state"]),)
        if not body.get("denied") or body["error"]["error"] != InventedArgument.__name__:
            return ()
        return (_one(entry, INVENTED, body["name"], body["agent"]),)


def _one(entry: EntryView, kind: str, name: str, state: str) -> Delta:
    return Delta((day_of(entry.at), entry.log, kind, name, state), add={"count": 1})
