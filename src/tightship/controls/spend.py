"""What was spent: the `spend` table, by day, log, workflow, agent, tool or model. Budgets of periods start from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from tightship.core import kinds
from tightship.core.ports import Delta, EntryView

_SUMS = ("usd", "tokens_in", "tokens_out", "cached_in")


class SpendProjection:
    """Sums over settled effects: an answer from cache is a hit, a failure an error, a refusal a refusal."""

    table = "spend"
    key_columns: Sequence[str] = ("day", "log", "workflow", "agent", "name", "cls")
    kinds = frozenset({kinds.SETTLED})

    def __init__(self) -> None:
        self._day = ("", 0.0, 0.0)

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Add the settle to its row."""
        body = entry.body
        refused = "refused" in body or body.get("denied", False)
        add = {name: body[name] for name in _SUMS if body.get(name)}
        add["ms"] = round(body.get("ms", 0))
        if refused:
            add["refusals"] = 1
        elif body.get("cached"):
            add["hits"] = 1
        else:
            add["calls"] = 1
        if "error" in body and not refused:
            add["errors"] = 1
        key = (self._day_of(entry.at), entry.log, body.get("workflow", ""), body["agent"], body["name"], body["cls"])
        return (Delta(key, {}, add),)

    def _day_of(self, at: float) -> str:
        # Entries come in order, so the day is worked out once a day.
        day, start, end = self._day
        if not start <= at < end:
            start = at - at % 86_400
            day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
            self._day = (day, start, start + 86_400)
        return day
