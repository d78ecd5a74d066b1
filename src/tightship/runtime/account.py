"""What a run that was stopped hands to a person: what it has done outside, what became of that, what was in flight."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from tightship.core import kinds
from tightship.core.errors import OutcomeUnknown, PayloadErased, Stalled
from tightship.core.ports import Json
from tightship.core.signals import Halted
from tightship.effects.journal import Body
from tightship.review._plain import plain
from tightship.runtime.steps import standing

if TYPE_CHECKING:
    from tightship.runtime.run import RunTask
    from tightship.runtime.undo import Undo

STAYS = "the workflow leaves what was done as it is (undo_on_failure: false)"


async def account(task: RunTask, undo: Undo, flying: Collection[str], cause: BaseException) -> dict[str, Any]:
    """The evidence of a run that ends: `done outside`, `effects that remain`; `in flight` and `input` of a stopped one.

    Args:
        task: the run, with everything settled.
        undo: what was undone and what remains.
        flying: keys of what had not settled when it was stopped.
        cause: why it ends.
    """
    told: dict[str, Any] = {}
    done = await _done_outside(task, undo, "" if task.program.undoes(cause) else STAYS)
    if done:
        told["done outside"] = done
    if undo.residual:
        told["effects that remain"] = undo.residual
    if isinstance(cause, Halted | Stalled):
        keys = {*flying, *_flying_at(task, _halted_at(task, cause))}
        fates = [_fate(key, task.journal.effects[key]) for key in task.journal.effects if key in keys]
        if fates:
            told["in flight"] = fates
        if not task.erased:
            told["input"] = plain(dict(task.session.facts.input))
    return told


async def finished_values(task: RunTask) -> dict[str, Json]:
    """What finished steps have given, as the ledger says; nothing once it was erased."""
    journal = task.journal
    try:
        return await standing(journal.ledger, task.program.definition, journal.entries).values()
    except PayloadErased:
        return {}


async def _done_outside(task: RunTask, undo: Undo, left: str) -> list[dict[str, Json]]:
    """Every write that was done, those of children included, and what has become of it; `left`: why one stands."""
    stands = dict(await undo.actions())
    bodies = {key: task.journal.effects[key] for key in task.journal.actions} | stands
    remains = {str(one["key"]): str(one["why"]) for one in undo.residual}
    undone = {*undo.undone, *task.journal.undone}
    found: list[dict[str, Json]] = []
    for key, body in bodies.items():
        now = "undone" if key in undone else "stands"
        one: dict[str, Json] = {"tool": body["name"], "step": key, "now": now}
        why = remains.get(key) or (left if key not in undone else "")
        if why:
            one["why"] = why
        try:
            one["arguments"] = plain(await task.journal.value(body["args"]))
        except (PayloadErased, KeyError):
            one["arguments"] = "(erased)"
        found.append(one)
    return found


def _halted_at(task: RunTask, cause: BaseException) -> float:
    """Store time (s) of the halt that has stopped the run; 0 when it was lifted since."""
    scope = cause.scope if isinstance(cause, Halted) else ""
    halt = task.session.shared.halts.find((scope,))
    return 0.0 if halt is None else halt.at


def _flying_at(task: RunTask, at: float) -> set[str]:
    """Keys of effects that were admitted before a moment and settled after it."""
    begun: dict[str, float] = {}
    found: set[str] = set()
    for entry in task.journal.entries if at else ():
        if entry.kind == kinds.ADMITTED:
            begun[entry.key] = entry.at
        elif entry.kind == kinds.SETTLED and begun.get(entry.key, at) < at < entry.at:
            found.add(entry.key)
    return found


def _fate(key: str, body: Body) -> dict[str, Json]:
    """What became of a call that was in flight."""
    became = "done"
    if "refused" in body:
        became = "not begun again"
    elif "error" in body:
        error = body["error"]["error"]
        became = "nobody knows whether it was done" if error == OutcomeUnknown.__name__ else f"not done: {error}"
    return {"call": body["name"], "step": key, "became": became}
