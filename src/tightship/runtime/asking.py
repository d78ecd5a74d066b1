"""Asking a person: an inbox item, and its decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from tightship.core import kinds
from tightship.core.errors import GuardRefused
from tightship.core.ids import derived_id
from tightship.effects.frame import Answer, Question
from tightship.ledger import Guards
from tightship.runtime.governing import kept_apart

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame


async def ask(frame: NodeFrame, question: Question) -> Answer:
    """Open the item once, and wait for its decision; when its time is over first, it has expired."""
    task = frame.task
    if task.program.rehearsed:
        return await _rehearsed(frame, question)
    journal, clock = task.journal, task.session.shared.world.clock
    key = frame.next_key("ask")
    item = derived_id("i", frame.run.id, key)
    opened = journal.opened.get(item)
    if opened is None:
        opened = await _open(frame, item, key, question)
    due = float(opened.get("due") or 0.0)
    while item not in journal.closed:
        if due and clock.now() >= due:
            body = {"item": item, "decision": "expired", "by": "", "reason": "nobody answered in time"}
            try:
                await journal.record(kinds.CLOSED, key, body, guards=Guards(open_item=item))
            except GuardRefused:  # somebody has decided after all, and was first
                await task.read_mail()
            continue
        await task.wait(item, due)
    body = journal.closed[item]
    value = await journal.value(body["value"]) if body.get("value") else None
    return Answer(body["decision"], body.get("by", ""), value, await task.said(body))


async def _rehearsed(frame: NodeFrame, question: Question) -> Answer:
    """Nobody is asked in a rehearsal: a review passes, anything else goes unanswered."""
    decision: Literal["approve", "reject"] = "approve" if question.type == "review" else "reject"
    await frame.note("rehearsal.decision", asked=question.type, role=question.role, decision=decision)
    return Answer(decision, "rehearsal", reason="this is a rehearsal: nobody was asked")


async def _open(frame: NodeFrame, item: str, key: str, question: Question) -> dict[str, Any]:
    task = frame.task
    now = task.session.shared.world.clock.now()
    payload, _ = task.journal.seal(dict(question.package))
    body: dict[str, Any] = {
        "item": item,
        "type": question.type,
        "role": question.role,
        "title": task.program.titled(question.title),
        "package": payload.address,
    }
    if question.within:
        body["due"] = round(now + question.within, 3)
    if question.remind and question.within:
        body["remind"] = round(now + max(0.0, question.within - question.remind), 3)
    made_by = sorted({*question.made_by, *kept_apart(task.session.apart, key)})
    body |= {**({"made_by": made_by} if made_by else {}), **(question.teaches or {})}
    await task.journal.record(kinds.OPENED, key, body, (payload,))
    await task.engine.tell(question.role, item)
    return body
