"""The support template beside a sample company in this process: its agents in the order of its workflow.

`Desk` runs tickets through the agents without the runtime, `outcome_of` reads a run of the real one, and `differences`
compares either with what a ticket expects.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

import tightship
from tightship.company import Company, Faults, InProcessTransport, build_app
from tightship.connectors.auth import auth_of
from tightship.connectors.openapi import OpenApiConnector
from tightship.connectors.settings import AuthSettings
from tightship.core.errors import DuplicateClaim, NotDeclared, WorkException
from tightship.core.ports import Request
from tightship.core.world import World

TEMPLATE = Path(tightship.__file__).parent / "templates" / "support"
CONTRACT = Path(tightship.__file__).parent / "company" / "openapi.json"
THRESHOLD = 0.8
ROUNDS = 2
LIMIT = 100.0
Json = Any


def tickets(folder: Path = TEMPLATE) -> list[dict[str, Json]]:
    """The tickets of the template, each with what is expected of it."""
    return [orjson.loads(line) for line in (folder / "tickets.jsonl").read_bytes().splitlines() if line.strip()]


def module(name: str, folder: Path = TEMPLATE) -> Any:
    """A module of the template's agents, imported as the runtime does: their folder is on the path."""
    path = str(folder / "agents")
    if path not in sys.path:
        sys.path.insert(0, path)
    return importlib.import_module(name)


class Token:
    """The one secret there is."""

    def get(self, name: str) -> str:
        """It."""
        return "practice"


class SampleCompany:
    """A fresh sample company behind the connector that the runtime would use, without a network."""

    def __init__(self) -> None:
        self.company = Company(rng=random.Random(1))
        self.faults = Faults(random.Random(1))
        app = build_app(self.company, self.faults, token="practice")
        self.world = World(transport=InProcessTransport(app))
        auth = auth_of(AuthSettings.model_validate({"bearer": {"secret": "COMPANY_TOKEN"}}), Token(), self.world)
        self.connector = OpenApiConnector("company", CONTRACT.read_bytes(), "http://company.example", auth, self.world)
        self.calls: list[str] = []

    async def call(self, name: str, args: Mapping[str, Json], key: str = "k", agent: str = "test") -> Json:
        """One call of an operation, as a tool."""
        self.calls.append(name)
        request = Request(dict(args), key, "run", agent, self.world.clock.now() + 30)
        return (await self.connector.tool(name).perform(request)).value

    async def close(self) -> None:
        """Close it."""
        await self.connector.aclose()
        self.company.close()


class FakeContext:
    """As much of an agent's context as the template's agents use."""

    def __init__(
        self, company: SampleCompany, agent: str, declared: Sequence[str], feedback: Sequence[str], workspace: Path
    ) -> None:
        self._company, self.agent, self._declared = company, agent, declared
        self.feedback, self.workspace = list(feedback), workspace

    async def tool(self, name: str, args: Mapping[str, Json] | None = None) -> Json:
        """A declared read."""
        if name not in self._declared:
            raise NotDeclared(f"{self.agent} did not declare {name}")
        return await self._company.call(name, args or {}, agent=self.agent)

    async def parallel(self, *works: Callable[[FakeContext], Awaitable[Json]]) -> list[Json]:
        """All of them side by side; the first error in their order."""
        done = await asyncio.gather(*(work(self) for work in works), return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result
        return list(done)

    def knowledge(self, name: str = "knowledge") -> Path:
        """A folder of the workspace."""
        return self.workspace / name


@dataclass
class Outcome:
    """How a ticket ended."""

    outcome: str
    reason_kind: str | None = None
    topic: str | None = None
    reply: str = ""
    refund: dict[str, Json] | None = None
    confidence: float = 0.0
    review: list[str] = field(default_factory=list[str])
    action: list[str] = field(default_factory=list[str])
    rounds: int = 0
    steps: dict[str, Json] = field(default_factory=dict[str, Json])
    message: str = ""


class Desk:
    """The template's agents in the order of workflows/support.yaml, over one sample company."""

    def __init__(self, company: SampleCompany, folder: Path = TEMPLATE) -> None:
        self.company, self.folder, self.module = company, folder, module("desk", folder)
        self.claims: set[str] = set()
        self.tools = {name: _declared_tools(folder / "agents" / f"{name}.yaml") for name in _NAMES}

    async def turn(self, agent: str, feedback: Sequence[str] = (), **inputs: Json) -> Json:
        """One turn of an agent."""
        ctx = FakeContext(self.company, agent, self.tools[agent], feedback, self.folder)
        return await getattr(self.module, agent)(ctx, inputs)

    async def answer(self, ticket: Mapping[str, Json], *, act: bool = True) -> Outcome:
        """A ticket from the first look to the reply; a review ends it here, as it parks an unattended run."""
        done = Outcome("completed")
        try:
            await self._draft(ticket, done)
            done.review = _reasons(done)
            if done.review:
                done.outcome = "review"
            elif act:
                await self._act(ticket, done)
        except WorkException as error:
            done.outcome, done.reason_kind, done.message = "escalated", error.kind, error.message
        return done

    async def _draft(self, ticket: Mapping[str, Json], done: Outcome) -> None:
        steps = done.steps
        steps["triage"] = await self.turn("triage", ticket=ticket["ticket"])
        done.topic = steps["triage"]["topic"]
        steps["knowledge"] = await self.turn("knowledge", triage=steps["triage"])
        steps["account"] = await self.turn("account", triage=steps["triage"], customer_id=ticket["customer_id"])
        objections: list[str] = []
        for number in range(1, ROUNDS + 1):
            given = {name: steps[name] for name in ("triage", "knowledge", "account")}
            steps["respond"] = await self.turn("respond", objections, **given)
            given = {name: steps[name] for name in ("triage", "account", "respond")}
            steps["quality"] = await self.turn("quality", **given)
            objections, done.rounds = steps["quality"]["objections"], number
            if steps["quality"]["approved"]:
                break
        else:
            error = WorkException(f"no agreement: {objections}")
            raise error
        done.reply, done.confidence = steps["respond"]["reply"], steps["quality"]["confidence"]
        if steps["respond"]["refund"]["due"]:
            done.refund = steps["respond"]["refund"]

    async def _act(self, ticket: Mapping[str, Json], done: Outcome) -> None:
        if done.refund is not None:
            try:
                await self._refund(done.refund)
                done.action.append("refunds.create")
            except DuplicateClaim:
                done.steps["refund_status"] = await self.turn("refund_status", respond=done.steps["respond"])
        args = {"ticket_id": ticket["id"], "body": done.reply, "author": "support desk"}
        await self.company.call("helpdesk.reply", args, f"reply-{ticket['id']}")
        done.action.append("helpdesk.reply")

    async def _refund(self, refund: Mapping[str, Json]) -> None:
        claim = f"refund:{refund['order_id']}"
        if claim in self.claims:
            raise DuplicateClaim(f"{claim} is taken")
        self.claims.add(claim)
        await self.company.call(
            "refunds.create", {name: refund[name] for name in ("order_id", "amount", "reason")}, claim
        )

    async def file(self, ticket: Mapping[str, Json]) -> None:
        """Put a ticket on the helpdesk, as workflows/intake.yaml does."""
        args = {"id": ticket["id"], "subject": f"Ticket {ticket['id']}", "body": ticket["ticket"], "channel": "email"}
        await self.company.call("helpdesk.create", args, f"ticket-{ticket['id']}")


_NAMES = ("triage", "knowledge", "account", "respond", "quality", "refund_status")


def _declared_tools(path: Path) -> list[str]:
    from ruamel.yaml import YAML

    return list(YAML(typ="safe").load(path.read_text()).get("tools", []))


def _reasons(done: Outcome) -> list[str]:
    """Why a person has to look, in the terms of the workflow's review."""
    found = {
        "confidence": done.confidence < THRESHOLD,
        "amount": done.refund is not None and done.refund["amount"] > LIMIT,
        "hold": bool(done.steps["account"]["holds"]),
        "alarm": bool(done.steps["triage"]["alarms"]),
    }
    return [name for name, holds in found.items() if holds]


async def outcome_of(run: Any, ledger: Any) -> Outcome:
    """A run of the real runtime (`tightship.Run`, with its entries) in the same terms.

    Args:
        run: the run, as it stands.
        ledger: where its outputs are.
    """
    done = Outcome("review" if run.state == "parked" else run.outcome)
    done.reason_kind = run.reason if done.outcome == "escalated" else None
    for entry in run.entries:
        body = entry.body
        if entry.kind == "turn.done" and "out" in body:
            done.steps[body["agent"]] = await ledger.value(body["out"])
            done.rounds += body["agent"] == "quality"
        elif entry.kind == "effect.settled" and body.get("cls") == "write" and "out" in body:
            done.action.append(body["name"])
    steps = done.steps
    if "triage" in steps:
        done.topic = steps["triage"]["topic"]
    if "quality" in steps:
        done.reply, done.confidence = steps["respond"]["reply"], steps["quality"]["confidence"]
        done.refund = steps["respond"]["refund"] if steps["respond"]["refund"]["due"] else None
        done.review = _reasons(done)
    return done


def differences(expected: Mapping[str, Json], got: Outcome) -> list[str]:
    """Where an outcome is not what the ticket expects; empty when all is well.

    `pair` marks tickets that are about one refund: which of the two makes it is not said.
    """
    found: list[str] = []

    def same(what: str, wanted: Json, is_: Json) -> None:
        if wanted != is_:
            found.append(f"{what}: expected {wanted!r}, got {is_!r}")

    same("outcome", expected["outcome"], got.outcome)
    same("reason_kind", expected.get("reason_kind"), got.reason_kind)
    if got.topic is not None and "topic" in expected:
        same("topic", expected["topic"], got.topic)
    if expected["outcome"] == "completed" and "pair" not in expected:
        same("action", expected["action"], got.action)
    if "review" in expected:
        found += [f"review: expected {why!r}, got {got.review}" for why in expected["review"] if why not in got.review]
    if "pair" not in expected and expected["outcome"] != "escalated":
        refund = None if got.refund is None else {name: got.refund[name] for name in ("order_id", "amount")}
        same("refund", expected.get("refund"), refund)
    found += [f"the reply says {text!r}" for text in expected.get("absent", ()) if text.lower() in got.reply.lower()]
    if "rounds" in expected:
        same("rounds", expected["rounds"], got.rounds)
    return found


CITATION = re.compile(r"\[[A-Z]+-[A-Za-z0-9-]+\]")
