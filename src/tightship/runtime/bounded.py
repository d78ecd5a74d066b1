"""Work with a time limit, over crashes and replays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

from tightship.core.errors import BuildMismatch, LedgerError, StoreError, TightshipError, TimedOut
from tightship.core.ports import Json
from tightship.runtime.ballots import close_questions
from tightship.runtime.board import give_back
from tightship.runtime.saga import undo_cut_off

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame


async def bounded(frame: NodeFrame, seconds: float, what: str, work: Callable[[], Awaitable[Json]]) -> Json:
    """Work with a time limit. Whether it or the limit was first is a race: decided once, recorded."""
    clock = frame.task.session.shared.world.clock
    late = TimedOut(f"{what} did not finish within {seconds:g} s")
    return await _race(frame, lambda: clock.now() + seconds, late, work)


async def by_then(frame: NodeFrame, until: float, work: Callable[[], Awaitable[Json]]) -> Json:
    """A child run's work, which ends with the step of its parent that waits for it, at that store time (s)."""
    return await _race(frame, lambda: until, TimedOut("it did not finish in the time that its parent had left"), work)


async def _race(
    frame: NodeFrame, end: Callable[[], float], late: TimedOut, work: Callable[[], Awaitable[Json]]
) -> Json:
    task, clock = frame.task, frame.task.session.shared.world.clock
    raced, key = (f"{frame.key}/{part}".lstrip("/") for part in ("within", "until"))
    decided = task.journal.decided.get(raced)
    if decided is not None:
        if decided:
            await _cut_off(frame, late)
        return await work()
    until = float(await frame.once(key, end))
    before = dict(frame.scope.names)
    task.deadlines[key] = until
    try:
        try:
            async with asyncio.timeout(until - clock.now()):
                value = await work()
        finally:
            task.deadlines.pop(key, None)
    except TimeoutError:
        await task.journal.decide(raced, True)
        # What it had bound until then is gone in every replay, so it goes here too.
        frame.scope.names.clear()
        frame.scope.names.update(before)
        await _cut_off(frame, late)
    except TightshipError as error:
        if not isinstance(error, (LedgerError, StoreError, BuildMismatch)):
            await task.journal.decide(raced, False)
        raise
    await task.journal.decide(raced, False)
    return value


async def _cut_off(frame: NodeFrame, late: TimedOut) -> NoReturn:
    """Nothing below the node is asked any more, no saga of it is left half done, its peers hold nothing, and its time
    is over."""
    await close_questions(frame)
    await undo_cut_off(frame, late)
    await give_back(frame.task, [frame.key])
    raise late from None
