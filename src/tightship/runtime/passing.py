"""What passes between agents, control and messages: counted for the whole request, recorded once (P6, P7, F1).

Each process counts what it knows of a request. Where a request has several runs, others may drive some of them, so the
store counts as well, in the transaction that records what passes: whatever comes beyond the limit is refused there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tightship.controls.limits import HANDOFF, PEER_TURN, Handoffs, Messages
from tightship.core.errors import GuardRefused, LimitReached
from tightship.core.ports import Json
from tightship.effects.outcomes import restore
from tightship.ledger import Count, Ledger

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame


async def pass_control(frame: NodeFrame, source: str, target: str, told: dict[str, Json]) -> None:
    """Record that an agent hands the work to another.

    Whether it is one too many is decided once: which of several branches, or processes, comes last is a race.

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
        await _pass(frame, key, one, {"source": source, "target": target, **told})
    except LimitReached as error:
        await journal.decide(refused, {"error": error.code, "message": error.message, "fix": error.fix})
        raise


async def _pass(frame: NodeFrame, key: str, one: str, fields: dict[str, Json]) -> None:
    """Record a handoff that this process has room for.

    Raises:
        LimitReached: with what other processes have passed it is one too many.
    """
    session = frame.task.session
    session.count_handoffs((one,))  # before anything is waited for: branches beside this one count it
    counts = () if session.alone else tuple(Count(own.run, "handoffs", 1, own.most) for own in session.handoffs)
    try:
        await frame.record_note(key, HANDOFF, fields, counts)
    except GuardRefused as full:
        for counter in session.handoffs:
            counter.counted.discard(one)
        raise next(counter for counter in session.handoffs if counter.run == full.holder).reached() from None


async def send_messages(frame: NodeFrame, source: str, messages: int, told: dict[str, Json]) -> int:
    """Record what a peer's turn does, and say how many of its messages go out.

    That is decided once: which of several peers sends the last one that the request has is a race.
    """
    session, journal = frame.task.session, frame.task.journal
    key = frame.next_key(f"note:{PEER_TURN}")
    recorded = journal.notes.get(key)
    if recorded is not None:
        return int(recorded["messages"])
    sent = min([messages, *(counter.left for counter in session.messages)])
    while True:
        for counter in session.messages:
            counter.count(frame.run.id, sent)
        counted = bool(sent) and not session.alone
        counts = tuple(Count(own.run, "messages", sent, own.most) for own in session.messages) if counted else ()
        try:
            await frame.record_note(key, PEER_TURN, {"source": source, "messages": sent, **told}, counts)
            return sent
        except GuardRefused:
            for counter in session.messages:
                counter.withdraw(frame.run.id, sent)
            sent = min(sent - 1, await _left(journal.ledger, session.messages))


async def _left(ledger: Ledger, counters: Sequence[Messages]) -> int:
    """How many messages may still be sent, as the store has counted them."""
    rows = await ledger.select("counters", [("run", "in", [counter.run for counter in counters])])
    sent = {row["run"]: row["messages"] for row in rows}
    return max(0, min(counter.most - sent.get(counter.run, 0) for counter in counters))
