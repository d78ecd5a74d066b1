"""The `spend` table: what was spent per day, workflow, agent and tool or model, folded from settled effects (C1)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from tightship.core import kinds
from tightship.core.ports import Delta, EntryView

SUMS = ("calls", "usd", "tokens_in", "tokens_out", "cached_in", "ms", "hits", "errors", "refusals")
"""The columns that are summed; `usd` in nano-dollars, `ms` in milliseconds."""


class SpendProjection:
    """One row per day (UTC), log, workflow, agent, name and class of effect.

    `calls` counts attempts that went out, as budgets count them; `errors` those of them that failed. What was answered
    from cache is a hit, what was refused a refusal, and neither is a call.
    """

    table = "spend"
    key_columns: Sequence[str] = ("day", "log", "workflow", "agent", "name", "cls")
    kinds = frozenset({kinds.SETTLED})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Add one settled attempt; what a fork has taken over was spent by another run, what was rehearsed by none."""
        body = entry.body
        if "copied" in body or (body.get("meta") or {}).get("rehearsal"):
            return ()
        key = (
            day_of(entry.at),
            entry.log,
            body.get("workflow") or "",
            body.get("agent") or "",
            body.get("name") or "",
            body.get("cls") or "",
        )
        if "refused" in body or body.get("denied"):
            return (Delta(key, add={"refusals": 1}),)
        if body.get("cached"):
            return (Delta(key, add={"hits": 1}),)
        if not kinds.went_out(body):
            return ()
        add = {"calls": 1}
        for name in ("usd", "tokens_in", "tokens_out", "cached_in"):
            if body.get(name):
                add[name] = int(body[name])
        if body.get("ms"):
            add["ms"] = round(body["ms"])
        if "error" in body:
            add["errors"] = 1
        return (Delta(key, add=add),)


def day_of(at: float) -> str:
    """The day (UTC) of a store time (s)."""
    return _day(int(at // 86_400))


@functools.lru_cache(maxsize=64)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * 86_400, UTC).strftime("%Y-%m-%d")
