"""A part of a run that is taken back on its own, while the run goes on: nested sagas (P10).

That it has begun is recorded before anything in it is done: what cuts it off from around (a time limit, a branch that
is ended) finds it again, and undoes it before the run goes on. What failed is recorded before anything is undone: after
a crash the part is not walked forward again, since its actions would look as if they had never been done.
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
from tightship.runtime.undo import UNDO, Undo
from tightship.workflow.tree import UndoRetry

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame
    from tightship.runtime.run import RunTask

BEGUN = "begun"
FAILED = "failed"
UNDONE = "saga.undone"
"""The note that nothing is left to be done about it."""
RESIDUAL = "residual"


async def begin(frame: NodeFrame, retry: UndoRetry) -> TightshipError | None:
    """Record that this node has begun, and how its undos are tried again; the failure that turned it around before.

    Raises:
        StoreError: the disk.
    """
    failed = await recorded_failure(frame)
    if failed is None:
        journal, key = frame.task.journal, f"{frame.key}/{BEGUN}"
        await journal.landed(kinds.DECIDED, key)
        if key not in journal.decided:  # no action can be on the disk without it: they come there in this order
            await journal.go_ahead(kinds.DECIDED, key, {"value": retry.model_dump()})
    return failed


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


async def undo_cut_off(frame: NodeFrame, error: TightshipError, branches: Sequence[str] | None = None) -> None:
    """Undo the sagas below this node that have begun and will not end, since they were cut off: the latest first.

    A replay comes here again, and does what is left of it.

    Args:
        frame: the node below which all has been cut off. error: by what.
        branches: only what stands below these parts of it was.

    Raises:
        StoreError: the disk.
    """
    task, journal = frame.task, frame.task.journal
    roots = [frame.key] if branches is None else [frame.at(part).key for part in branches]
    for root in roots:
        await (journal.landed_below(root) if root else journal.drain())
    below = tuple(f"{root}/" if root else "" for root in roots)
    begun = [key.removesuffix(f"/{BEGUN}") for key in journal.decided if key.endswith(f"/{BEGUN}")]
    left = [key for key in begun if key.startswith(below) and not _has_ended(journal, key)]
    if left:  # it may have been cut off while it was undone
        await task.session.flights.drain_below(UNDO)
        await journal.landed_below(UNDO)
    for key in reversed(left):
        at = frame.at(key.removeprefix(f"{frame.key}/"))
        why = await recorded_failure(at) or error
        residual = await turn_around(at, why, UndoRetry(**journal.decided[f"{key}/{BEGUN}"]))
        step = key.rpartition("/")[2]
        await at.note(UNDONE, step=step, residual=len(residual), error=type(why).__name__, message=str(why))


def _has_ended(journal: Journal, saga: str) -> bool:
    return saga in journal.nodes or f"{saga}/note:{UNDONE}/1" in journal.notes


def unreported(task: RunTask, residual: Sequence[dict[str, Json]], but: str = "") -> list[dict[str, Json]]:
    """What of this is in no report yet: sagas that were turned around, and child runs, have told of their own.

    Args:
        task: the run. residual: effects that remain, by `key`. but: the saga that is about to report.
    """
    journal, ends = task.journal, f"/{FAILED}"
    turned = [key.removesuffix(ends) for key in journal.decided if key.endswith(ends)]
    quiet = task.program.rehearsed
    told = tuple(f"{key}/" for key in turned if key != but and (quiet or _item(task, key) in journal.opened))
    at = {one.body["child"]: str(one.body.get("at", "")) for one in journal.signals if one.body["type"] == "child"}

    def place(key: str) -> str:
        return at.get(key.partition(":")[0], key)

    return [one for one in residual if not one.get("reported") and not place(str(one["key"])).startswith(told)]


async def _stop_children(frame: NodeFrame) -> None:
    """Child runs that were begun below and cut off are undone before what was done before them."""
    task = frame.task
    for child in await task.engine.open_children(task.session.facts.id):
        started = (await task.journal.ledger.run_entries(child))[0].body
        if str(started.get("key", "")).startswith(f"{frame.key}/"):
            await task.engine.cancel_child(child, task)
    if any(True for _ in task.program.spec.children()):
        await task.read_mail()  # one that has just ended may have told of it, and not been heard yet


def _item(task: RunTask, saga: str) -> str:
    return derived_id("i", task.session.facts.id, saga, RESIDUAL)


async def _report(frame: NodeFrame, residual: list[dict[str, Json]]) -> None:
    """An inbox item with what could not be undone; none in a rehearsal, which leaves people alone."""
    task = frame.task
    item = _item(task, frame.key)
    if task.program.rehearsed or item in task.journal.opened:
        return
    residual = unreported(task, residual, frame.key)
    if not residual:
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
