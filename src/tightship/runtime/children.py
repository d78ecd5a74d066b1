"""Child runs: another workflow as a step. The child's id follows from its parent and key, so it is started once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tightship.controls.counters import uncounted
from tightship.core import kinds
from tightship.core.errors import GuardRefused, Unforeseen
from tightship.core.ids import derived_id
from tightship.core.ports import Json
from tightship.effects.frame import CONSTRAINTS
from tightship.ledger import Draft, SealedPayload

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame
    from tightship.runtime.run import RunTask


async def run_child(frame: NodeFrame, key: str, workflow: str, give: Mapping[str, Json]) -> Json:
    """Start the child, wait for its end, and take over what it did, so that an undo reaches it.

    Raises:
        Unforeseen: the child did not complete; how it ended is in the evidence.
    """
    task = frame.task
    child = derived_id("r", frame.run.id, key)
    ended = ended_child(task.journal.signals, child)
    if ended is None:
        try:
            await _start(frame, child, workflow, give, key)
        except GuardRefused as refused:
            if refused.reason != "exists":
                raise
            task.session.line[0][1].counted = True  # whoever has started it has said what was spent before
            await task.engine.adopt(child)
    while (ended := ended_child(task.journal.signals, child)) is None:
        await task.wait(child, here=task.engine.has(child))
    if ended["outcome"] == "completed":
        return await task.journal.ledger.value(ended["output"])
    raise Unforeseen(
        f"the child run {child} of {workflow} {_HOW[ended['outcome']]}: {ended.get('reason', '')}".rstrip(": "),
        needed=f"look at run {child}",
        evidence={"child": child, "outcome": ended["outcome"], "package": ended.get("package", "")},
    )


async def _start(frame: NodeFrame, child: str, workflow: str, give: Mapping[str, Json], key: str) -> None:
    """Start it. From the first child on, the store counts what the family spends: others may drive that child.

    What the run had spent before stands in the child's first entry, so that there is no moment in which it is missing.
    """
    task = frame.task
    session, [own, *_] = task.session, task.session.line
    if own[1].counted:
        await task.engine.start_child(task, child, workflow, give, key, _holds(frame))
        return
    async with session.founding:
        session.alone = False  # what is admitted from here on counts by itself
        if not own[1].counted and (own[1].spent or own[1].reserved):
            session.before = await _before(task)
        try:
            await task.engine.start_child(task, child, workflow, give, key, _holds(frame))
        finally:
            session.before = None
        own[1].counted = True


async def _before(task: RunTask) -> dict[str, Json] | None:
    """What a run has spent and set aside on its own, as its entries say once all of them are on the disk."""
    session, journal = task.session, task.journal
    while session.reading:  # what was not admitted counts when it settles
        await session.shared.world.clock.sleep(0.01)
    await journal.drain()
    await journal.ledger.append(log=journal.log)  # behind everything that was appended while it was alone
    used, held = uncounted(await journal.ledger.run_entries(journal.run))
    return {"used": dict(used.as_dict()), "held": dict(held.as_dict())} if used or held else None


def _holds(frame: NodeFrame) -> list[str]:
    """What every turn here has to keep, and so every turn below: declared, and handed over with the work."""
    handed = frame.scope.names.get(CONSTRAINTS)
    return [*frame.task.program.spec.constraints, *(handed if isinstance(handed, list | tuple) else ())]


_HOW = {"escalated": "was escalated", "failed": "failed", "cancelled": "was cancelled"}


def ended_child(signals: list[Any], child: str) -> dict[str, Any] | None:
    """The signal by which a child has told of its end."""
    for entry in signals:
        if entry.body["type"] == "child" and entry.body["child"] == child:
            return entry.body
    return None


def child_signal(parent: str, child: str, at: str, body: Mapping[str, Any], actions: SealedPayload | None) -> Draft:
    """What a child's end tells its parent: how it ended, what it cost, and what it did that may have to be undone.

    Args:
        at: the parent's key under which the child was started.
    """
    told: dict[str, Any] = {"type": "child", "by": child, "child": child, "at": at, "outcome": body["outcome"]}
    for name in ("output", "reason", "package", "usd", "tokens_in", "tokens_out", "calls", "handoffs", "messages"):
        if body.get(name):
            told[name] = body[name]
    if actions is None:
        return Draft(parent, kinds.SIGNAL, "", told)
    # sealed with the child's keys: there may be many, and an entry is small
    return Draft(parent, kinds.SIGNAL, "", {**told, "actions": actions.address}, payloads=(actions,))
