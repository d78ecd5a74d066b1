"""A workspace in memory whose agents ask a model of the test's, with a small practice shop as its outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tightship import Agent, DataMissing, Request, Unavailable, Workflow, Workspace, tool
from tightship.connectors.python import PythonTool
from tightship.core import kinds
from tightship.core.errors import OutcomeUnknown, WriteFailed
from tightship.core.ports import Usage
from tightship.core.world import World
from tightship.ledger import Entry, Ledger, MemoryState
from tightship.models.port import ModelRequest
from tightship.models.testing import ScriptedModel
from tightship.runtime.result import Run
from tightship.runtime.workspace import projections

Json = Any
CONFIG = """\
name: practice-shop
roles: {lead: [ann]}
tiers:
  cheap: {model: "openai:practice-small", next: strong, max_tokens: 100}
  strong: {model: "openai:practice-large", max_tokens: 200}
"""
OUTPUT = {"topic": ["order", "refund"], "note": "str"}
USAGE, BOUND = Usage(300, 30, 10), Usage(1000, 90, 60)
ANSWER = {"topic": "order", "note": "it is on its way"}


class Shop:
    """The outside: orders that can be read, and notes that are written down."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.notes: list[str] = []
        self._noted: set[str] = set()
        self.down = False

    def tools(self) -> dict[str, PythonTool]:
        """Its operations."""

        @tool(effect="read", name="orders.get")
        async def get(order_id: str) -> dict[str, str]:
            self.read.append(order_id)
            if self.down:
                raise Unavailable("orders does not answer", evidence={"sent": False})
            if not order_id.startswith("O-"):
                raise DataMissing(f"there is no order {order_id}")
            return {"order_id": order_id, "status": "shipped"}

        @tool(effect="write", name="orders.note", idempotency="key")
        async def note(order_id: str, text: str, request: Request) -> str:
            if text == "refuse":
                raise WriteFailed("the order is closed")
            if request.key not in self._noted:
                self._noted.add(request.key)
                self.notes.append(f"{order_id}: {text}")
            return "noted"

        @tool(effect="write", name="mail.send")
        async def send(text: str) -> str:
            raise OutcomeUnknown("the connection was lost")

        return {"orders.get": get, "orders.note": note, "mail.send": send}


class Desk:
    """A workspace with one agent, `triage`, on the tier `cheap`, and a workflow `desk` that is this agent.

    Args:
        folder: where tightship.yaml is put.
        model: answers for every tier: a script, or a model.
        world: clock and chance.
        state: the store of an earlier desk.
        config: tightship.yaml.
        steps: of the workflow.
        workflow: further fields of the workflow.
        agent: further fields of the agent.
    """

    def __init__(
        self,
        folder: Path,
        model: Any,
        *,
        world: World | None = None,
        state: MemoryState | None = None,
        ledger: Ledger | None = None,
        config: str = CONFIG,
        steps: Sequence[Any] = ("triage",),
        workflow: Mapping[str, Any] | None = None,
        shop: Shop | None = None,
        rehearse: bool = False,
        **agent: Any,
    ) -> None:
        self.shop = shop or Shop()
        self.model: Any = ScriptedModel(model) if isinstance(model, list) else model
        self.state = state or MemoryState()
        world = world or World()
        (folder / "tightship.yaml").write_text(config)
        self.ledger = ledger or Ledger.in_memory(world, projections(), self.state)
        self.space = Workspace.open(
            folder, world=world, ledger=self.ledger, tools=self.shop.tools(), model=self.model, rehearse=rehearse
        )
        fields: dict[str, Any] = {
            "owner": "o",
            "purpose": "sort tickets",
            "model": "cheap",
            "input": {"ticket": "str"},
            "output": OUTPUT,
            "tools": ["orders.get", "orders.note"],
            **agent,
        }
        function = fields.pop("function", None)
        if function is not None:
            del fields["model"]
            fields["python"] = "m:f"
        self.space.add(Agent("triage", **fields), functions={} if function is None else {"triage": function})
        more = {"input": {"ticket": "str"}, "steps": list(steps), **(workflow or {})}
        self.space.add(Workflow("desk", owner="o", purpose="help customers", **more))

    async def run(self, ticket: str = "Where is O-1?", **more: Any) -> Run:
        """One ticket."""
        return await self.space.run("desk", {"ticket": ticket}, **more)

    @property
    def requests(self) -> list[ModelRequest]:
        """What the model was asked."""
        return self.model.requests

    def said(self, number: int = -1) -> list[tuple[str, str]]:
        """Role and text of the messages of a request."""
        return [(message.role, message.content) for message in self.requests[number].conversation.messages()]

    async def values(self, run: Run, kind: str = kinds.SETTLED) -> list[Json]:
        """The values of a run's entries of a kind."""
        return [await self.ledger.value(entry.body["out"]) for entry in run.entries if entry.kind == kind]


def effects(run: Run) -> dict[str, dict[str, Json]]:
    """The final settles of a run by key, each with what its admit said."""
    found: dict[str, dict[str, Json]] = {}
    for entry in run.entries:
        if entry.kind in (kinds.ADMITTED, kinds.SETTLED):
            found[entry.key] = {**found.get(entry.key, {}), **entry.body}
    return found


def of_kind(run: Run, kind: str) -> list[Entry]:
    """A run's entries of one kind."""
    return [entry for entry in run.entries if entry.kind == kind]


class Paid(ScriptedModel):
    """A scripted model whose answers cost something, within a bound that is reserved."""

    def __init__(self, script: Sequence[Any], *, usage: Usage = USAGE, bound: Usage = BOUND) -> None:
        super().__init__(script, usage=usage)
        self.bound = bound
