"""Branches that wait for each other, and values that outlive a branch: kept sealed, found again without walking it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import orjson

from tightship.core import kinds
from tightship.core.ports import Json

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame

SHORT_PAUSE: Final = 5.0
"""Seconds up to which a time is waited for in memory; for longer ones the run may park."""
AFTER: Final = "after:"
"""What a park names that a branch waits for beside it; the run cannot be woken by it."""


async def after(frame: NodeFrame, name: str, until: float = 0.0) -> None:
    """Wait until a branch beside this one has announced a name, or until that store time (s).

    It is no work: while all else waits for people, timers or children, the run parks, and a replay comes here again.
    """
    task, place = frame.task, _place(frame, name)
    while place not in task.session.announced:
        clock = task.session.shared.world.clock
        short = bool(until) and until - clock.now() <= SHORT_PAUSE
        await task.wait(f"{AFTER}{place} at {frame.key}", until, here=short)
        if until and clock.now() >= until:
            return


def announce(frame: NodeFrame, name: str) -> None:
    """Let whoever waits for this name go on."""
    task, place = frame.task, _place(frame, name)
    task.session.announced.add(place)
    for what in [one for one in task.waiting if one.startswith(f"{AFTER}{place} at ")]:
        task.release(what)


def _place(frame: NodeFrame, name: str) -> str:
    return f"{frame.key.rpartition('/')[0]}/{name}"


async def keep(frame: NodeFrame, name: str, value: Callable[[], Json]) -> Json:
    """A value that is computed once and recorded, sealed."""
    found = await kept(frame, name)
    if found is not None:
        return found
    journal, made = frame.task.journal, value()
    payload, data = journal.seal({"output": made, "names": {}})
    await journal.go_ahead(kinds.NODE, f"{frame.key}/{name}", {"out": payload.address}, (payload,))
    return orjson.loads(data)["output"]  # its keys in the order in which a replay finds them


async def kept(frame: NodeFrame, name: str) -> Any:
    """What was kept under this name at this node, or None."""
    journal, key = frame.task.journal, f"{frame.key}/{name}"
    await journal.landed(kinds.NODE, key)
    recorded = journal.nodes.get(key)
    return None if recorded is None else (await journal.value(recorded["out"]))["output"]


async def observe(frame: NodeFrame, name: str, value: Callable[[], Json]) -> Json:
    """What others have come to at this moment. No replay can work it out, so it is decided, and sealed."""
    found = await observed(frame, name)
    if found is not None:
        return found
    journal, made = frame.task.journal, value()
    payload, data = journal.seal(made)
    await journal.go_ahead(kinds.DECIDED, f"{frame.key}/{name}", {"value": {"sealed": payload.address}}, (payload,))
    return orjson.loads(data)  # its keys in the order in which a replay finds them


async def observed(frame: NodeFrame, name: str) -> Any:
    """What was observed under this name at this node, or None."""
    journal, key = frame.task.journal, f"{frame.key}/{name}"
    await journal.landed(kinds.DECIDED, key)
    recorded: Any = journal.decided.get(key)
    return None if recorded is None else await journal.value(recorded["sealed"])
