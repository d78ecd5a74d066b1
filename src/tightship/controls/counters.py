"""The `counters` table: what has been counted for a run and all runs below it, whichever processes drive them (F1, C6).

A handoff and a peer's messages count for the run that they are of and for those above it, which their notes name. So
does what an effect sets aside (its admit) and what it has cost (its settle, which gives the difference back). The sums
are folded in the append's transaction, so a guard (`Guards.counts`) lets exactly so much through as is allowed,
however many processes ask at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tightship.controls.budgets import UNITS, Amount
from tightship.controls.limits import HANDOFF, PEER_TURN
from tightship.controls.rebuild import one_call, reserved_by, spent_by
from tightship.core import kinds
from tightship.core.ports import Delta, EntryView

NOTHING = Amount()


class CountersProjection:
    """One row per run in which, or below which, control has passed or peers have sent messages; and per run that has
    runs below it or above it."""

    table = "counters"
    key_columns: Sequence[str] = ("run",)
    kinds = frozenset({kinds.NOTE, kinds.SIGNAL, kinds.STARTED, kinds.ADMITTED, kinds.SETTLED, kinds.EXTENDED})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Add what the entry counts."""
        kind, body = entry.kind, entry.body
        if kind == kinds.SIGNAL:
            return _taken_over(entry.run, body)
        if kind == kinds.STARTED:
            return _founded(body)
        if kind == kinds.EXTENDED:
            return _extended(entry.run, body)
        if kind == kinds.NOTE:
            added = _passed(body)
            above: Sequence[str] = body.get("above", ())
        elif "above" in body:
            held = reserved_by(entry) if kind == kinds.ADMITTED else _freed(body)
            added, above = _columns(held if kind == kinds.ADMITTED else spent_by(entry) + held, held), body["above"]
        else:
            return ()  # of a run on its own
        if not added or not entry.run:
            return ()
        return [Delta((run,), add=dict(added)) for run in (entry.run, *above)]


def uncounted(entries: Iterable[EntryView]) -> tuple[Amount, Amount]:
    """What a run's effects have spent and set aside that no entry has counted yet, and what of that is set aside.

    A run on its own counts nothing here. When it gets its first child, this is what the sums begin with: each entry's
    change by the same rule, of those that do not name the runs above it.
    """
    open_: dict[str, Amount] = {}
    used, set_aside = Amount(), Amount()
    for entry in entries:
        if entry.kind == kinds.ADMITTED:
            change = held = open_[entry.key] = reserved_by(entry)
        elif entry.kind == kinds.SETTLED:
            held = -open_.pop(entry.key, NOTHING)
            change = spent_by(entry) + held
        else:
            continue
        if "above" not in entry.body:
            used += change
            set_aside += held
    return used, set_aside


def _passed(body: Mapping[str, Any]) -> dict[str, Any]:
    if body.get("type") == HANDOFF:
        return {"handoffs": 1}
    if body.get("type") == PEER_TURN and body.get("messages"):
        return {"messages": int(body["messages"])}
    return {}


def _freed(body: Mapping[str, Any]) -> Amount:
    """What a settle gives back of what its admit has set aside, as a change; nothing where nothing was admitted."""
    return -one_call(body["held"]) if "held" in body else NOTHING


def _columns(used: Amount, held: Amount) -> dict[str, Any]:
    columns: dict[str, Any] = used.as_dict()
    return columns | {"requests": used.calls} | {f"{unit}_held": figure for unit, figure in held.as_dict().items()}


def _founded(body: Mapping[str, Any]) -> Iterable[Delta]:
    """The first child of a run says what that run had spent and set aside on its own."""
    if "before" not in body:
        return ()
    used, held = (Amount(**body["before"][part]) for part in ("used", "held"))
    return [Delta((body["parent"],), add=_columns(used, held))]


def _extended(run: str, body: Mapping[str, Any]) -> Iterable[Delta]:
    """What people have added to a run's own budget."""
    if body["scope"] != "run" or not run:
        return ()
    return [Delta((run,), add={f"{unit}_more": int(body.get(unit, 0)) for unit in UNITS})]


def _taken_over(run: str, body: Mapping[str, Any]) -> Iterable[Delta]:
    """What an ended child of the run has told of was counted when it happened; to a fork it is only told."""
    if "copied" not in body:
        return ()
    added = {"handoffs": len(body.get("handoffs", ())), "messages": sum(body.get("messages", {}).values())}
    return [Delta((run,), add=added)] if any(added.values()) else ()
