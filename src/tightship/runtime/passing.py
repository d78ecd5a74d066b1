"""Control passes from one agent to another: counted for the whole request, recorded once (P6, F1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tightship.controls.limits import HANDOFF, Handoffs
from tightship.core.errors import LimitReached
from tightship.core.ports import Json
from tightship.effects.outcomes import restore

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame


async def pass_control(frame: NodeFrame, source: str, target: str, told: dict[str, Json]) -> None:
    """Record that an agent hands the work to another.

    Whether it is one too many is decided once: which of several branches comes last is a race.

    Raises:
        LimitReached: it is.
    """
    session, journal = frame.task.session, frame.task.journal
    key = frame.next_key(f"note:{HANDOFF}")
    line = frame.key.rpartition("/")[0]  # that of the whole step: each turn in it has one of its own
    if key in journal.notes:
        session.loops.handoff(key, source, target, line)
        return
    refused = f"{key}/refused"
    if refused in journal.decided:
        head: Any = journal.decided[refused]
        raise restore(head, head)
    one = Handoffs.id(frame.run.id, key)
    try:
        for counter in session.handoffs:
            counter.check(one)
        session.loops.handoff(key, source, target, line)
    except LimitReached as error:
        await journal.decide(refused, {"error": error.code, "message": error.message, "fix": error.fix})
        raise
    session.count_handoffs((one,))
    await frame.record_note(key, HANDOFF, {"source": source, "target": target, **told})
