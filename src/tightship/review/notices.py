"""What an outside system is told of inbox items: which events, in which words, and when it is tried again.

A notice names the case and its deadline, and never holds what the case is about: whoever may see that opens the item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from tightship.core import kinds
from tightship.core.ids import derived_id
from tightship.core.ports import Delta, EntryView
from tightship.review.inbox import InboxItem

UNFINISHED: Final = ("sending", "failed")
"""States of a delivery that is tried again."""
FIRST_PAUSE: Final = 5.0
"""Seconds after the first attempt that failed; twice as long after each further one, up to `LONGEST_PAUSE`."""
LONGEST_PAUSE: Final = 900.0
TITLE: Final = 500
"""Characters of a title that are told."""


class DeliveriesProjection:
    """The `deliveries` table: one row for what each target is told of an item; and when a target was seen first."""

    table = "deliveries"
    key_columns: Sequence[str] = ("target", "item", "event")
    kinds = frozenset({kinds.DELIVERY})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Where the delivery stands now."""
        body = entry.body
        changes: dict[str, Any] = {"log": entry.log, "state": body["state"], "at": entry.at}
        changes |= {"why": str(body.get("why") or ""), "next": float(body.get("next") or 0.0)}
        changes |= {"attempts": int(body["attempt"])} if "attempt" in body else {}
        changes |= {"since": float(body["since"])} if "since" in body else {}
        yield Delta((body["target"], body["item"], body["event"]), set=changes)


def pause(attempt: int) -> float:
    """Seconds until the next attempt, after so many that failed (binary exponential back-off)."""
    return float(min(FIRST_PAUSE * 2.0 ** min(attempt - 1, 16), LONGEST_PAUSE))


def events(row: Mapping[str, Any], on: Sequence[str], roles: Sequence[str]) -> dict[str, float]:
    """What of an open item's row is told, and since when it is so (s).

    Args:
        row: of the table `inbox`. on: types of items, and `reminder`; empty for all. roles: whose items; empty for all.
    """
    found: dict[str, float] = {}
    if roles and row["role"] not in roles:
        return found
    if not on or row["type"] in on:
        found["opened"] = max(row["opened_at"], 0.0 if row["reminded_at"] else row["noticed_at"])
    if row["reminded_at"] and (not on or "reminder" in on):
        found["reminded"] = row["reminded_at"]
    return found


def webhook_id(target: str, item: str, event: str) -> str:
    """The name of a delivery, the same for each of its attempts: a receiver that has seen it drops it."""
    return derived_id("n", target, item, event)


def message(item: InboxItem, event: str, run: Mapping[str, Any], since: float) -> bytes:
    """The body: JSON with `type`, `timestamp` and `data`, as Standard Webhooks recommends.

    Args:
        item: what waits. event: `opened` or `reminded`. run: its run's row. since: when the event came (s).
    """
    data = {
        "item": item.item,
        "type": item.type,
        "role": item.role,
        "title": item.title[:TITLE],
        "deadline": _time(item.due) if item.due else None,
        "run": item.run,
        "workflow": run.get("workflow", ""),
        "tenant": run.get("tenant", ""),
        "reference": run.get("reference", ""),
    }
    return orjson.dumps({"type": f"inbox.{event}", "timestamp": _time(since), "data": data})


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
