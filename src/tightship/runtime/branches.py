"""Branches side by side: which one failed first is a race, decided once; the others are ended or left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tightship.core.errors import BoundaryError, LimitReached, Unforeseen, WorkException
from tightship.core.ports import Json
from tightship.effects.frame import Branch, BranchResult
from tightship.runtime.board import give_back
from tightship.runtime.saga import undo_cut_off

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame


class Branches:
    """Branches side by side."""

    def __init__(self, parent: NodeFrame, branches: Sequence[Branch], on_failure: str) -> None:
        self._parent = parent
        self._branches = branches
        self._ends = on_failure == "end"
        self._key = parent.next_key("fork")
        self._running = 0
        self._acting = False
        """Whether the parent has its place back: the run must not park while it decides."""

    async def run(self) -> list[BranchResult]:
        """All branches, or, on replay of a failure, those that had ended before it."""
        recorded = self._parent.task.journal.decided.get(self._key) if self._ends else None
        walked = [b for b in self._branches if recorded is None or b.part in recorded["walked"]]
        frames = {b.part: self._parent.branch(b.part) for b in walked}
        tasks = {b.part: asyncio.ensure_future(self._branch(b, frames[b.part])) for b in walked}
        self._running = len(tasks)
        self._parent.task.fork(len(tasks))
        for task in tasks.values():
            task.add_done_callback(self._ended)
        try:
            if self._ends and recorded is None:
                await self._until_failure(tasks)
            else:  # what ends the run is not kept: a budget, a halt, the store
                await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
                await self._end({part: task for part, task in tasks.items() if not task.done()})
        except asyncio.CancelledError:
            await self._end(tasks)
            raise
        recorded = self._parent.task.journal.decided.get(self._key) if self._ends else None
        if recorded is not None:  # what was cut off does not count, however it took that
            tasks = {part: task for part, task in tasks.items() if part in recorded["walked"]}
        signals = [e for e in (_exception(t) for t in tasks.values()) if e is not None]
        if signals:
            raise signals[0]
        if recorded is not None:
            await self._undo_cut_off(tasks)
        self._merge(frames, tasks)
        return [self._result(branch, tasks) for branch in self._branches]

    async def _branch(self, branch: Branch, frame: NodeFrame) -> Json | _Failed:
        try:
            return await branch.work(frame)
        except WorkException as error:
            return _Failed(error)
        except (BoundaryError, LimitReached) as error:
            wrapped = Unforeseen(error.message, where=error.where, fix=error.fix, evidence={"error": error.code})
            return _Failed(wrapped)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """The last branch hands its place back to the parent; so does one on whose end the parent has to act."""
        self._running -= 1
        acts = not self._acting and (self._running == 0 or self._ends_others(task))
        self._acting = self._acting or acts
        self._parent.task.branch_ended(last=acts)

    def _ends_others(self, task: asyncio.Task[Any]) -> bool:
        return _exception(task) is not None or (self._ends and isinstance(_value(task), _Failed))

    async def _until_failure(self, tasks: dict[str, asyncio.Task[Any]]) -> None:
        """Wait for all, or end the others at the first failure: that race is decided here, once."""
        pending = set(tasks.values())
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            stopped = any(_exception(task) is not None for task in done)
            failed = any(isinstance(_value(task), _Failed) for task in done)
            if not (stopped or failed):
                continue
            if failed and not stopped:  # recorded also when all have ended: a replay must not cut any of them off
                walked = [part for part, task in tasks.items() if task.done()]
                await self._parent.task.journal.decide(self._key, {"walked": walked})
            await self._end({part: task for part, task in tasks.items() if not task.done()})
            for task in tasks.values():
                _exception(task)  # looked at, so that asyncio does not report it as lost
            return

    async def _end(self, tasks: dict[str, asyncio.Task[Any]]) -> None:
        for task in tasks.values():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values())

    async def _undo_cut_off(self, tasks: dict[str, asyncio.Task[Any]]) -> None:
        """What sagas have done in branches that were ended, and peers hold, before whatever stands around goes on."""
        cut = [branch.part for branch in self._branches if branch.part not in tasks]
        failed = [value.error for value in map(_value, tasks.values()) if isinstance(value, _Failed)]
        if cut:  # a person may have done by hand since what had failed
            await undo_cut_off(self._parent, failed[0] if failed else Unforeseen("a branch beside it failed"), cut)
            await give_back(self._parent.task, [self._parent.at(part).key for part in cut])

    def _merge(self, frames: dict[str, NodeFrame], tasks: dict[str, asyncio.Task[Any]]) -> None:
        """Take over what finished branches have bound, in the order of the branches."""
        names = self._parent.scope.names
        for part, frame in frames.items():
            task = tasks.get(part)
            if task is None or task.cancelled() or isinstance(_value(task), _Failed):
                continue
            for name, value in frame.scope.names.items():
                if names.get(name) is not value:
                    names[name] = value

    @staticmethod
    def _result(branch: Branch, tasks: dict[str, asyncio.Task[Any]]) -> BranchResult:
        task = tasks.get(branch.part)
        if task is None or task.cancelled():
            return BranchResult(branch.part, ended=True)
        value = task.result()
        if isinstance(value, _Failed):
            return BranchResult(branch.part, error=value.error)
        return BranchResult(branch.part, value=value)


class _Failed:
    """A branch's failure, kept as a value so that it does not unwind its siblings."""

    __slots__ = ("error",)

    def __init__(self, error: WorkException) -> None:
        self.error = error


def _exception(task: asyncio.Task[Any]) -> BaseException | None:
    """What stopped a branch that is no failure of the work: a signal, the store, a defect."""
    if not task.done() or task.cancelled():
        return None
    return task.exception()


def _value(task: asyncio.Task[Any]) -> Any:
    if not task.done() or task.cancelled() or task.exception() is not None:
        return None
    return task.result()
