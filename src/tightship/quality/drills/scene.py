"""One life of a workspace under a drill: its agents may be replaced, its outside is a stand-in, time may be virtual."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightship.agents.context import AgentContext
from tightship.agents.rehearsal import rehearsed_agent
from tightship.agents.turn import AgentFunction
from tightship.core.ids import derived_id
from tightship.core.ports import Json
from tightship.core.world import World
from tightship.ledger import Entry, Ledger, MemoryState
from tightship.models.rehearsal import RehearsalModel
from tightship.quality.drills.judge import family_of
from tightship.quality.drills.outside import Outside, Tap, Trouble, calm
from tightship.quality.drills.people import People
from tightship.runtime.simulation import Simulation
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.config import Store
from tightship.workflow.models import AgentSpec

if TYPE_CHECKING:
    from tightship.models.port import Model
    from tightship.quality.drills.bench import Bench, Case
    from tightship.runtime.result import Run
    from tightship.runtime.worker import Membership

Actor = Callable[[AgentSpec, AgentFunction], AgentFunction]
"""What a drill makes of an agent."""
LOOKS = 60
"""How often a run that waits is looked at before it counts as stuck; each pause is twice as long, up to six hours."""


async def act(function: AgentFunction, ctx: AgentContext, given: dict[str, Json]) -> Json:
    """What an agent would do undisturbed."""
    value = function(ctx, given)
    return await value if asyncio.iscoroutine(value) else value


class NoSecret:
    """Stands where secrets are: a drill needs none, and gets none (core.ports.Secrets)."""

    def get(self, name: str) -> str:
        """A word that opens nothing."""
        return "practice"


@dataclass(slots=True)
class Scene:
    """A workspace, opened on stand-ins.

    Attributes:
        bench: what is drilled. world, ledger: the ports that it lives by, and where it writes.
        outside: what stands where systems are. workspace: the workspace. taps: its tools.
    """

    bench: Bench
    world: World
    ledger: Ledger
    outside: Outside
    workspace: Workspace
    taps: Mapping[str, Tap]

    @classmethod
    async def open(
        cls,
        bench: Bench,
        world: World,
        ledger: Ledger,
        *,
        trouble: Trouble = calm,
        actor: Actor | None = None,
        model: Model | None = None,
        database: Path | None = None,
        limit: float | None = None,
        config: Mapping[str, Any] | None = None,
        member: Membership | None = None,
    ) -> Scene:
        """Open it.

        Args:
            world: clock and chance; its network is replaced. ledger: where it writes.
            trouble: what is broken outside. actor: what becomes of agents. model: in place of every provider.
            database: where the practice company's state and that of stand-ins outlive the process.
            limit: seconds until a call counts as unanswered, at most.
            config: what is different in tightship.yaml.
            member: this process as one of several workers; it executes alone without it.
        """
        practice = bench.practice(database, world.clock)
        world = replace(world, transport=practice.transport)
        outside = Outside(
            practice, trouble, journal=None if database is None else database.with_name("stand-ins.jsonl")
        )
        outside.load()
        away = {"connectors": {}, "feeds": {}, "store": Store()}
        files = replace(bench.files, config=bench.files.config.model_copy(update={**away, **(config or {})}))
        taps = {name: Tap(tool, outside, limit) for name, tool in (await bench.tools(world, outside)).items()}
        workspace = Workspace(
            files,
            world,
            ledger=ledger,
            secrets=NoSecret(),
            tools=taps,
            model=model or RehearsalModel(),
            member=member,
        )
        for spec in bench.agents():
            function = bench.function(spec)
            if actor is not None and spec.model is not None:
                spec = spec.model_copy(update={"model": None, "python": f"drill:{spec.agent}"})
                workspace.add(spec, functions={spec.agent: actor(spec, rehearsed_agent(spec))})
            elif function is not None:
                workspace.add(functions={spec.agent: function if actor is None else actor(spec, function)})
        return cls(bench, world, ledger, outside, workspace, taps)

    @property
    def acts(self) -> bool:
        """Whether the workflow can change anything outside; else all that is seen of it is its result."""
        named = [*self.bench.actions(), *(name for spec in self.bench.agents() for name in spec.tools)]
        return any(self.taps[name].spec.effect == "write" for name in named if name in self.taps)

    # --- running ---------------------------------------------------------------------------------

    async def prepare(self, case: Case) -> None:
        """What has to be there before the case: `intake` puts it where the workflow finds it."""
        if self.bench.intake is not None:
            trouble, self.outside.trouble = self.outside.trouble, calm
            given = self.bench.intake_input(case)
            if given is not None:
                await self.workspace.run(self.bench.intake, given, reference=f"intake-{case.number}")
            self.outside.trouble = trouble
            self.outside.asked.clear()

    async def run(self, case: Case, reference: str = "") -> Run:
        """Run a case until it has ended; people decide what it waits for. A run that never ends comes back parked."""
        run = await self.workspace.run(self.bench.workflow, case.input, reference=reference or f"case-{case.number}")
        return await self.finish(run)

    async def run_for(self, case: Case, seconds: float) -> Run:
        """Run a case for so long at most; then it comes back as it stands."""
        reference = f"case-{case.number}"
        running = asyncio.ensure_future(self.run(case, reference))
        done, _ = await asyncio.wait({running}, timeout=seconds)
        if done:
            return running.result()
        running.cancel()
        await asyncio.wait({running})
        return await self.whole(await self.workspace.result(derived_id("r", "default", self.bench.workflow, reference)))

    async def finish(self, run: Run) -> Run:
        """Go on with a run, and with those below it, until it has ended."""
        pause, people = 1.0, People(self.workspace.files)
        operator = await self.workspace.operator()
        for _ in range(LOOKS):
            if run.state == "ended":
                break
            family = family_of(await self.entries(), run.id)
            if not await people.decide(operator, family):
                await self.world.clock.sleep(pause)
                pause = min(2 * pause, 6 * 3600.0)
            await self.workspace.resume([run.id, *sorted(family - {run.id})])
            run = await self.workspace.result(run.id)
        return await self.whole(run)

    async def whole(self, run: Run) -> Run:
        """A run with what the ledger holds of it and of all runs below it."""
        entries = await self.entries()
        family = family_of(entries, run.id)
        return replace(run, entries=tuple(entry for entry in entries if entry.run in family))

    async def serve(self, runs: Sequence[str]) -> list[Run]:
        """Be the worker until these runs have ended, and people have decided; those that have."""
        stop, people = asyncio.Event(), People(self.workspace.files)
        serving = asyncio.ensure_future(self.workspace.serve(stop))
        operator = await self.workspace.operator()
        ended: list[Run] = []
        for _ in range(LOOKS):
            await self.world.clock.sleep(5.0)
            found = [await self.workspace.result(run) for run in runs]
            ended = [run for run in found if run.state == "ended"]
            if len(ended) == len(runs):
                break
            for run in found:
                if run.state == "parked":
                    await people.decide(operator, family_of(await self.entries(), run.id))
        stop.set()
        await serving
        return ended

    async def entries(self) -> list[Entry]:
        """All entries of the ledger."""
        return list(await self.ledger.entries(0, 1_000_000))

    async def close(self) -> None:
        """Close what is open."""
        await self.workspace.close()
        self.outside.practice.close()


def play(
    bench: Bench,
    story: Callable[[Scene], Any],
    *,
    trouble: Trouble = calm,
    actor: Actor | None = None,
    model: Model | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int = 1,
) -> Any:
    """Play a story in virtual time, on a ledger in memory; returns what the story returns.

    Raises:
        Stuck: everything waits for something that nobody will do.
    """

    async def whole(sim: Simulation) -> Any:
        world = sim.world()
        ledger = Ledger.in_memory(world, projections(), MemoryState())
        ledger.alone = True  # hours pass at once when nobody looks 20 times a second for what others do
        scene = await Scene.open(bench, world, ledger, trouble=trouble, actor=actor, model=model, config=config)
        try:
            return await story(scene)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await scene.close()

    simulation = Simulation(seed)
    with bench.seal():
        return simulation.run(whole(simulation))


__all__ = ["Actor", "Scene", "act", "play"]
