"""What is done beside the runs: schedules, audits, checks for drift and leaks, deliveries, stalled runs, lost loans,
checkpoints, old jobs.

On a shared store each is a job, once per period for all workers; while no jobs are carried out, and on a store for one
process, whoever executes does it by its own timetable. All of it may be done twice, or left out, without harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from tightship.runtime.conduct import Audits
from tightship.runtime.deliveries import Deliveries
from tightship.runtime.drift_checks import DriftChecks
from tightship.runtime.jobs import Jobs, PostgresJobs
from tightship.runtime.leak_checks import LeakChecks
from tightship.runtime.reconcile import Lost, Reconciler
from tightship.runtime.schedules import Schedules
from tightship.runtime.timetable import Periodic, Timetable

if TYPE_CHECKING:
    from tightship.ledger import Ledger
    from tightship.ledger.sequencer import Sequencer
    from tightship.runtime.starting import Starter
    from tightship.runtime.sweep import StallWatch
    from tightship.workflow.loader import WorkspaceFiles


class Upkeep:
    """All of it, for one process that executes.

    Args:
        ledger: where runs are. files: the workspace's, as they stand. starter: gives what makes runs.
        url: where the store is a database that many share; else None. build: the code that runs here.
        deliveries: outside systems that are told what waits for people.
    """

    def __init__(
        self,
        ledger: Ledger,
        files: WorkspaceFiles,
        starter: Callable[[], Awaitable[Starter]],
        url: str | None,
        build: str,
        deliveries: Deliveries,
    ) -> None:
        self._ledger = ledger
        self._deliveries = deliveries
        self._schedules = Schedules(ledger, files.workflows, starter)
        self._audits = Audits(ledger, files.agents, starter)
        self._drift = DriftChecks(ledger, files)
        self._leaks = LeakChecks(ledger, files)
        self._url, self._build = url, build
        self._timetable: Timetable | None = None
        self.jobs: Jobs | None = None

    async def start(self, wake: Callable[[], None], stalls: StallWatch, sequencer: Sequencer | None) -> None:
        """Begin.

        Args:
            wake: called when something has become due. stalls: finds what stands still. sequencer: signs checkpoints.

        Raises:
            StoreError: the jobs' tables cannot be made, or what carries them is not installed.
        """
        periodic = [Periodic("schedules", "* * * * *", self._schedules.look, of_build=True, again=True)]
        periodic.append(Periodic("audits", "*/5 * * * *", self._audits.look, of_build=True))
        periodic.append(Periodic("drift", "*/5 * * * *", self._drift.look))
        periodic.append(Periodic("leaks", "*/5 * * * *", self._leaks.look))
        if self._deliveries.targets:
            periodic.append(Periodic("deliveries", "* * * * * */2", self._deliveries.look, of_build=True, again=True))
        if self._url is not None:
            periodic += self._of_workers(self._url, stalls, sequencer)
            self.jobs = PostgresJobs(self._url, self._build, wake, periodic)
            await self.jobs.start()
        self._timetable = Timetable(
            periodic, self._ledger.world.clock, lambda: self.jobs is not None and self.jobs.alive
        )
        self._timetable.start()

    async def close(self) -> None:
        """End it."""
        if self._timetable is not None:
            await self._timetable.close()
        if self.jobs is not None:
            await self.jobs.close()
        await self._deliveries.close()
        self._timetable = self.jobs = None

    def _of_workers(self, url: str, stalls: StallWatch, sequencer: Sequencer | None) -> Sequence[Periodic]:
        from tightship.ledger.pg_jobs import forget_jobs
        from tightship.ledger.postgres import PostgresBackend

        ledger, backend = self._ledger, self._ledger.backend
        assert isinstance(backend, PostgresBackend)

        async def gone() -> Sequence[Lost]:
            return [Lost(*row) for row in await ledger.off_loop(backend.lost_workers)]

        async def forget() -> None:
            await ledger.off_loop(forget_jobs, backend.address)

        found = [
            Periodic("reconcile", "* * * * * */15", Reconciler(ledger, gone).look),
            Periodic("stalls", "* * * * *", stalls.look_all),
            Periodic("forget-jobs", "17 * * * *", forget),
        ]
        if sequencer is not None:
            found.append(Periodic("checkpoint", "*/5 * * * *", sequencer.catch_up))
        return found
