"""A workspace in virtual time for tests of the door and the engine: agents are functions, tools follow a script."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tightship.connectors.testing import ScriptedTool
from tightship.core import kinds
from tightship.core.errors import OutcomeUnknown
from tightship.core.ports import Reply, Request, ToolSpec
from tightship.ledger import Entry, Ledger, MemoryState
from tightship.patterns import load_all
from tightship.review.inbox import Decision
from tightship.runtime.operator import Operator
from tightship.runtime.result import Run
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.build import Agent, Workflow

AgentFunction = Callable[[Any, dict[str, Any]], Awaitable[Any]]
PERSON = "ann"
OTHER = "ben"
"""Who decides about what `PERSON` has made."""


def tool(name: str, *script: Any, **fields: Any) -> ScriptedTool:
    """A tool that answers as written down; writes are `effect="write"`."""
    return ScriptedTool(ToolSpec(name, **{"timeout": 2.0, **fields}), script or (None,))


def write(name: str, *script: Any, **fields: Any) -> ScriptedTool:
    """A tool that writes."""
    return tool(name, *script, effect="write", **fields)


def lost(request: Request) -> OutcomeUnknown:
    """The answer to a write was lost."""
    return OutcomeUnknown(f"the answer to {request.key} was lost")


class Hanging:
    """A tool whose answer never comes; `began` is set when it is asked."""

    def __init__(self, inner: ScriptedTool, times: int = 1) -> None:
        self.inner, self.times = inner, times
        self.began = asyncio.Event()
        self.spec = inner.spec

    async def perform(self, request: Request) -> Any:
        """Do it, and do not answer the first times."""
        reply = await self.inner.perform(request)
        if self.times:
            self.times -= 1
            self.began.set()
            await asyncio.get_running_loop().create_future()
        return reply

    async def lookup(self, request: Request) -> Any:
        """As the tool inside."""
        return await self.inner.lookup(request)


class Gated:
    """A tool that answers once its gate is open."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.spec, self.gate = inner, inner.spec, asyncio.Event()

    async def perform(self, request: Request) -> Any:
        """Wait, then do it."""
        await self.gate.wait()
        return await self.inner.perform(request)

    async def lookup(self, request: Request) -> Any:
        """As the tool inside."""
        return await self.inner.lookup(request)


class Served(ScriptedTool):
    """A tool that an async function answers."""

    def __init__(self, spec: ToolSpec, function: Any) -> None:
        super().__init__(spec)
        self.function = function

    async def perform(self, request: Request) -> Reply:
        self.calls.append(request)
        return Reply(await self.function(request))


class Desk:
    """A workspace that can be killed and opened again on the same ledger.

    Args:
        sim: the simulation that it lives in.
        tools: its tools. config: more lines of tightship.yaml.
    """

    def __init__(self, sim: Simulation, tools: Iterable[Any] = (), config: str = "") -> None:
        load_all()
        self.sim = sim
        self.tools = {one.spec.name: one for one in tools}
        self.state = MemoryState()
        self.folder = Path(tempfile.mkdtemp(prefix="tightship-desk-"))
        (self.folder / "tightship.yaml").write_text(f"name: desk\nroles: {{operator: [{PERSON}, {OTHER}]}}\n{config}")
        self._specs: list[Any] = []
        self._functions: dict[str, AgentFunction] = {}
        self._lives = 0
        self.open()

    def open(self) -> None:
        """A fresh process on what the ledger holds."""
        self._lives += 1
        self.process = self.sim.loop.process(f"life {self._lives}")
        self.world = self.sim.world()
        self.ledger = Ledger.in_memory(self.world, projections(), self.state)
        self.ws = Workspace.open(self.folder, world=self.world, ledger=self.ledger, tools=self.tools)
        self.ws.add(*self._specs, functions=self._functions)

    def kill(self) -> None:
        """The process dies; the next one is open."""
        self.process.kill()
        self.open()

    def agent(self, name: str, function: AgentFunction, **fields: Any) -> None:
        """An agent that may use every tool unless it says otherwise."""
        fields = {"input": {}, "tools": list(self.tools), "output": {}, **fields}
        spec = Agent(name, owner="test", purpose=f"plays {name}", python=f"test:{name}", **fields)
        self._specs.append(spec)
        self._functions[name] = function
        self.ws.add(spec, functions={name: function})

    def workflow(self, *steps: Any, name: str = "flow", **fields: Any) -> None:
        """A workflow with these steps."""
        fields = {"input": {"case": "str?"}, "escalate_to": "operator", **fields}
        spec = Workflow(name, owner="test", purpose="is tested", steps=list(steps), **fields)
        self._specs.append(spec)
        self.ws.add(spec)

    async def run(self, workflow: str = "flow", case: str = "one", **more: Any) -> Run:
        """Run it in the process that is alive."""
        return await self.process.start(self.ws.run(workflow, {"case": case}, **more))

    def begin(self, workflow: str = "flow", case: str = "one", **more: Any) -> asyncio.Task[Run]:
        """Begin to run it."""
        return self.process.start(self.ws.run(workflow, {"case": case}, **more))

    async def resume(self) -> None:
        """What `runs resume --all` does."""
        for ended in await self.process.start(self.ws.resume()):
            if ended.error is not None:
                raise ended.error

    async def only(self) -> Run:
        """The one run that there is, as it stands."""
        rows = await self.ledger.select("runs", [("parent", "=", "")])
        assert len(rows) == 1
        return await self.ws.result(rows[0]["id"])

    async def entries(self, kind: str = "", key: str = "") -> list[Entry]:
        """Entries of a kind, below a key."""
        found = await self.ledger.entries(0, 100_000)
        return [entry for entry in found if kind in ("", entry.kind) and entry.key.startswith(key)]

    async def settles(self, key: str = "") -> list[Mapping[str, Any]]:
        """The bodies of settles below a key."""
        return [entry.body for entry in await self.entries(kinds.SETTLED, key)]

    async def operator(self) -> Operator:
        """A person's hands."""
        return await self.ws.operator()

    async def answer(self, kind: str = "approve", value: Any = None, type: str = "", by: str = PERSON) -> str:
        """Somebody decides the one item that is open and asks for something; its type."""
        operator = await self.operator()
        items = [item for item in await operator.items() if item.type not in ("escalation", "residual")]
        assert len(items) == 1, items
        await operator.decide(items[0].item, Decision(kind, by, value))  # type: ignore[arg-type]
        assert not type or items[0].type == type
        return items[0].type


__all__ = ["OTHER", "PERSON", "Desk", "Gated", "Hanging", "Served", "lost", "simulate", "tool", "write"]
