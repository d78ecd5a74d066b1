"""Tightship's own side of the benchmark, through its public API, as shipped: every control on, SQLite, fsync.

Run as a side: `python -m benchmarks.ours MEASUREMENT --store DIR --size SIZE`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import harness, workload
from benchmarks.harness import Alone, Flight, Job, Load, Outcome
from tightship import Agent, Workflow, Workspace
from tightship.core import kinds
from tightship.core.ports import Reply, Request, ToolSpec, Usage
from tightship.effects.arguments import check_arguments, check_result
from tightship.effects.call import Call
from tightship.effects.governance import DeclaredOnly
from tightship.ledger import Draft, Ledger
from tightship.models.conversation import Conversation, Message
from tightship.models.port import ModelReply, ModelRequest, OnText
from tightship.runtime.workspace import projections

MODULE = "benchmarks.ours"
ANSWER = {"number": "int", "text": "str"}


class Step:
    """A tool in this process that answers at once: what is measured is everything around it."""

    def __init__(self, name: str, tick: Callable[[], None], usd: int = 0) -> None:
        self._tick = tick
        self._usage = Usage(usd=usd)
        self.spec = ToolSpec(
            name,
            input_schema={
                "type": "object",
                "properties": {"step": {"type": "integer"}},
                "required": ["step"],
                "additionalProperties": False,
            },
            output_schema={"type": "object", "required": ["number", "text"]},
            price=self._usage,
        )

    async def perform(self, request: Request) -> Reply:
        """Tick, and answer a small dict that is never the same twice."""
        self._tick()
        return Reply(workload.answer(), self._usage)

    async def lookup(self, request: Request) -> Reply | None:
        """It writes nothing."""
        return None


def prepare(path: Path) -> Path:
    """A workspace's folder, unless it is one already."""
    path.mkdir(parents=True, exist_ok=True)
    text = "name: benchmark\nroles: {operator: [bench]}\nbudgets: {tenant: {day: {usd: 1000000}}}\n"
    config = path / "tightship.yaml"
    if not config.exists():
        config.write_text(text, "utf-8")
    return path


def _stepper(tool: str) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def agent(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        last: dict[str, Any] = {}
        for number in range(workload.EFFECTS_PER_RUN):
            last = await ctx.tool(tool, {"step": number})
        return last

    return agent


def effects_workspace(path: Path, step: Step) -> Workspace:
    """A workflow of one agent that takes EFFECTS_PER_RUN steps."""
    name = step.spec.name
    ws = Workspace.open(prepare(path), tools={name: step})
    ws.add(
        Agent("stepper", owner="bench", purpose="take steps", python="bench:stepper", output=ANSWER, tools=[name]),
        functions={"stepper": _stepper(name)},
    )
    ws.add(
        Workflow(
            "steps",
            owner="bench",
            purpose="take steps",
            input={"run": "str"},
            budget={"usd": 10.0, "seconds": 600, "then": "escalate"},
            steps=["stepper"],
        )
    )
    return ws


async def _drive(path: Path, step: Step, load: Load) -> None:
    async with effects_workspace(path, step) as ws:
        await load.drive(lambda run: completed(ws, "steps", run))


async def completed(ws: Workspace, workflow: str, run: str) -> None:
    result = await ws.run(workflow, {"run": run})
    if result.outcome != "completed":
        raise RuntimeError(f"run {result.id} ended as {result.outcome}: {result.reason}")


def concurrent(job: Job) -> Outcome:
    """Paid effects/s and free reads/s with 32 runs at once."""
    paid, reads = Load(job.size), Load(job.size)
    asyncio.run(_drive(job.folder("paid"), Step("bench.paid", paid.tick, usd=1000), paid))
    asyncio.run(_drive(job.folder("reads"), Step("bench.read", reads.tick), reads))
    return Outcome(
        {"effects_per_s_32_runs_sqlite": paid.effects_per_s, "reads_per_s_32_runs_sqlite": reads.effects_per_s}
    )


def alone(job: Job) -> Outcome:
    """One effect after another with nothing else in flight."""

    async def drive(path: Path, step: Step, timer: Alone) -> None:
        async with effects_workspace(path, step) as ws:
            for number in range(job.size.alone_effects // (workload.EFFECTS_PER_RUN - 1) + 2):
                timer.cut()
                await completed(ws, "steps", str(number))

    paid, reads = Alone(), Alone()
    asyncio.run(drive(job.folder("paid"), Step("bench.paid", paid.tick, usd=1000), paid))
    asyncio.run(drive(job.folder("reads"), Step("bench.read", reads.tick), reads))
    return Outcome(
        {
            "effect_alone_p50_ms": paid.p50_ms,
            "effect_alone_cpu_ms": paid.cpu_ms,
            "read_alone_p50_ms": reads.p50_ms,
            "read_alone_cpu_ms": reads.cpu_ms,
        }
    )


def team_workspace(path: Path, functions: Mapping[str, Any]) -> Workspace:
    """The five agents, one after another."""
    ws = Workspace.open(prepare(path))
    for name in workload.TEAM:
        ws.add(
            Agent(name, owner="bench", purpose=f"do {name}", python=f"bench:{name}", output=ANSWER),
            functions={name: functions[name]},
        )
    ws.add(
        Workflow(
            "team",
            owner="bench",
            purpose="five agents",
            input={"run": "str"},
            budget={"usd": 10.0, "seconds": 600, "then": "escalate"},
            steps=list(workload.TEAM),
        )
    )
    return ws


async def answer(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
    return workload.answer()


def team(job: Job) -> Outcome:
    """Runs/s of five agents, 32 at once."""
    load = Load(job.size)

    async def drive() -> None:
        async with team_workspace(job.folder("team"), dict.fromkeys(workload.TEAM, answer)) as ws:
            await load.drive(lambda run: completed(ws, "team", run))

    asyncio.run(drive())
    return Outcome({"runs_per_s_5_agents_sqlite": load.runs_per_s})


# --- line budget -------------------------------------------------------------------------------------


def line_budget(job: Job) -> Outcome:
    """Where the time of one effect goes: CPU microseconds of each line, the rest of the process being idle."""
    asked = Call(
        "a/1", Step("bench.paid", lambda: None, 1000), "read", "stepper", {"step": 1}, frozenset({"bench.paid"})
    )
    governance, validators = DeclaredOnly(), dict[str, Any]()
    reply = Reply(workload.answer())

    def checks() -> None:
        check_arguments(validators, asked)
        governance.flow(asked)
        governance.outbound(asked)
        check_result(validators, asked, governance.inbound(asked, reply.value))
        governance.label(asked, reply)

    policy = _cpu_us(lambda: governance.authorise(asked), 20_000)
    return Outcome(
        {
            "line_append_us": asyncio.run(_append_us(job.folder("append"))),
            "line_policy_us": policy,
            "line_policy_miss_us": policy,
            "line_checks_us": _cpu_us(checks, 20_000),
            "line_interpreter_us": asyncio.run(_interpreter_us(job.folder("interpreter"))),
        },
        notes={"line_policy_miss_us": "the default policy (declared tools only) has no memo to miss"},
    )


def _cpu_us(work: Callable[[], object], times: int) -> float:
    work()
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times * 1e6


async def _append_us(folder: Path) -> float:
    """Admit and settle with their payloads, straight into the ledger, 32 at once; sealing and commits included."""
    ledger = await Ledger.open(folder / "store", projections=projections())
    effects = 100

    async def lane(number: int) -> None:
        run = f"r-{number}"
        scope = ledger.vault.new_scope(run)
        await ledger.append(Draft(run, kinds.STARTED, "", {"workflow": "w", "owner": "bench", "scope": scope}, 1))
        for step in range(effects):
            args, out = ledger.seal(scope, {"step": step}), ledger.seal(scope, workload.answer())
            body = {"name": "bench.paid", "cls": "read", "agent": "stepper", "workflow": "w"}
            admit = {**body, "args": args.address, "not_after": 1.0, "reserve": {"usd": 1000, "tokens": 0}}
            await ledger.append(Draft(run, kinds.ADMITTED, f"a/{step}", admit, 1, (args,)))
            settle = {**body, "out": out.address, "usd": 1000, "ms": 0.1}
            await ledger.append(Draft(run, kinds.SETTLED, f"a/{step}", settle, 1, (out,)))

    began = time.process_time()
    await asyncio.gather(*(lane(number) for number in range(workload.LANES)))
    spent = time.process_time() - began
    await ledger.close()
    return spent / (workload.LANES * effects) * 1e6


async def _interpreter_us(folder: Path) -> float:
    """One more step of the tree that has no effect of its own (a checkpoint that holds), in a run."""

    async def cpu_of(steps: int) -> float:
        async with Workspace.open(prepare(folder / str(steps))) as ws:
            ws.add(
                Workflow(
                    "walk",
                    owner="bench",
                    purpose="walk",
                    input={"run": "str"},
                    steps=[{"checkpoint": "input.run != ''"} for _ in range(steps)],
                )
            )
            await completed(ws, "walk", "warm")
            began = time.process_time()
            for number in range(20):
                await completed(ws, "walk", str(number))
            return (time.process_time() - began) / 20

    return (await cpu_of(201) - await cpu_of(1)) / 200 * 1e6


# --- conversation ------------------------------------------------------------------------------------


class Talk:
    """A model that says what the workload says: the replies of the conversation, one after another."""

    bound = Usage(usd=1000, tokens_in=100, tokens_out=300)
    """What is reserved for each request, and what it costs: every request admits and settles."""

    def __init__(self, turns: list[workload.Turn]) -> None:
        self._replies = iter(turns)

    async def request(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        """The next reply."""
        message = Message.assistant(next(self._replies).reply)
        return ModelReply(message, self.bound, "stop", "bench-model-2026-01-01")


def conversation(job: Job) -> Outcome:
    """Bytes of the store per byte of unique text: an agent talks with a model, each request holds all before."""
    turns = list(workload.turns(job.size.turns))
    unique = sum(turn.size for turn in turns)
    folder = job.folder("talk")

    async def talker(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        talk = Conversation()
        for turn in turns:
            talk = talk.append(Message.user(turn.user))
            talk = talk.append(Message.assistant(await ctx.model(talk)))
        return workload.answer()

    async def drive() -> None:
        prepare(folder)
        text = (folder / "tightship.yaml").read_text("utf-8")
        tier = "tiers: {talk: {model: 'openai:bench', price: {input: 1, output: 3, source: bench}}}"
        (folder / "tightship.yaml").write_text(f"{text}limits: {{calls: 100000}}\n{tier}\n", "utf-8")
        async with Workspace.open(folder, model=Talk(turns)) as ws:
            ws.add(
                Agent("talker", owner="bench", purpose="talk", python="bench:talker", output=ANSWER, within="1h"),
                functions={"talker": talker},
            )
            ws.add(Workflow("talk", owner="bench", purpose="talk", input={"run": "str"}, steps=["talker"]))
            await completed(ws, "talk", "0")

    asyncio.run(drive())
    size = harness.folder_bytes(folder / ".tightship")
    return Outcome(
        {"ledger_bytes_per_unique_byte_1000_turns": size / unique}, detail={"unique_bytes": unique, "bytes": size}
    )


# --- resume ------------------------------------------------------------------------------------------


def _held_team(flight: Flight, holding: bool) -> dict[str, Any]:
    async def held(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        if holding:
            flight.hold()
            await asyncio.Event().wait()
        return workload.answer()

    async def after(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        flight.passed()
        return workload.answer()

    functions: dict[str, Any] = {name: answer for name in workload.TEAM}
    functions[workload.TEAM[workload.HELD_AGENT]] = held
    functions[workload.TEAM[workload.HELD_AGENT + 1]] = after
    return functions


def _crash(job: Job, arguments: list[str]) -> None:
    flight = Flight(job.size.resume_runs)

    async def drive() -> None:
        ws = team_workspace(job.store / "ws", _held_team(flight, True))
        await asyncio.gather(*(completed(ws, "team", str(number)) for number in range(job.size.resume_runs)))

    asyncio.run(drive())


def _resumed(job: Job, arguments: list[str]) -> None:
    flight = Flight(job.size.resume_runs)

    async def drive() -> dict[str, float]:
        flight.executor_starts()
        async with team_workspace(job.store / "ws", _held_team(flight, False)) as ws:
            ended = await ws.resume()
            report = flight.report()
            wrong = [one for one in ended if one.state != "completed"]
            if wrong:
                raise RuntimeError(f"{len(wrong)} runs did not complete: {wrong[0]}")
            return report

    print(json.dumps(asyncio.run(drive())), flush=True)


def resume(job: Job) -> Outcome:
    """SIGKILL with all runs inside their third agent; seconds from the executor's start until all are past it."""
    harness.crash(MODULE, job)
    found = harness.resume(MODULE, job)
    if found["resumed"] != job.size.resume_runs:
        raise RuntimeError(f"only {found['resumed']} runs were resumed")
    return Outcome(
        {"resume_1000_runs_s": found["resumed_s"]},
        notes={"resume_1000_runs_s": f"all ended after {found['done_s']:.1f} s"},
    )


if __name__ == "__main__":
    from benchmarks.coordination import coordination

    harness.main(
        "ours",
        {
            "concurrent": concurrent,
            "alone": alone,
            "team": team,
            "coordination": coordination,
            "conversation": conversation,
            "line_budget": line_budget,
            "resume": resume,
        },
        versions={"tightship": version("tightship")},
        phases={"crash": _crash, "resumed": _resumed},
    )
