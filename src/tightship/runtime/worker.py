"""The dispatcher of one worker among many: it claims what is due in the store that all share, and drives it here.

A worker whose lease has run out begins nothing outside any more (`Session.check_lease`), and what it still appends is
refused by the run's epoch once another worker has claimed the run. It lets go of all runs, and goes on under the id
with which it was registered anew (`ledger.presence`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from tightship.core.errors import StaleOwner, StoreError
from tightship.ledger.claiming import FREE, Bounds
from tightship.runtime.dispatch import LocalDispatcher, Row
from tightship.runtime.takeover import SUSPECT, idle_claims

if TYPE_CHECKING:
    from tightship.ledger.follower import Follower
    from tightship.runtime.engine import Engine


COUNT: Final = 1.0
"""Seconds between two looks at how many workers live."""


class Membership(Protocol):
    """This process as one of a store's workers. A port: simulation has a twin of `ledger.presence.Presence`."""

    @property
    def id(self) -> str:
        """The name under which it owns runs; another one after a loss, empty while there is none."""
        ...

    def lease_left(self) -> float:
        """Seconds for which nobody may take what it owns; 0 when they have run out."""
        ...

    async def close(self) -> None:
        """End it: what it owns is free at once."""
        ...


def lease_of(member: Membership, owner: Callable[[], str]) -> Callable[[], None]:
    """What is asked directly before something is sent.

    Args:
        member: this process as a worker. owner: the name under which it owns its runs.

    Returns: a function that raises StaleOwner once this process may not act for them any more.
    """

    def check() -> None:
        if member.id != owner() or member.lease_left() <= 0:
            raise StaleOwner(f"worker {owner()} was not heard for too long: others may have its runs")

    return check


class WorkerDispatcher(LocalDispatcher):
    """Claims due runs of a shared store, and drives them as tasks of this event loop."""

    def __init__(
        self,
        engine: Engine,
        member: Membership,
        name: str = "tightship",
        go_on_as: Callable[[str], None] = lambda name: None,
    ) -> None:
        super().__init__(engine, name)
        self._member = member
        self._follower: Follower | None = None
        self._go_on_as = go_on_as
        engine.owner = member.id
        go_on_as(engine.owner)

    async def start(self, sequence: bool = True) -> None:
        """Begin to listen, and to know how many workers there are."""
        await super().start(sequence)
        self._tasks.append(asyncio.ensure_future(self._count()))
        if self._ledger.backend.shared:
            from tightship.ledger.follower import Follower

            self._follower = Follower.start(self._ledger)

    async def close(self) -> None:
        """Let go of everything."""
        await super().close()
        if self._follower is not None:
            await self._follower.close()

    async def _count(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                self.workers = max(1, len(await self._ledger.living()))
            await self._clock.sleep(COUNT)

    async def lost(self) -> None:
        """Others may have what this process owned: let go of it."""
        await self._engine.put_down()
        self._aside.clear()
        self._standing.kept_back.clear()
        self._wake("")

    def _is_member(self) -> bool:
        """Whether runs may be claimed: as the worker that this process is now, once it has let go of what it was."""
        engine, member = self._engine, self._member
        if engine.owner != member.id and member.id and not engine.running():
            engine.owner = member.id
            self._go_on_as(engine.owner)  # others give back what it had borrowed under the id that was lost
        return engine.owner == member.id

    # --- what is due -----------------------------------------------------------------------------

    async def is_free(self, row: Row) -> bool:
        """Whether a run has something to do, and no other worker is at it."""
        if not await super().is_free(row):
            return False
        return row["state"] != "running" or row["owner"] == self._engine.owner or bool(await self.nobodys([row]))

    async def nobodys(self, rows: Sequence[Row]) -> list[Row]:
        """Those that no living worker drives."""
        rows = await super().nobodys(rows)
        if not any(row["state"] == "running" for row in rows):
            return rows
        living = await self._ledger.living()
        return [row for row in rows if row["state"] != "running" or row["owner"] not in living]

    async def _sweep(self, free: int) -> None:
        if self._one_alone or not self._is_member():
            return
        if self._aside:
            if not self._moves():
                self._hold(asyncio.ensure_future(self.alone({"id": self._aside[0]}))).add_done_callback(self._note)
            return
        engine = self._engine
        rows = await self._claim(free)
        others: list[Row] = []
        try:
            refused = {one.run: one for one in await engine.take_in(rows)}
            others += await self._dropped()
            others += await self.stopped()  # of several workers that see them, one gets each
            refused |= {one.run: one for one in await engine.take_over(others)}
        except BaseException:  # they are this worker's by the ledger, and nobody else takes them while it lives
            engine.let_go(row["id"] for row in (*rows, *others))
            raise
        for row in [*rows, *others]:
            run = row["id"]
            if run in refused:
                self._refuse(refused[run])
            elif self._suspicious(run):
                self._aside.append(run)
                self._standing.kept_back.add(run)
            else:
                job = self._spawn(run)
                job.add_done_callback(self._note)
                job.add_done_callback(self._free)
        if rows and self._bounds:  # whom this claim has made room for, or left out
            self._woken.set()

    async def _claim(self, free: int) -> list[Row]:
        """Take what is due and what there is room for: what all workers work on counts."""
        engine = self._engine
        return list(
            await self._ledger.claim(
                engine.owner, engine.build, free, engine.live, bounds=self._bounds, idle=self.refused.keys()
            )
        )

    @property
    def _bounds(self) -> Bounds:
        return FREE if self.gate is None else self.gate.bounds

    def _free(self, job: object) -> None:
        """A place is free: somebody here may be waiting for it. Other workers find it within a sweep."""
        if self._bounds:
            self._woken.set()

    async def _dropped(self) -> list[Row]:
        """What this worker owns and does not drive: nobody else takes it while this worker lives."""
        engine = self._engine
        wanted = sorted(engine.dropped)
        if not wanted:
            return []
        rows = await self._ledger.select("runs", [("id", "in", wanted), ("state", "=", "running")])
        engine.dropped.difference_update(wanted)
        return [row for row in rows if row["owner"] == engine.owner and not engine.has(row["id"])]

    def _wake(self, run: str) -> None:
        if run in self.refused:  # a cancelled run, say, may be moved by any code
            self._engine.dropped.add(run)
        super()._wake(run)

    def _suspicious(self, run: str) -> bool:
        task = self._engine.task(run)
        return task is not None and idle_claims(task.journal.entries) > SUSPECT
