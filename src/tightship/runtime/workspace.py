"""The composition root: a folder of YAML becomes something that runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tightship.agents.turn import AgentFunction
from tightship.context import Heads
from tightship.context.desk import SharedContext
from tightship.controls.halts import Halts
from tightship.controls.rates import Rates
from tightship.controls.shares import Shares
from tightship.core.errors import GuardRefused, InputRejected, Overloaded, StaleOwner, UnknownName
from tightship.core.ids import derived_id
from tightship.core.ports import Json, Secrets, Tool
from tightship.core.world import World
from tightship.ledger import Ledger
from tightship.models.port import Model
from tightship.patterns import load_all
from tightship.runtime.admission import Gatekeeper
from tightship.runtime.build import build_id
from tightship.runtime.context import WorkspaceContext
from tightship.runtime.deliveries import Deliveries
from tightship.runtime.dispatch import LocalDispatcher
from tightship.runtime.engine import Ended, Engine
from tightship.runtime.envelopes import SharedEnvelopes
from tightship.runtime.operator import Operator
from tightship.runtime.outfit import Outfit
from tightship.runtime.place import Place, place_of
from tightship.runtime.projections import projections
from tightship.runtime.repeats import known, other_input
from tightship.runtime.result import Run
from tightship.runtime.seat import Seat
from tightship.runtime.sharing import polled, share_breakers, shared_by_runs
from tightship.runtime.start import Start
from tightship.runtime.starting import Starter
from tightship.runtime.takeover import set_apart
from tightship.runtime.upkeep import Upkeep
from tightship.runtime.worker import Membership, WorkerDispatcher, lease_of
from tightship.workflow.loader import WorkspaceFiles, load_workspace
from tightship.workflow.models import AgentSpec, WorkflowSpec
from tightship.workflow.types import check_input

Spec = AgentSpec | WorkflowSpec


ELSEWHERE = 0.1
"""Seconds between two looks at a run that another worker drives."""


class Workspace:
    """A workspace, opened. Nothing is read from or written to the store before the first `await`.

    ```python
    from tightship import Workspace

    async with Workspace.open(".") as ws:
        run = await ws.run("support", {"ticket": "Where is my order?", "customer_id": "C-1001"})
        print(run.outcome, run.cost)
    ```
    """

    def __init__(
        self,
        files: WorkspaceFiles,
        world: World,
        *,
        ledger: Ledger | None = None,
        secrets: Secrets | None = None,
        tools: Mapping[str, Tool] | None = None,
        model: Model | None = None,
        rehearse: bool = False,
        member: Membership | None = None,
    ) -> None:
        self.files = files
        self.world = world
        self.rehearse = rehearse
        self.create = True
        """Whether the store is made where there is none."""
        self._ledger = ledger
        self._given_ledger = ledger is not None
        self._outfit = Outfit(files, world, secrets, dict(tools or {}), self.rehearse, model)
        self._engine: Engine | None = None
        self._dispatcher: LocalDispatcher | None = None
        self._starter: Starter | None = None
        self._seat = Seat(member)
        self._opening = asyncio.Lock()
        self.gate = Gatekeeper(files.config.admission, world.clock)
        """How much work is taken in."""
        self._gated = False
        self.shares: Shares | None = None
        """Where the rates that many workers share are booked, in place of the store; set before `engine`."""
        self.context = WorkspaceContext(files.config, self.ledger, world, self._outfit.secrets)
        """The shared context, from outside of runs."""

    # --- opening and closing ---------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: str | Path = ".",
        *,
        world: World | None = None,
        ledger: Ledger | None = None,
        secrets: Secrets | None = None,
        tools: Mapping[str, Tool] | None = None,
        model: Model | None = None,
        rehearse: bool = False,
        member: Membership | None = None,
    ) -> Self:
        """Load a workspace's files.

        Args:
            path: the folder that holds tightship.yaml.
            world: time, chance and network; the machine's own by default.
            ledger: an open ledger (the in-memory twin, say) in place of the declared store.
            secrets: where secrets come from; the environment and a secrets file by default.
            tools: further tools by name, beside those of the connectors and of `tools/*.py`.
            model: answers for every declared tier in place of its provider (tightship.models.testing has doubles).
            rehearse: generated outputs in place of agents and tools; nothing outside is touched.
            member: with a ledger that many share, this process as one of its workers.

        Raises:
            WorkspaceMissing, LoadError: the first thing that is wrong with the files.
        """
        load_all()
        loaded = load_workspace(Path(path), tools=set(tools or ()))
        return cls(
            loaded.raise_first(),
            world or World(),
            ledger=ledger,
            secrets=secrets,
            tools=tools,
            model=model,
            rehearse=rehearse,
            member=member,
        )

    def add(self, *specs: Spec, functions: Mapping[str, AgentFunction] | None = None) -> None:
        """Add agents and workflows that were built in Python (`specs`), with the `functions` of such agents by name.

        Raises:
            LoadError: one refers to something that is not there.
        """
        for name, function in (functions or {}).items():
            self._outfit.code.give(name, function)
        for spec in specs:
            self.files.add(spec, tools=self._outfit.given)
        self._outfit.forget()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End what this process drives (it can be resumed), write the last checkpoint, close the store."""
        try:
            if self._dispatcher is not None:
                await self._dispatcher.close()
        finally:
            try:
                await self._seat.give_back()
                if self._ledger is not None and not self._given_ledger:
                    await self._ledger.close()
            finally:
                await self._seat.release()
                await self._outfit.close()
                self._ledger = self._engine = self._dispatcher = self._starter = None

    @property
    def folder(self) -> Path:
        """The store's folder; where the store is a database, the one with the master key."""
        return self.place.folder

    @property
    def place(self) -> Place:
        """Where the store is.

        Raises:
            StoreError: its URL names an environment variable that is not set.
        """
        return place_of(self.files.config.store, self.files.root)

    async def ledger(self) -> Ledger:
        """The ledger, for reading and for signals; executing needs more (`engine`)."""
        async with self._opening:
            if self._ledger is None:
                place = self.place
                self._ledger = await Ledger.open(
                    place.where,
                    self.world,
                    projections(),
                    self.create,
                    folder=place.folder,
                    keys=place.keys,
                    name=self.files.config.name,
                )
            return self._ledger

    async def engine(self) -> Engine:
        """The engine: from here on this process executes on the workspace.

        Raises:
            ExecutorBusy: another process does.
        """
        ledger = await self.ledger()
        async with self._opening:
            if self._engine is None:
                try:
                    self._engine = await self._build_engine(ledger)
                except BaseException:
                    await self._seat.release()  # it may be tried again, by this process or another
                    raise
            return self._engine

    async def _build_engine(self, ledger: Ledger) -> Engine:
        build = build_id(self.files.code_hash)
        if self._seat.member is None and not self._given_ledger:
            await self._seat.take(self.place, build, self._lost)
        member = self._seat.member
        await ledger.off_loop(ledger.check_whole)
        await ledger.poll()  # from this position on, what others append is noticed
        await ledger.reapply_erasures()
        await self._outfit.connect()
        await self._outfit.load_models()
        clock, halts = self.world.clock, Halts()
        halts.load(await ledger.select("halts"))
        shared = shared_by_runs(self.files, self.world, halts, self._rates())
        shared.context = SharedContext(self.context.declarations, Heads(ledger), self._outfit.code.named)
        envelopes = SharedEnvelopes(self.files.config.budgets, clock, self._seat.borrow(ledger))
        if not self.rehearse:  # a rehearsal costs nothing, whatever real work has spent today
            await envelopes.load(ledger)
        make = self._outfit.maker(ledger, self.files.config.settings.threshold)
        lease = None if member is None else lease_of(member, lambda: engine.owner)
        engine = Engine(ledger, shared, make.current, make.pinned, envelopes.of, build, lease)
        engine.live = not self.rehearse
        await share_breakers(ledger, shared, lambda: engine.owner)
        await self._know_what_waits(ledger)
        if member is None:
            self._dispatcher = LocalDispatcher(engine, self.files.config.name)
        else:
            self._dispatcher = WorkerDispatcher(engine, member, self.files.config.name, self._seat.go_on_as)
        self._dispatcher.gate, self._dispatcher.overload = self.gate, self.files.config.overload
        if not self.rehearse:
            url = None if self._given_ledger else self.place.url
            deliveries = Deliveries(ledger, self.files.config.notify, self._outfit.secrets)
            self._dispatcher.upkeep = Upkeep(ledger, self.files, self._starting, url, build, deliveries)
        await self._dispatcher.start(sequence=not self._given_ledger)
        return engine

    async def _know_what_waits(self, ledger: Ledger) -> None:
        if not self._gated:
            self._gated = True
            await self.gate.follow(ledger)
        elif ledger.backend.shared:
            await self.gate.count(ledger)

    async def _lost(self, worker: str) -> None:
        """This process was not heard for too long."""
        if isinstance(self._dispatcher, WorkerDispatcher):
            await self._dispatcher.lost()

    def load_code(self, workflows: Iterable[str]) -> None:
        """Import the Python of the agents of these workflows; `run`, `resume` and `serve` do so before they begin.

        Raises:
            LoadError: a module cannot be imported; it names file, line and cause. UnknownName: no such workflow.
        """
        self._outfit.load_code(workflows)

    async def warm(self) -> None:
        """Have ready what a first run would wait for: code, providers, programs, contracts, connections; `serve` does.

        Raises:
            LoadError: as `load_code`, and of a provider or a contract.
        """
        await self.engine()
        self.load_code(self.files.workflows)
        await self._outfit.warm()

    def _rates(self) -> Rates:
        living = lambda: 1 if self._dispatcher is None else self._dispatcher.workers  # noqa: E731
        rates = Rates(self.world.clock, shares=self.shares or self._seat.shares, workers=living)
        self._outfit.limit(rates)
        return rates

    # --- running ---------------------------------------------------------------------------------

    async def run(
        self,
        workflow: str,
        input: Mapping[str, Json],
        *,
        reference: str = "",
        tenant: str = "default",
        linked: str = "",
        priority: int | None = None,
        by: str = "",
    ) -> Run:
        """Run a workflow until it has ended or waits for something outside.

        Args:
            workflow: its name.
            input: its declared input.
            reference: the caller's own name for this piece of work: the same reference is the same run, which is
                continued or, once it has ended, returned.
            tenant: whose run it is.
            linked: an earlier run that this one follows.
            priority: 0 goes first, 9 last; the workflow's own by default.
            by: who starts it, where a person does: they do not check it where `four_eyes` is declared.

        Raises:
            UnknownName: no such workflow. InputRejected: the input does not fit, or the reference was used before with
                another. Halted: nothing is started.
            Overloaded: too many wait already; nothing was written.
            ExecutorBusy: another process executes on this workspace. StoreError: the disk.
        """
        engine = await self.engine()
        self.load_code([workflow])
        run = derived_id("r", tenant, workflow, reference) if reference else ""
        start = Start(workflow, input, reference, tenant, priority, run, linked=linked, live=not self.rehearse, by=[by])
        if priority is None:
            priority = self.files.workflow(workflow).priority
        try:
            async with self.gate.place(tenant, workflow, priority):
                if await self._begun(engine, start):
                    ended = await engine.drive(start.id)
                    if not isinstance(ended.error, StaleOwner):
                        return await self._finish(ended)
                    return await self._continue(start.id)  # another worker has it now
        except Overloaded:
            if not run or not await (await self.ledger()).select("runs", [("id", "=", run)]):
                raise
        await self._same_work(run, start)
        return await self._continue(run)

    async def _begun(self, engine: Engine, start: Start) -> bool:
        """Start a run; false when there is one of this id."""
        try:
            start.id = await engine.start(start)
        except GuardRefused as refused:
            if refused.reason != "exists":
                raise
            return False
        return True

    async def submit(
        self,
        workflow: str,
        input: Mapping[str, Json],
        *,
        reference: str = "",
        tenant: str = "default",
        priority: int | None = None,
        linked: str = "",
        by: str = "",
    ) -> str:
        """Queue a run for whoever executes (`serve`, a worker); it is on the disk when this returns.

        Args:
            workflow, input, reference, tenant, linked, by: as for `run`.
            priority: 0 is taken up first, 9 last; the workflow's own by default.

        Returns: the run's id; with a reference that was used before, that of the run that exists.

        Raises:
            UnknownName: no such workflow. InputRejected: the input does not fit, or the reference was used before with
                another. Halted: nothing is started. StoreError: the disk.
            Overloaded: too many wait already; nothing was written.
        """
        ledger, starter = await self.ledger(), await self._starting()
        run = derived_id("r", tenant, workflow, reference) if reference else ""
        start = Start(workflow, input, reference, tenant, priority, run, linked=linked, live=not self.rehearse, by=[by])
        beginning = await starter.prepare(start, owner="")
        await self._know_what_waits(ledger)
        try:
            if not run or not await ledger.select("runs", [("id", "=", run)]):
                self.gate.check_queue(tenant, beginning.program.spec.priority if priority is None else priority)
            await beginning.record()
        except GuardRefused as refused:
            if refused.reason != "exists":
                raise
            await self._same_work(run, start)
        return beginning.facts.id

    async def _starting(self) -> Starter:
        """What makes runs that are left to whoever executes."""
        ledger = await self.ledger()
        await self._outfit.connect()
        async with self._opening:
            if self._starter is None:
                make = self._outfit.maker(ledger, self.files.config.settings.threshold)
                self._starter = Starter(ledger, self.world, make.current, build_id(self.files.code_hash))
            return self._starter

    async def _same_work(self, run: str, start: Start) -> None:
        """A reference names one piece of work: it is not answered with the result of another."""
        given = check_input(self.files.workflow(start.workflow).input, start.input, start.workflow)
        _, other = await known(await self.ledger(), {run: given})
        if other:
            error = other_input(run, f"give it a reference of its own; `tightship runs show {run}` shows what was run")
            raise InputRejected(error.message, where=f"reference {start.reference!r}", fix=error.fix)

    async def _continue(self, run: str) -> Run:
        """Go on with a run until it has ended or waits for something; while another worker has it, wait for that."""
        engine = await self.engine()
        assert self._dispatcher is not None
        before = engine.put_downs
        while True:
            row = await self.row(run)
            if not await self._dispatcher.is_free(row):
                if row["state"] != "running" or engine.put_downs != before:
                    return await self.result(run)
                await self.world.clock.sleep(ELSEWHERE)
                continue
            if (await set_apart(engine.ledger, [row]))[1]:
                ended = await self._dispatcher.alone(row)
            else:
                errors = [one.error for one in await engine.take_over([row]) if one.error is not None]
                ended = Ended(run, "refused", errors[0]) if errors else await engine.drive(run)
            if not isinstance(ended.error, StaleOwner):
                return await self._finish(ended)
            # a stale owner: somebody else was first, of this process or another, so look again

    async def _finish(self, ended: Ended) -> Run:
        if ended.error is not None:
            raise ended.error
        return ended.result or await self.result(ended.run)

    async def resume(self, runs: Sequence[str] = (), accept_code: bool = False) -> list[Ended]:
        """Continue runs that are due: those named, or all that a process has left or that have waited long enough.

        Returns what became of each. `accept_code` takes runs that other code began; else such a one keeps its error.
        """
        await self.engine()
        assert self._dispatcher is not None
        if runs:
            rows = [row for row in [await self.row(run) for run in runs] if row["state"] != "ended"]
        else:
            rows = await self._dispatcher.due()
        self.load_code({row["workflow"] for row in rows} & self.files.workflows.keys())
        return await self._dispatcher.resume(rows, accept_code)

    async def due(self) -> Sequence[Mapping[str, Any]]:
        """Rows of the runs that `resume` would continue now."""
        await self.engine()
        assert self._dispatcher is not None
        return await self._dispatcher.due()

    async def serve(self, stop: asyncio.Event, concurrency: int = 64) -> None:
        """The embedded worker: pick up what is due until told to stop; at most `concurrency` runs at a time.

        Raises:
            LoadError: the code of an agent cannot be imported.
        """
        await self.warm()
        assert self._dispatcher is not None
        await self._dispatcher.serve(stop, concurrency)

    async def put_down(self) -> None:
        """Stop driving runs: what was admitted settles, no new effect begins, and `resume` continues them later."""
        if self._engine is not None:
            await self._engine.put_down()

    # --- looking ---------------------------------------------------------------------------------

    async def row(self, run: str) -> dict[str, Any]:
        """A run's row.

        Raises:
            UnknownName: there is no such run.
        """
        rows = await (await self.ledger()).select("runs", [("id", "=", run)])
        if not rows:
            raise UnknownName(f"there is no run {run!r}", fix="list them with `tightship runs list`")
        return rows[0]

    async def result(self, run: str) -> Run:
        """A run as it stands."""
        return await Run.of(await self.ledger(), await self.row(run))

    async def operator(self) -> Operator:
        """What people do to runs: decide, cancel, halt. Works beside a process that executes."""
        return Operator(await self.ledger(), self.files, self.world, self._starting)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncGenerator[Ledger]:
        """The ledger, polled for what other processes append, for as long as the block runs."""
        async with polled(await self.ledger(), self.world) as ledger:
            yield ledger


__all__ = ["Workspace", "projections"]
