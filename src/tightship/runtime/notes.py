"""Notes of a run: what is worth seeing, in clear where it names parts of the workflow, else sealed; and its rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tightship.controls.loops import ROUND
from tightship.core import kinds
from tightship.core.ports import Json
from tightship.effects.near import refuse_near_round, say_round
from tightship.effects.outcomes import jsonable
from tightship.ledger import Count, Guards

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame

PLAIN: Final = frozenset(
    {"kind", "error", "title", "attempt", "branch", "round", "passed", "step", "asked", "role", "decision", "again"}
    | {"source", "target", "number", "facts", "kept", "known", "still"}
    | {"claims", "results", "releases", "messages"}
)
"""Fields of a note that name parts of the workflow, never what anybody wrote."""


async def record_note(
    frame: NodeFrame, key: str, type: str, fields: Mapping[str, Json], counts: tuple[Count, ...] = ()
) -> None:
    """Record a note; `counts` is what it counts for and may not pass: the run's own first, then those above it."""
    journal = frame.task.journal
    body: dict[str, Any] = {"type": type}
    if len(counts) > 1:
        body["above"] = [count.run for count in counts[1:]]
    body |= {name: value for name, value in fields.items() if name in PLAIN and not isinstance(value, dict | list)}
    told = {name: jsonable(value) for name, value in fields.items() if name not in body}
    payloads: tuple[Any, ...] = ()
    if told:  # what it says may be personal: sealed, as everything that people or agents have written
        payload, _ = journal.seal(told)
        body["detail"], payloads = payload.address, (payload,)
    await journal.record(kinds.NOTE, key, body, payloads, Guards(counts=counts) if counts else None)


async def refuse_round(frame: NodeFrame, by: str, what: str, given: Json, gave: Json = None) -> None:
    """Let a round of a step be carried out, unless it is nearly the same again (controls.near_repeats)."""
    await refuse_near_round(frame.task.session, by, frame.key, f"{frame.key}{ROUND}", what, given, gave)


async def keep_round(frame: NodeFrame, by: str, given: Json, gave: Json) -> None:
    """Record what a round of a step was."""
    await say_round(frame.task.session, by, frame.key, f"{frame.key}{ROUND}", given, gave)
