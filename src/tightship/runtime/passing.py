"""What passes between agents, control and messages: counted for the whole request, recorded once (P6, P7, F1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tightship.controls.limits import HANDOFF, PEER_TURN, Handoffs
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


async def send_messages(frame: NodeFrame, source: str, messages: int, told: dict[str, Json]) -> int:
    """Record what a peer's turn does, and say how many of its messages go out.

    That is decided once: which of several peers sends the last one that the request has is a race. Runs that other
    processes drive at this moment are known to have sent what their last entries here said.
    """
    session, journal = frame.task.session, frame.task.journal
    key = frame.next_key(f"note:{PEER_TURN}")
    recorded = journal.notes.get(key)
    if recorded is not None:
        return int(recorded["messages"])
    sent = min([messages, *(counter.left for counter in session.messages)])
    for counter in session.messages:
        counter.count(frame.run.id, sent)
    await frame.record_note(key, PEER_TURN, {"source": source, "messages": sent, **told})
    return sent
