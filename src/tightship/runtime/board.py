"""A step's board: where it lies, and the operations on it (effects.board) through the door of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tightship.context.board import BOARD, Move
from tightship.core.ports import WORKFLOW, Json
from tightship.effects._shared_reads import ContextTool, local_call
from tightship.effects.board import LOOK, MOVE
from tightship.effects.door import Door
from tightship.effects.frame import Board

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame


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
