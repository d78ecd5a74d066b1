"""Child runs: another workflow as a step. The child's id follows from its parent and key, so it is started once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tightship.core import kinds
from tightship.core.errors import GuardRefused, Unforeseen
from tightship.core.ids import derived_id
from tightship.core.ports import Json
from tightship.effects.frame import CONSTRAINTS
from tightship.ledger import Draft, SealedPayload

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame


async def run_child(frame: NodeFrame, key: str, workflow: str, give: Mapping[str, Json]) -> Json:
    """Start the child, wait for its end, and take over what it did, so that an undo reaches it.

    Raises:
        Unforeseen: the child did not complete; how it ended is in the evidence.
    """
    task = frame.task
    child = derived_id("r", frame.run.id, key)
    ended = ended_child(task.journal.signals, child)
    if ended is None:
        task.session.alone = False
        try:
            await task.engine.start_child(task, child, workflow, give, key, _holds(frame))
        except GuardRefused as refused:
            if refused.reason != "exists":
                raise
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
