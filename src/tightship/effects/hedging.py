"""A read that is late is asked a second time, and the first answer counts.

Dean and Barroso, "The Tail at Scale" (CACM, 2013).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from tightship.core.ports import Reply, Request, Tool

HEDGED = "hedged"
"""What the outcome of such a read says of itself."""


async def hedged(tool: Tool, request: Request, may: Callable[[], bool]) -> Reply:
    """The first good answer of two attempts; the other one is cut off, and is paid all the same.

    Args:
        tool: a read. request: the same for both: to the other side they are one.
        may: whether a second attempt is within the rate and the process's retries, asked when the first is late.

    Raises:
        the first attempt's error, when neither was answered.
    """
    first = asyncio.ensure_future(tool.perform(request))
    asked = [first]
    try:
        await asyncio.wait(asked, timeout=tool.spec.hedge)
        if not first.done() and may():
            asked.append(asyncio.ensure_future(tool.perform(request)))
        open_ = set(asked)
        while open_:
            done, open_ = await asyncio.wait(open_, return_when=asyncio.FIRST_COMPLETED)
            good = next((one for one in asked if one in done and not one.cancelled() and not one.exception()), None)
            if good is not None:
                return good.result() if len(asked) == 1 else _of_two(good.result(), tool)
        return first.result()
    finally:
        for one in asked:
            one.add_done_callback(_retrieve)
            one.cancel()


def _of_two(reply: Reply, tool: Tool) -> Reply:
    return replace(reply, usage=reply.usage + tool.spec.price, meta={**reply.meta, HEDGED: True})


def _retrieve(task: asyncio.Future[Reply]) -> None:
    """Nobody waits for it any more; asyncio is not to report its error as lost."""
    if not task.cancelled():
        task.exception()


__all__ = ["HEDGED", "hedged"]
