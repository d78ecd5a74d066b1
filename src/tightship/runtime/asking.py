"""What a run asks of people: an inbox item is opened once, and its decision is the same in every replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from tightship.core import kinds
from tightship.core.errors import GuardRefused, Unforeseen
from tightship.core.ids import derived_id
from tightship.core.ports import Json
from tightship.effects.frame import Answer, Question
from tightship.ledger import Guards
from tightship.runtime.ballots import voice
from tightship.runtime.four_eyes import is_check
from tightship.runtime.governing import kept_apart

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame


async def ask(frame: NodeFrame, key: str, question: Question) -> Answer:
    """An inbox item, and its decision; the run parks when nothing else of it can go on."""
    task = frame.task
    if task.program.rehearsed:
        return await _rehearsed(frame, question)
    journal, clock = task.journal, task.session.shared.world.clock
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


async def person(frame: NodeFrame, spec: Any, given: Mapping[str, Json]) -> Json:
    """A turn of an agent that is a person: what they are asked, and their output.

    Raises:
        Unforeseen: they did not do it. WrongShape: what they gave does not fit.
    """
    package = frame.task.program.request_package(spec, given, frame)
    asked = package.to_json()
    if spec.output_schema is not None:
        asked["schema"] = spec.output_schema  # an answer of another shape is refused at the inbox
    answer = await frame.ask(Question("question", package.title, spec.human, asked, spec.within))
    if answer.decision in ("answer", "edit", "approve"):
        return spec.check_output(answer.value)
    raise Unforeseen(f"{answer.by or spec.human} did not do it: {answer.reason or answer.decision}")


async def _rehearsed(frame: NodeFrame, question: Question) -> Answer:
    """Nobody is asked in a rehearsal: a review passes, anything else goes unanswered."""
    decision: Literal["approve", "reject"] = "approve" if question.type == "review" else "reject"
    await frame.note("rehearsal.decision", asked=question.type, role=question.role, decision=decision)
    return Answer(decision, "rehearsal", reason="this is a rehearsal: nobody was asked")


async def _open(frame: NodeFrame, item: str, key: str, question: Question) -> dict[str, Any]:
    task = frame.task
    journal, clock = task.journal, task.session.shared.world.clock
    now = clock.now()
    payload, _ = journal.seal({**question.package, **voice(task.session, key, question.type)})
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
    body |= {"four_eyes": True} if is_check(task.session, key, question.type) else {}
    await journal.record(kinds.OPENED, key, body, (payload,))
    return body
