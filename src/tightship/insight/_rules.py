"""What entries and outputs say about the rules, the data and the reasons of a decision."""

from __future__ import annotations

from collections.abc import Sequence

from tightship.core import kinds
from tightship.core.ports import EntryView, Json
from tightship.insight._decision import Datum, Rule
from tightship.insight._reading import Effect, short


def needed(entries: Sequence[EntryView]) -> list[str]:
    """Addresses of the values that `explain` looks into: definition, inputs, outputs, reasons, packages, answers."""
    wanted: list[str] = []
    for entry in entries:
        value = entry.body.get("value")
        body = value if entry.kind == kinds.DECIDED and isinstance(value, dict) else entry.body
        for name in _OPENED.get(entry.kind, ()):
            address = body.get(name)
            if isinstance(address, str) and address:
                wanted.append(address)
    return list(dict.fromkeys(wanted))


_OPENED = {
    kinds.STARTED: ("definition", "input"),
    kinds.TURN: ("hash", "out", "detail"),
    kinds.SETTLED: ("detail",),
    kinds.NODE: ("out",),
    kinds.NOTE: ("detail",),
    kinds.OPENED: ("package",),
    kinds.CLOSED: ("value", "detail"),
    kinds.SIGNAL: ("detail", "value", "was"),
    kinds.DECIDED: ("detail",),
    kinds.ENDED: ("detail",),
}


def read_datum(effect: Effect) -> Datum:
    """A value that an agent has read."""
    source = "cache" if effect.cached else "read"
    return Datum(effect.name, effect.out, effect.settled_n, source, str(effect.meta.get("as_of") or ""))


def policies(found: Sequence[Effect], named: bool = False) -> list[Rule]:
    """The policies that allowed effects; without any, what the role declares is what allows."""
    ids = dict.fromkeys(one for effect in found for one in effect.policy)
    rules = [Rule("policy", one) for one in ids]
    if not rules and not named and any(effect.state != "refused" for effect in found):
        rules.append(Rule("role", "declared tools and hosts only", "allowed"))
    return rules


def given_rules(entry: EntryView) -> list[Rule]:
    """What was given to a condition that looks beyond the run's own data."""
    value = entry.body.get("value")
    if not isinstance(value, dict):
        return []
    return [
        Rule("threshold" if name == "threshold" else "condition", f"{name} = {short(one)}")
        for name, one in value.items()
    ]


def confidence_rule(out: Json) -> list[Rule]:
    """The confidence that an output states, as far as it states one."""
    if isinstance(out, dict) and isinstance(out.get("confidence"), int | float):
        return [Rule("confidence", f"{out['confidence']:g}")]
    return []


def reason_of(out: Json) -> str:
    """Why, in the agent's own output, where it says so."""
    if not isinstance(out, dict):
        return ""
    for name in ("reason", "reasons", "why", "rationale", "explanation"):
        if out.get(name):
            return short(out[name], 400)
    return ""
