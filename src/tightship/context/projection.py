"""The tables `context` and `context_ages`: heads of values, conflicts, and how old values were when they were read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from tightship.core import kinds
from tightship.core.ports import Delta, EntryView

_TOLD: Final = frozenset({"context", "gate", "moved", "raced"})
"""Fields of a settle that say something of the shared context."""
OLDEST: Final = 40
"""The last bucket: ages of 2^39 ms (17 years) and more."""


def bucket_of(age_ms: float) -> int:
    """The bucket of an age: bucket b holds ages below 2^b ms that are in no smaller one."""
    return min(OLDEST, max(0, int(age_ms)).bit_length())


def quantile(buckets: Mapping[int, int], share: float) -> float | None:
    """The upper bound (s) of the bucket in which this share of the ages is reached, or None without any."""
    total, reached = sum(buckets.values()), 0
    for bucket in sorted(buckets):
        reached += buckets[bucket]
        if reached >= share * total:
            return float(2**bucket) / 1000
    return None


class ContextProjection:
    """The `context` table: one row a key and scope."""

    table = "context"
    key_columns: Sequence[str] = ("scope", "key")
    kinds = frozenset({kinds.CONTEXT, kinds.CONFLICT, kinds.ADMITTED, kinds.SETTLED, kinds.NOTE})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """A write moves the head; reads, conflicts and gated actions are counted."""
        kind, body = entry.kind, entry.body
        if kind == kinds.CONTEXT:
            return (_written(entry),)
        if kind == kinds.CONFLICT:
            return (Delta((body["scope"], body["key"]), add={"write_conflicts": 1}),)
        if "copied" in body or (kind == kinds.SETTLED and body.keys().isdisjoint(_TOLD)):
            return ()
        if kind == kinds.NOTE:
            denied = body.get("type") == "context.denied"
            return (Delta((body["scope"], body["key"]), add={"refusals": 1}),) if denied else ()
        if kind == kinds.ADMITTED:
            if "gate" not in body or body.get("attempt", 1) > 1:
                return ()
            return [Delta((scope, key), add={"busy": 1}) for scope, key, *_ in body["gate"]]
        return _settled(entry)


def _written(entry: EntryView) -> Delta:
    body = entry.body
    ttl = body.get("ttl")
    return Delta(
        (body["scope"], body["key"]),
        set={
            "log": entry.log,
            "version": entry.n,
            "at": entry.at,
            "as_of": float(body.get("as_of") or 0.0),
            "ends": entry.at + float(ttl) if ttl else 0.0,
            "since": int(body.get("since", entry.n)),
            "value": body["value"],
            "writer": body["writer"],
            "run": entry.run,
            "sources": orjson.dumps(body.get("sources", [])).decode(),
            "labels": orjson.dumps(body.get("labels", [])).decode(),
        },
        add={"writes": 1},
    )


def _settled(entry: EntryView) -> Iterable[Delta]:
    body = entry.body
    for scope, key in body.get("gate", ()):
        yield Delta((scope, key), set={"used": entry.n, "used_at": entry.at}, add={"busy": -1})
    for scope, key in body.get("moved", ()):
        yield Delta((scope, key), set={"used": entry.n, "used_at": entry.at})
    for scope, key in body.get("raced", ()):
        yield Delta((scope, key), add={"read_conflicts": 1})
    for read in body.get("context", ()):
        yield Delta((read["scope"], read["key"]), add=_counts(read))


def _counts(read: Mapping[str, Any]) -> dict[str, int]:
    if "refused" in read:
        return {"refusals": 1}
    counts = {"reads": 1}
    if read.get("stale"):
        counts["stale"] = 1
    if read.get("refreshed"):
        counts["refreshes"] = 1
    return counts


class AgesProjection:
    """The `context_ages` table: the distribution of ages at reading, per key."""

    table = "context_ages"
    key_columns: Sequence[str] = ("scope", "key", "bucket")
    kinds = frozenset({kinds.SETTLED})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """One read more in its bucket. What was found stale counts with the age that was found."""
        if "context" not in entry.body or "copied" in entry.body:
            return ()
        return [
            Delta((read["scope"], read["key"], bucket_of(read["age"])), add={"reads": 1})
            for read in entry.body["context"]
            if "age" in read
        ]
