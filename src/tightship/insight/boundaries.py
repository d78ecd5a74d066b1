"""What was refused because it lies outside an agent's declared role (F14): one count, by agent and kind.

| kind | what was refused | where it is recorded |
|---|---|---|
| `tool` | a tool or model that the agent does not declare | the call's settle, denied |
| `arguments` | arguments that a declared tool's schema does not allow | the call's settle, denied |
| `context` | a key of the shared context that it may not read or write | the call's settle, denied |
| `output` | an output that is not what it declares, a field too many included | its turn |
| `task` | an effect from a task of its own, past the door | its turn |
| `peer` | a handoff to an agent that is no peer of it | the note of the handoff |
| `brief` | a handoff whose brief is not what is declared | the note of the handoff |
| `message` | a message or a move on a board that its peers' step does not allow | the note of the refusal |

Inputs need no count: an agent is given what it declares, and nothing else is looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from tightship.core import kinds
from tightship.core.ports import EntryView, Json

KINDS: Final = ("tool", "arguments", "context", "output", "task", "peer", "brief", "message")
_ERRORS: Final = {"NotDeclared": "tool", "InvalidArguments": "arguments"}
_TURNS: Final = {"WrongShape": "output", "ForkedEffect": "task"}
_NOTES: Final = {"handoff.returned": "", "handoff.refused": "", "peers.refused": "message"}
"""Notes of refusals; those of handoffs say themselves which kind it was."""

Refusals = Counter[tuple[str, str]]
"""How often, by agent and kind."""


def refused(entry: EntryView) -> tuple[str, str] | None:
    """Whose boundary an entry tells of, and which kind; None when it tells of none."""
    body = entry.body
    if entry.kind == kinds.NOTE:
        kind = _NOTES.get(str(body.get("type")))
        return None if kind is None else (str(body.get("source") or ""), kind or str(body.get("kind") or "brief"))
    error = str((body.get("error") or {}).get("error") or "") if entry.kind in (kinds.SETTLED, kinds.TURN) else ""
    if entry.kind == kinds.TURN:
        kind = _TURNS.get(error)
    elif error in _ERRORS and body.get("denied"):
        kind = "context" if body.get("cls") == "context" and error == "NotDeclared" else _ERRORS[error]
    else:
        kind = None
    return None if kind is None else (str(body.get("agent") or ""), kind)


def refusals(entries: Iterable[EntryView]) -> Refusals:
    """What was refused in a run, by agent and kind."""
    return Counter(found for entry in entries if (found := refused(entry)) is not None)


def listed(found: Refusals) -> list[Json]:
    """The counts as JSON, sorted."""
    return [{"agent": agent, "kind": kind, "count": count} for (agent, kind), count in sorted(found.items())]
