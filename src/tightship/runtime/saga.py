"""A part of a run that is taken back on its own, while the run goes on: nested sagas (P10).

What failed is recorded before anything is undone: after a crash the part is not walked forward again, since its
actions would look as if they had never been done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tightship.core import kinds
from tightship.core.errors import TightshipError
from tightship.core.ids import derived_id
from tightship.core.ports import Json
from tightship.effects.journal import Journal
from tightship.effects.outcomes import describe, restore
from tightship.review.package import for_residual
from tightship.runtime.undo import Undo
from tightship.workflow.tree import UndoRetry

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame

FAILED = "failed"
RESIDUAL = "residual"


async def recorded_failure(frame: NodeFrame) -> TightshipError | None:
    """The failure that turned this node around before a crash."""
    recorded = frame.task.journal.decided.get(f"{frame.key}/{FAILED}")
    if recorded is None:
        return None
    return restore(recorded["error"], await frame.task.journal.value(recorded["detail"]))


async def turn_around(frame: NodeFrame, error: TightshipError, retry: UndoRetry) -> list[dict[str, Json]]:
    """Undo, in reverse order, what was done below this node; what remains goes to a person.

    Raises:
        StoreError: the disk.
    """
    task, key = frame.task, f"{frame.key}/{FAILED}"
    if key not in task.journal.decided:
        head, detail = describe(error)
        sealed, _ = task.journal.seal(detail)
        await task.journal.record(kinds.DECIDED, key, {"value": {"error": head, "detail": sealed.address}}, (sealed,))
    await task.session.flights.drain_below(frame.key)
    await task.journal.landed_below(frame.key)  # what has just landed may be on its way to the disk
    await _stop_children(frame)
    undo = Undo(task, frame.key, retry)
    await undo.settle_open()
    await undo.run()
    if undo.residual:
        await _report(frame, undo.residual)
    return undo.residual


def unreported(journal: Journal, residual: Sequence[dict[str, Json]]) -> list[dict[str, Json]]:
    """What of this is in no report yet: a saga that was turned around has told of its own."""
    ends = f"/{FAILED}"
    told = tuple(f"{key.removesuffix(ends)}/" for key in journal.decided if key.endswith(ends))
    return [one for one in residual if not str(one["key"]).startswith(told)]


async def _stop_children(frame: NodeFrame) -> None:
    """Child runs that were begun below and cut off are undone before what was done before them."""
    task = frame.task
    for child in await task.engine.open_children(task.session.facts.id):
        started = (await task.journal.ledger.run_entries(child))[0].body
        if str(started.get("key", "")).startswith(f"{frame.key}/"):
            await task.engine.cancel_child(child, task)


async def _report(frame: NodeFrame, residual: list[dict[str, Json]]) -> None:
    """An inbox item with what could not be undone; none in a rehearsal, which leaves people alone."""
    task = frame.task
    item = derived_id("i", frame.run.id, frame.key, RESIDUAL)
    if task.program.rehearsed or item in task.journal.opened:
        return
    package = for_residual(task.program.context(frame), residual)
    sealed, _ = task.journal.seal(package.to_json())
    body: dict[str, Json] = {
        "item": item,
        "type": RESIDUAL,
        "role": task.program.escalation_role,
        "title": task.program.titled(package.title),
        "package": sealed.address,
    }
    await task.journal.record(kinds.OPENED, f"{frame.key}/{RESIDUAL}", body, (sealed,))
