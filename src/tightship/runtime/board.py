"""A step's board: where it lies, the operations on it (effects.board) through the door of its run, and what goes back
when peers are stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from tightship.context.board import BOARD, Move
from tightship.context.heads import Heads, Place
from tightship.core import kinds
from tightship.core.errors import GuardRefused
from tightship.core.ports import WORKFLOW, Json
from tightship.effects._shared_reads import ContextTool, local_call
from tightship.effects.board import LOOK, MOVE
from tightship.effects.door import Door
from tightship.effects.frame import Board
from tightship.ledger import Draft, Entry, Expected, Guards

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame
    from tightship.runtime.run import RunTask

RETURNED: Final = "returned"
"""What the keys of entries end with by which claims go back."""
TRIES: Final = 5
"""How often claims are given back anew while others move the same sub-problems; then they run out."""


async def look(frame: NodeFrame, board: Board, items: Mapping[str, str | None]) -> Mapping[str, Any]:
    """How sub-problems stand; with a business key, whether another run has claimed it."""
    program, tenant = frame.task.program, frame.run.tenant
    claims = {item: program.claim(tenant, key) for item, key in items.items() if key is not None}
    return await _perform(frame, LOOK, board, items, {"claims": claims} if claims else {})


async def move(frame: NodeFrame, board: Board, by: str, moves: Sequence[Move]) -> Sequence[Mapping[str, Any]]:
    """A peer's moves, all at once; what came of each."""
    items = dict.fromkeys(one.item for one in moves)
    told = {"by": by, "lease": board.lease, "moves": [one.to_json() for one in moves]}
    return (await _perform(frame, MOVE, board, items, told))["moves"]


async def give_back(task: RunTask, roots: Sequence[str] = ("",)) -> None:
    """What peers below these keys still hold on boards that other runs share is open again, at once.

    It follows from the run's own entries, and changes nothing that this run goes by: so no limit and no halt keeps it,
    and a replay, which finds nothing held any more, does nothing. A claim that was taken anew since is left alone, by
    whomever: also by a later attempt of this run.

    Raises:
        StoreError, StaleOwner: the disk, or another process owns the run.
    """
    if task.erased:
        return  # nothing more is sealed for it: its claims run out
    for _ in range(TRIES):
        held, shared = _held(task, roots), task.session.shared.context
        drafts, expected = await _returns(task, held, shared.heads) if held and shared is not None else ([], [])
        if not drafts:
            return
        try:
            await task.journal.record_all(*drafts, guards=Guards(context=tuple(expected)))
            return
        except GuardRefused as moved:
            if moved.reason != "context":
                raise


def _held(task: RunTask, roots: Sequence[str]) -> dict[Place, Entry]:
    """The last entries about sub-problems by which peers below these keys have claimed them."""
    own, last = f"{BOARD}{task.session.facts.id}/", dict[Place, Entry]()
    for entry in task.journal.entries:
        scope = str(entry.body.get("scope", "")) if entry.kind == kinds.CONTEXT else ""
        if scope.startswith(BOARD) and not scope.startswith(own):
            last[scope, entry.body["key"]] = entry
    below = tuple(f"{root}/" if root else "" for root in roots)
    return {place: one for place, one in last.items() if one.body.get("ttl") and one.key.startswith(below)}


async def _returns(task: RunTask, held: Mapping[Place, Entry], heads: Heads) -> tuple[list[Draft], list[Expected]]:
    """The entries that open again what nobody has taken over since, and the heads that they are judged on."""
    journal, facts = task.journal, task.session.facts
    found, now = await heads.read(list(held)), task.session.shared.world.clock.now()
    mine = [place for place, entry in held.items() if found[place].version == entry.n and found[place].holds(now)]
    drafts, expected = list[Draft](), list[Expected]()
    for place, value in zip(mine, await heads.values([found[place] for place in mine], now), strict=True):
        scope, key, version = *place, found[place].version
        payload = heads.seal(facts.tenant, {**value.value, "state": "open"}, journal.scope)
        body = {"scope": scope, "key": key, "value": payload.address, "writer": found[place].writer, "base": version}
        at = f"{held[place].key}/{RETURNED}"
        drafts.append(Draft(facts.id, kinds.CONTEXT, at, body, journal.epoch, (payload,)))
        expected.append(Expected(scope, key, version))
    return drafts, expected


async def _perform(
    frame: NodeFrame, tool: ContextTool, board: Board, items: Mapping[str, Any], more: Mapping[str, Json]
) -> Any:
    program, tenant = frame.task.program, frame.run.tenant
    args: dict[str, Json] = {
        "scope": _scope(frame, board),
        "items": {item: f"{board.name}/{program.claim(tenant, f'{board.name}: {item}')}" for item in items},
        **more,
    }
    key = frame.next_key(f"context/{tool.spec.name.removeprefix('context.')}")
    return await Door(frame.task.session).perform(local_call(tool, key, WORKFLOW, args))


def _scope(frame: NodeFrame, board: Board) -> str:
    """Whose board it is. What is no real run plays on one of its own, so that it holds nothing that real work needs."""
    facts = frame.run
    scope = board.scope if frame.task.session.live else "run"
    if scope == "tenant":
        return f"{BOARD}{facts.tenant}"
    return f"{BOARD}{facts.tenant}/{facts.workflow}" if scope == "workflow" else f"{BOARD}{facts.id}/{board.step}"
