"""A run is laid into a person's hands: what was begun settles, what they asked to be undone is undone, then it rests.

Nothing of it goes forward until it is given back. What a person does meanwhile are signals; the next owner reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tightship.core import kinds
from tightship.ledger import Draft
from tightship.runtime.undo import Undo

if TYPE_CHECKING:
    from tightship.runtime.run import RunTask


async def hand_over(task: RunTask) -> Any:
    """Settle, undo what was asked for, and park; the result is `parked`, or what has interrupted the run meanwhile."""
    from tightship.runtime.run import PARKED

    undo = Undo(task)
    while True:
        await task.session.drain()
        await undo.find_out()
        await undo.take_back(_asked(task))
        await _take_children(task)
        if task.interruption is not None:
            return task.interruption
        body: dict[str, Any] = {
            "wake_at": kinds.NEVER if task.taken else 0.0,  # given back meanwhile: it is due at once
            "waiting": [f"person:{task.taken}"] if task.taken else [],
            "seen": task.seen,
            "seconds": round(task.session.watch.used - task.journal.seconds, 3),
        }
        if task.taken:
            body["taken"] = task.taken
        if await task.put_away(body):
            return PARKED


def _asked(task: RunTask) -> list[str]:
    """Actions that a person has asked to be undone and that stand."""
    asked = [key for entry in task.journal.signals if entry.body["type"] == "undo" for key in entry.body["actions"]]
    return [key for key in asked if key in task.journal.actions and key not in task.journal.undone]


async def _take_children(task: RunTask) -> None:
    """Runs below a run that is taken over go into the same hands: nothing of the case goes forward."""
    if not task.taken or not any(True for _ in task.program.spec.children()):
        return
    halts = task.session.shared.halts
    for child in await task.engine.open_children(task.session.facts.id):
        if halts.find((f"taken:{child}",)) is None:
            body = {"type": "take", "by": task.taken, "through": task.session.facts.id}
            await task.journal.ledger.append(Draft(child, kinds.SIGNAL, "", body), log=task.journal.log)
