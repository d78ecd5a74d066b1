"""The dispatcher of one worker among many: it claims what is due in the store that all share, and drives it here.

Whether a worker lives is seen by its membership: a lock that ends with its process, and beats that stop when it is
frozen. A worker whose lease has run out begins nothing outside any more (`Session.check_lease`), and what it still
appends is refused by the run's epoch once another worker has claimed the run. It then joins anew under another id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from tightship.core.errors import StaleOwner
from tightship.runtime.dispatch import LocalDispatcher, Row
from tightship.runtime.takeover import SUSPECT, idle_claims

if TYPE_CHECKING:
    from tightship.runtime.engine import Ended, Engine


class Membership(Protocol):
    """This process as one of a store's workers. A port: Postgres keeps it by an advisory lock, simulation in memory."""

    @property
    def id(self) -> str:
        """The name under which it owns runs; another one after it was lost."""
        ...

    @property
    def workers(self) -> int:
        """How many workers live, this one included, as of the last beat."""
        ...

    async def living(self) -> set[str]:
        """The ids of the workers that live."""
        ...

    def lease_left(self) -> float:
        """Seconds for which it may still act for its runs without having been heard; 0 once it may not."""
        ...

    async def join(self, lost: Callable[[], None]) -> None:
        """Become a worker; `lost` is called on the event loop each time the membership has ended by itself."""
        ...

    async def leave(self) -> None:
        """Stop being one: what it still owns is free at once."""
        ...


def lease_of(membership: Membership) -> Callable[[], None]:
    """What is asked directly before something is sent.

    Returns: a function that raises StaleOwner once this process may not act any more.
    """

    def check() -> None:
        if membership.lease_left() <= 0:
            raise StaleOwner(f"worker {membership.id} has not been heard for too long: others may have its runs")

    return check


class WorkerDispatcher(LocalDispatcher):
    """Claims due runs of a shared store, and drives them as tasks of this event loop."""

    def __init__(self, engine: Engine, membership: Membership, name: str = "tightship") -> None:
        super().__init__(engine, name)
        self._membership = membership
        self._aside: list[str] = []
        """Suspects that were claimed: each is driven alone, once nothing else moves here."""
        self._rejoining: asyncio.Task[None] | None = None

    async def start(self, sequence: bool = True) -> None:
        """Join the workers, then begin to listen."""
        await self._membership.join(self._lost)
        self._engine.owner = self._membership.id
        await super().start(sequence)

    async def close(self) -> None:
        """Put down what is driven, and leave: others go on with it at once."""
        try:
            await super().close()
        finally:
            if self._rejoining is not None:
                self._rejoining.cancel()
            await self._membership.leave()

    def _lost(self) -> None:
        if self._rejoining is None or self._rejoining.done():
            self._rejoining = asyncio.ensure_future(self._begin_anew())

    async def _begin_anew(self) -> None:
        """Let go of every run, and own what comes under the new id."""
        await self._engine.put_down()
        self._aside.clear()
        self._engine.owner = self._membership.id
        self._wake("")

    # --- what is due -----------------------------------------------------------------------------

    async def nobodys(self, rows: Sequence[Row]) -> list[Row]:
        """Those that no living worker drives."""
        rows = await super().nobodys(rows)
        if not any(row["state"] == "running" for row in rows):
            return rows
        living = await self._membership.living()
        return [row for row in rows if row["state"] != "running" or row["owner"] not in living]

    async def _sweep(self, free: int) -> None:
        if self._suspect.locked():
            return
        if self._aside:
            if not self._driving:
                run = self._aside.pop(0)
                self._hold(asyncio.ensure_future(self._alone(run))).add_done_callback(self._note)
            return
        rows = await self._ledger.claim(
            owner=self._engine.owner, build=self._engine.build, limit=free, live=self._engine.live
        )
        refused = {one.run: one for one in await self._engine.take_in(rows)}
        for row in rows:
            run = row["id"]
            if run in refused:
                self._refuse(refused[run])
            elif self._suspicious(run):
                self._aside.append(run)
            else:
                self._spawn(run).add_done_callback(self._note)

    def _suspicious(self, run: str) -> bool:
        task = self._engine.task(run)
        return task is not None and idle_claims(task.journal.entries) > SUSPECT

    async def _alone(self, run: str) -> Ended:
        async with self._suspect:
            return await self._engine.drive(run)
