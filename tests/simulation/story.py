"""One seed's story: processes that run, die and start again; people; second terminals; a calm end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import httpx2
import orjson

from tightship.controls.breakers import BreakerRule, Breakers
from tightship.core.errors import BoundaryError, GuardRefused, OutcomeUnknown, TightshipError, Unavailable
from tightship.core.ports import Reply, Request, ToolSpec
from tightship.core.signals import Signal
from tightship.ledger import MemoryState
from tightship.review.inbox import Decision, InboxItem, allowed_decisions
from tightship.runtime.operator import Operator
from tightship.runtime.simulation import Simulation
from tightship.runtime.workspace import Workspace

from .hands import give_all, hands
from .machines import BASE_URL, TOKEN, Network, Outside, SimLedger, Trouble
from .members import Member
from .plan import OUTPUT, PEOPLE, PERSON, Plan, make_plan

TROUBLE_SECONDS = 25.0
"""Virtual seconds in which things go wrong."""
CALM_SECONDS = 400.0
"""Virtual seconds after which everything must have settled."""


class Never(Exception):
    """The runs did not settle."""


class Keys:
    """Secrets of the practice world."""

    def get(self, name: str) -> str:
        """The company's token."""
        return TOKEN


class LetterBox:
    """A sink of the worst kind: no key, no look-up, no undo."""

    def __init__(self, network: Network, now: Any) -> None:
        self._network, self._now = network, now
        self._spec = ToolSpec("letters.send", effect="write", timeout=2.0, input_schema={"type": "object"})

    @property
    def spec(self) -> ToolSpec:
        """The contract."""
        return self._spec

    async def perform(self, request: Request) -> Reply:
        """Send one letter."""
        if self._now() > request.not_after:
            raise Unavailable("too late to send")
        data = {**request.args, "key": request.key}
        extensions = {"timeout": {"read": self._spec.timeout}}
        sent = httpx2.Request("POST", f"{BASE_URL}/letters", json=data, extensions=extensions)
        try:
            answer = await self._network.handle_async_request(sent)
        except httpx2.ConnectError as error:
            raise Unavailable(str(error)) from error
        except httpx2.TransportError as error:
            raise OutcomeUnknown(str(error)) from error
        return Reply(answer.json())

    async def lookup(self, request: Request) -> Reply | None:
        """Nobody can tell."""
        raise OutcomeUnknown("letters cannot be looked up")


@cache
def workspace_folder(tenant_usd: float | None, cached: bool, slow_rate: bool) -> Path:
    """A folder with tightship.yaml and the company's contract."""
    folder = Path(tempfile.mkdtemp(prefix="tightship-simulation-"))
    contract = resources.files("tightship.company").joinpath("openapi.json").read_bytes()
    (folder / "company.json").write_bytes(contract)
    operations = {}
    if cached:
        operations["orders.get"] = {"cache_seconds": 3}
    if slow_rate:
        operations["helpdesk.reply"] = operations["lookups.credit"] = {"requests_per_second": 2}
    text = f"""
name: simulated
roles: {{operator: [{", ".join(PEOPLE)}]}}
connectors:
  company:
    openapi: company.json
    base_url: {BASE_URL}
    auth: {{bearer: {{secret: TOKEN}}}}
    timeout: 2s
    operations: {orjson.dumps(operations).decode()}
settings: {{agent_seconds: 5s}}
"""
    if tenant_usd is not None:
        text += f"budgets: {{tenant: {{day: {{usd: {tenant_usd}}}}}}}\n"
    (folder / "tightship.yaml").write_text(text)
    return folder


@dataclass(slots=True)
class World:
    """What is left when the story is over."""

    seed: int | str
    sim: Simulation
    plan: Plan
    state: MemoryState
    outside: Outside
    trouble: Trouble
    workers: int = 1
    """Processes that execute at the same time; more than one are workers of a store that they share."""
    cuts: int = 0
    runs: dict[str, str] = field(default_factory=dict[str, str])
    never: set[str] = field(default_factory=set[str])
    """Inbox items that nobody will decide."""
    crashes: int = 0
    replayed: int = 0
    errors: list[str] = field(default_factory=list[str])
    told: list[str] = field(default_factory=list[str])

    def tell(self, what: str) -> None:
        """Note what happened, for `--trace`."""
        self.told.append(f"{self.sim.loop.time():9.3f}  {what}")

    def ledger(self) -> SimLedger:
        """The ledger as somebody outside of the executor opens it."""
        return SimLedger(self.state, self.sim.world())

    def operator(self) -> Operator:
        """A second terminal."""
        files = self.workspace(self.ledger(), None, {"letters.send": _Spec()}).files
        return Operator(self.ledger(), files, self.sim.world())

    def workspace(
        self, ledger: SimLedger, network: Any, tools: dict[str, Any] | None = None, member: Member | None = None
    ) -> Workspace:
        """The workspace with this seed's workflows."""
        world = self.sim.world(network)
        letters = {"letters.send": LetterBox(network, self.sim.clock.now)}
        folder = workspace_folder(self.plan.tenant_usd, self.plan.cached, self.plan.slow_rate)
        ws = Workspace.open(folder, world=world, ledger=ledger, secrets=Keys(), tools=tools or letters, member=member)
        ws.add(*self.plan.agents, *self.plan.workflows, functions=self.plan.functions)
        return ws


async def play(sim: Simulation, kept: list[World], workers: int = 1) -> World:
    """Live through one seed. The world is put into `kept` at once, for whoever looks at it after a failure."""
    rng = sim.random("story")
    hard = rng.random()
    trouble = Trouble(sim, hard if hard > 0.2 else 0.0, rng.choice((0, 1, 2, 4)), rng.choice((0.0, 0.0, 0.0, 0.02)))
    trouble.crash_rate = rng.choice((0.01, 0.03, 0.1))
    world = make_world(sim, trouble)
    world.workers = workers
    kept.append(world)
    _set_faults(world, rng, hard)
    stop = asyncio.Event()
    helpers = [asyncio.ensure_future(work) for work in (people(world, stop), _meddlers(world), hands(world))]
    machines = [asyncio.ensure_future(keep_running(world, stop, one)) for one in range(1, workers + 1)]
    try:
        await sim.clock.sleep(TROUBLE_SECONDS)
        await calm(world)
        await _empty_hands(world, helpers[-1])
        await settled(world, machines)
    finally:
        stop.set()
        for helper in helpers:
            helper.cancel()
        await asyncio.wait({*machines, *helpers}, timeout=100)
    for helper in helpers:
        if helper.done() and not helper.cancelled() and helper.exception() is not None:
            raise helper.exception() or AssertionError
    return world


def make_world(sim: Simulation, trouble: Trouble) -> World:
    """The world of a seed before anything happens in it."""
    world = World(sim.seed, sim, make_plan(sim.seed), MemoryState(), Outside(sim), trouble)
    world.told = trouble.told
    return world


def _set_faults(world: World, rng: random.Random, hard: float) -> None:
    from tightship.company import Fault

    if hard < 0.3:
        return
    kinds = ("rate_limit", "error", "error_after", "malformed", "drop_after")
    faults = [Fault(rng.choice(kinds), rate=0.08 * hard, seconds=rng.choice((0.0, 1.0, 2.0))) for _ in range(3)]
    world.outside.faults.set(faults)


async def calm(world: World) -> None:
    """From now on nothing goes wrong, and nothing is halted."""
    world.trouble.calm()
    world.outside.faults.set([])
    operator = world.operator()
    for halt in await operator.halts():
        await operator.unhalt(halt["scope"], PERSON)
    world.tell("calm")


async def _empty_hands(world: World, helper: asyncio.Future[None]) -> None:
    """Once nobody takes anything over any more, everything is given back."""
    await asyncio.wait({helper})
    await give_all(world)


class _Spec:
    """A contract without anything behind it."""

    spec = ToolSpec("letters.send", effect="write")


# --- the machine --------------------------------------------------------------------------------------


async def keep_running(world: World, stop: asyncio.Event, machine: int = 1) -> None:
    """Keep a process running on a machine: when it has died, start another."""
    sim = world.sim
    life_number = 0
    while not stop.is_set():
        life_number += 1
        number = f"{life_number}" if machine == 1 else f"{machine}.{life_number}"
        process = sim.loop.process(f"life {number}")
        died = asyncio.Event()
        process.on_death(died.set)
        life = process.start(_life(world, process, stop))
        waits = {asyncio.ensure_future(died.wait()), life}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            life.result()
            return
        world.crashes += 1
        world.tell(f"process {number} is dead")
        await sim.clock.sleep(sim.random(f"pause {number}").choice((0.1, 1.0, 4.0)))


async def _life(world: World, process: Any, stop: asyncio.Event) -> None:
    sim = world.sim
    world.tell(f"{process.name} begins")
    ledger = SimLedger(world.state, sim.world(), world.trouble, process)
    network = Network(sim, world.outside, world.trouble)
    member = None
    if world.workers > 1:
        member = Member(world.state.backend.alive, process, world.trouble, sim.loop)
    ws = world.workspace(ledger, network, member=member)
    engine = await ws.engine()
    if member is None:
        engine.owner = process.name  # a process id would differ from one time to the next
    else:
        member.lost = ws._lost
    if world.plan.nervous:
        engine.shared.breakers = Breakers(sim.clock, BreakerRule(minimum=3, cooldown=1.0))
    serving = asyncio.ensure_future(ws.serve(stop, concurrency=8))
    jobs: dict[str, asyncio.Task[None]] = {}
    while not serving.done():
        for run in world.plan.runs:
            if run[1] not in jobs:
                jobs[run[1]] = asyncio.ensure_future(_submit(world, ws, *run))
        await asyncio.wait({serving}, timeout=0.5)
    serving.result()
    world.cuts += 0 if member is None else member.cuts
    for job in jobs.values():
        job.cancel()
    for outcome in await asyncio.gather(*jobs.values(), return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    await ws.close()


async def _submit(world: World, ws: Workspace, at: float, reference: str, workflow: str, given: dict[str, Any]) -> None:
    """A person runs a line of a file, again after a crash, as `run --input` does."""
    clock = world.sim.clock
    if world.sim.loop.time() < at:
        await clock.sleep(at - world.sim.loop.time())
    while True:
        try:
            run = await ws.run(workflow, given, reference=reference)
        except Signal as signal:
            world.tell(f"{reference}: {type(signal).__name__} {signal.reason}")
        except TightshipError as error:
            world.tell(f"{reference}: {error.code} {error.message}")
            world.errors.append(f"{reference}: {error.code} {error.message}")
        else:
            world.runs[reference] = run.id
            if run.state == "ended":
                return
        await clock.sleep(2.0)


# --- people -----------------------------------------------------------------------------------------


async def people(world: World, stop: asyncio.Event) -> None:
    """Somebody looks into the inbox and decides, sooner or later, some items never."""
    sim = world.sim
    rng = sim.random("people")
    operator = world.operator()
    looked: dict[str, float] = {}
    while not stop.is_set():
        for item in await operator.items():
            if item.type in ("escalation", "residual"):
                continue
            if item.item not in looked:
                # what waits for the end of a day or month would outlast the story
                if never := rng.random() < 0.1 and item.due < sim.clock.now() + CALM_SECONDS / 2:
                    world.never.add(item.item)
                looked[item.item] = float("inf") if never else sim.loop.time() + rng.choice((0.0, 0.5, 2.0, 10.0))
            if sim.loop.time() >= looked[item.item]:
                looked[item.item] = float("inf")
                await _decide(world, operator, item, rng)
        await sim.clock.sleep(0.5)


async def _decide(world: World, operator: Operator, item: InboxItem, rng: random.Random) -> None:
    kind = rng.choice(allowed_decisions(item.type))
    value: Any = None
    if kind in ("edit", "answer"):
        value = {"ok": True, "n": 3, "c": 0.95, "objections": [], "seen": ["a person"]}
        assert set(value) == set(OUTPUT)
    if item.type == "budget" and kind == "edit":
        value = {"usd": 0.002, "calls": 1, "seconds": 5}
    world.tell(f"{PERSON} decides {item.type} {item.item}: {kind}")
    for person in PEOPLE:  # in a vote each has one voice: the next one answers for whoever has used theirs
        try:
            await operator.decide(item.item, Decision(kind, person, value))
        except BoundaryError as refused:
            world.tell(refused.message)
            continue
        except GuardRefused as refused:
            world.tell(f"too late: {refused.message}")
        return
    raise AssertionError(f"nobody may decide {item.item}")


async def _meddlers(world: World) -> None:
    """Second terminals: cancel, halt, unhalt."""
    sim = world.sim
    rng = sim.random("meddlers")
    ledger, operator = world.ledger(), world.operator()
    for _ in range(rng.choice((0, 0, 1, 2))):
        await sim.clock.sleep(rng.random() * TROUBLE_SECONDS / 2)
        rows = await ledger.select("runs", [("state", "!=", "ended")])
        if not rows:
            continue
        row = rng.choice(rows)
        if rng.random() < 0.6:
            world.tell(f"cancel {row['id']}")
            with contextlib.suppress(TightshipError):
                await operator.cancel(row["id"], PERSON)
            continue
        agent = rng.choice(world.plan.agents).agent
        scope = rng.choice((f"run:{row['id']}", f"workflow:{row['workflow']}", "all", f"agent:{agent}"))
        world.tell(f"halt {scope}")
        await operator.halt(scope, PERSON, "practice")
        await sim.clock.sleep(rng.random() * 4.0)
        await operator.unhalt(scope, PERSON)


# --- the end ----------------------------------------------------------------------------------------


async def settled(world: World, machines: Iterable[asyncio.Task[None]]) -> None:
    """Wait until every run has ended, or is parked for a person who does not answer."""
    ledger, until = world.ledger(), world.sim.loop.time() + CALM_SECONDS
    while True:
        for machine in machines:
            if machine.done():
                machine.result()
        rows = await ledger.select("runs")
        left = [row for row in rows if row["state"] != "ended" and not await waits_for_people(world, ledger, row)]
        if not left and len([row for row in rows if row["reference"]]) == len(world.plan.runs):
            return
        if world.sim.loop.time() > until:
            raise Never(f"these did not settle: {[(row['id'], row['state'], row['owner']) for row in left]}")
        await world.sim.clock.sleep(1.0)


async def waits_for_people(world: World, ledger: SimLedger, row: dict[str, Any]) -> bool:
    """Whether a run is parked and could only be moved, or its child, by a decision that nobody will take."""
    if row["state"] != "parked" or row["last_signal"] > row["seen"]:
        return False
    items = await ledger.select("inbox", [("run", "=", row["id"]), ("state", "=", "open"), ("due", "=", 0.0)])
    items = [item for item in items if item["type"] != "residual"]  # that is about the world: no run waits for it
    if items and all(item["item"] in world.never for item in items):
        return True
    children = await ledger.select("runs", [("parent", "=", row["id"]), ("state", "!=", "ended")])
    return not items and any([await waits_for_people(world, ledger, child) for child in children])
