"""Arguments that name what does not exist are stopped before the call (F7); breakers that are declared end a chain (F11)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, simulate, tool, write

from tightship.core import kinds
from tightship.core.errors import DataMissing, LoadError, Unavailable
from tightship.core.ports import Reply, Request, Usage
from tightship.insight.demand import demand
from tightship.insight.exposition import exposition
from tightship.models.testing import ScriptedModel
from tightship.patterns import load_all
from tightship.runtime.simulation import Simulation
from tightship.runtime.workspace import Workspace
from tightship.workflow.build import Agent

load_all()

ORDERS = {"O-1": {"id": "O-1", "refundable": 40.0, "customer": "c-1"}}
DOMAINS = """
domains:
  shop.refund:
    order_id: {exists: shop.order, as: id}
    reason: {one_of: [returned, damaged]}
    amount: {that: 'value > 0.0 && value <= found.order_id.refundable'}
"""
TIERS = """
tiers:
  cheap: {model: "test:model", price: free}
"""


def order(request: Request) -> Any:
    found = ORDERS.get(request.args["id"])
    return DataMissing("no such order") if found is None else Reply(found)


def shop() -> list[Any]:
    schema = {
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "amount": {"type": "number"}, "reason": {"type": "string"}},
    }
    refund = write("shop.refund", *[{"id": "R-1"}] * 9, idempotency="key", input_schema=schema)
    return [tool("shop.order", *[order] * 50), refund, write("shop.cancel", {}, idempotency="key")]


def refund(order_id: str) -> list[tuple[str, dict[str, Any]]]:
    """A model's wish to refund 5.00 of an order."""
    return [("shop.refund", {"order_id": order_id, "amount": 5.0})]


class ModelDesk(Desk):
    """A desk whose tier answers as written down."""

    def __init__(self, sim: Simulation, tools: Any, config: str, replies: list[Any]) -> None:
        self.model = ScriptedModel(replies)
        super().__init__(sim, tools, config)

    def open(self) -> None:
        super().open()
        self.ws = Workspace.open(self.folder, world=self.world, ledger=self.ledger, tools=self.tools, model=self.model)
        spec = Agent(
            "clerk", owner="test", purpose="refunds", model="cheap", tools=list(self.tools), output={"text": "str"}
        )
        self._specs = [spec]
        self.ws.add(spec)


def refund_desk(sim: Simulation, given: dict[str, Any]) -> Desk:
    desk = Desk(sim, shop(), DOMAINS)
    desk.workflow({"action": "shop.refund", "with": {n: repr(v).replace("'", '"') for n, v in given.items()},
                   "undo": "shop.cancel"})  # fmt: skip
    return desk


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"order_id": "O-1", "amount": 12.5, "reason": "returned"}, ""),
        ({"order_id": "O-9", "amount": 12.5, "reason": "returned"}, "order_id 'O-9' of shop.refund does not exist"),
        ({"order_id": "O-1", "amount": 12.5, "reason": "because"}, "reason 'because' of shop.refund is none of"),
        ({"order_id": "O-1", "amount": 99.5, "reason": "damaged"}, "amount '99.5' of shop.refund does not keep to"),
    ],
)
def test_an_action_with_an_argument_outside_its_domain_is_never_sent(given: dict[str, Any], why: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = refund_desk(sim, given)
        run = await desk.run()
        assert len(desk.tools["shop.refund"].calls) == (not why)
        assert run.outcome == ("escalated" if why else "completed")
        if why:
            (item,) = await (await desk.operator()).items()
            _, package = await (await desk.operator()).item(item.item)
            assert why in str(package), package

    simulate(story)


def test_a_lookup_of_a_domain_is_a_call_that_counts_and_is_cached_over_runs() -> None:
    async def story(sim: Simulation) -> None:
        desk = refund_desk(sim, {"order_id": "O-1", "amount": 1.5, "reason": "returned"})
        await desk.run(case="one")
        await desk.run(case="two")
        assert len(desk.tools["shop.order"].calls) == 1 and len(desk.tools["shop.refund"].calls) == 2
        looked = [entry.body for entry in await desk.entries(kinds.SETTLED) if entry.key.endswith("/domain/order_id")]
        assert [bool(body.get("cached")) for body in looked] == [False, True]

    simulate(story)


def test_when_the_system_cannot_be_asked_the_call_is_not_made() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim, [tool("shop.order", *[Unavailable("down")] * 9), *shop()[1:]], DOMAINS)
        desk.workflow({"action": "shop.refund", "with": {"order_id": '"O-1"'}, "undo": "shop.cancel"})
        run = await desk.run()
        assert (run.outcome, run.reason) == ("escalated", "unavailable")
        assert desk.tools["shop.refund"].calls == []

    simulate(story)


def test_a_model_that_invents_an_id_is_told_and_mends_it_once() -> None:
    async def story(sim: Simulation) -> None:
        desk = ModelDesk(sim, shop(), DOMAINS + TIERS, [refund("O-77"), refund("O-1"), {"text": "refunded"}])
        desk.workflow("clerk")
        run = await desk.run()
        assert run.outcome == "completed"
        assert [call.args["order_id"] for call in desk.tools["shop.refund"].calls] == ["O-1"]
        (told,) = [str(request.conversation.messages()[-1]) for request in desk.model.requests[1:2]]
        assert "O-77" in told and "does not exist" in told

    simulate(story)


def test_a_model_that_goes_on_inventing_is_stopped_and_the_person_sees_what_it_invented() -> None:
    async def story(sim: Simulation) -> None:
        desk = ModelDesk(sim, shop(), DOMAINS + TIERS, [refund(f"O-9{n}") for n in range(9)])
        desk.workflow("clerk")
        run = await desk.run()
        assert (run.outcome, run.reason) == ("escalated", "format_mismatch")
        assert len(desk.model.requests) == 3 and desk.tools["shop.refund"].calls == []
        (item,) = await (await desk.operator()).items()
        _, package = await (await desk.operator()).item(item.item)
        assert "O-92" in str(package)
        reading = await demand(desk.ledger)
        assert [(one.kind, one.name, one.state, one.count) for one in reading.incidents] == [
            ("invented", "shop.refund", "clerk", 3)
        ]
        assert 'tightship_invented_arguments_total{tenant="default",tool="shop.refund",agent="clerk"} 3' in exposition(
            reading
        )

    simulate(story)


@pytest.mark.parametrize("wrong", ["{}", "{exists: orders}", "{that: 'value >'}", "{one_of: [a], like: b}"])
def test_a_domain_that_says_nothing_is_refused_when_it_is_read(wrong: str) -> None:
    async def story(sim: Simulation) -> None:
        with pytest.raises(LoadError):
            Desk(sim, shop(), f"domains: {{shop.refund: {{order_id: {wrong}}}}}\n")

    simulate(story)


# --- breakers --------------------------------------------------------------------------------------------


def looker(name: str, desk: Desk, times: int, pause: float = 0.0, **fields: Any) -> None:
    async def look(ctx: Any, given: dict[str, Any]) -> Any:
        failed = 0
        for n in range(times):
            try:
                await ctx.tool(f"shop.{name}", {"n": n})
            except Unavailable:
                failed += 1
            await asyncio.sleep(pause)
        return {"failed": failed}

    desk.agent(name, look, output={"failed": "int"}, within=10_000, **fields)


def breakers_of(entries: Any) -> list[tuple[str, str]]:
    notes = [entry.body for entry in entries if entry.kind == kinds.NOTE and entry.body["type"] == "breaker"]
    return [(note["name"], note["state"]) for note in notes]


RULE = "{minimum: 4, error_rate: 0.5, cooldown: 20s, probes: 1, window: 1m}"


@pytest.mark.parametrize(
    ("declared", "key"),
    [
        (f"tools: {{shop.bad: {RULE}}}", "tool:shop.bad"),
        (f"agents: {{bad: {RULE}}}", "agent:bad"),
        (f"workflows: {{flow: {RULE}}}", "workflow:flow"),
        (f"providers: {{shop.bad: {RULE}}}", "shop.bad"),
    ],
)
def test_a_declared_breaker_opens_on_errors_and_closes_after_a_good_probe(declared: str, key: str) -> None:
    async def story(sim: Simulation) -> None:
        bad = tool("shop.bad", *[Unavailable("down")] * 4, *["fine"] * 50)
        desk = Desk(sim, [bad], f"breakers: {{{declared}}}\n")
        looker("bad", desk, 12, pause=5.0)
        desk.workflow("bad", limits={"repeats": 50})
        run = await desk.run()
        failed = run.output["failed"]
        assert failed > 2 and len(bad.calls) == 4 + 12 - failed, "what comes while it is open is not sent"
        assert [one for one in breakers_of(run.entries) if one[0] == key] == [(key, "open"), (key, "closed")]
        reading = await demand(desk.ledger)
        assert (key, "open", 1) in [(one.name, one.state, one.count) for one in reading.incidents]
        assert f'tightship_breaker_changes_total{{tenant="default",name="{key}",state="open"}} 1' in exposition(reading)

    simulate(story)


@pytest.mark.parametrize("own", ["agent", "workflow"])
@pytest.mark.parametrize(("above", "opens"), [("", True), ("minimum: 90", False)])
def test_a_breaker_in_the_file_of_an_agent_or_a_workflow_counts_unless_the_workspace_names_one(
    own: str, above: str, opens: bool
) -> None:
    rule = {"minimum": 4, "error_rate": 0.5, "cooldown": 20.0, "window": 60.0}

    async def story(sim: Simulation) -> None:
        bad = tool("shop.bad", *[Unavailable("down")] * 50)
        key = f"{own}:{'bad' if own == 'agent' else 'flow'}"
        name = key.partition(":")[2]
        others = "breakers: {systems: {minimum: 1000}"
        desk = Desk(sim, [bad], others + (f", {own}s: {{{name}: {{{above}}}}}" if above else "") + "}\n")
        looker("bad", desk, 6, **({"breaker": rule} if own == "agent" else {}))
        desk.workflow("bad", limits={"repeats": 50}, **({"breaker": rule} if own == "workflow" else {}))
        run = await desk.run()
        assert breakers_of(run.entries) == ([(key, "open")] if opens else [])
        definition = await desk.ledger.value(run.entries[0].body["definition"])
        assert "breaker" not in str(definition), "it is in force as it stands, whatever a run is bound to"

    simulate(story)


def test_a_breaker_on_spend_ends_the_chain_by_its_declared_behaviour() -> None:
    async def story(sim: Simulation) -> None:
        dear = tool("shop.dear", *["fine"] * 50, price=Usage(usd=400_000_000))
        desk = Desk(
            sim, [dear], "breakers: {workflows: {flow: {spend: 1.00, window: 1h, cooldown: 10m, longest: 1h}}}\n"
        )

        async def look(ctx: Any, given: dict[str, Any]) -> Any:
            for n in range(10):
                await ctx.tool("shop.dear", {"n": n})

        desk.agent("look", look, output={})
        desk.workflow({"agent": "look", "on": {"unavailable": {"then": "continue", "give": {"stopped": True}}}})
        run = await desk.run()
        assert run.outcome == "completed" and len(dear.calls) == 3
        assert breakers_of(run.entries) == [("workflow:flow", "open")]
        again = await desk.run(case="two")
        assert again.outcome == "completed" and len(dear.calls) == 3, "other runs of it are held back as well"

    simulate(story)


def test_a_breaker_on_latency_opens_for_its_agent_alone() -> None:
    async def story(sim: Simulation) -> None:
        async def slowly(request: Request) -> Any:
            await asyncio.sleep(1.5)
            return "fine"

        from engine_desk import Served

        from tightship.core.ports import ToolSpec

        slow = Served(ToolSpec("shop.slow"), slowly)
        rule = "{minimum: 3, slow_after: 1s, slow_rate: 0.5, cooldown: 60s, window: 1m}"
        desk = Desk(sim, [slow], f"breakers: {{agents: {{slow: {rule}}}}}\n")
        looker("slow", desk, 6)

        async def other(ctx: Any, given: dict[str, Any]) -> Any:
            return await ctx.tool("shop.slow", {"n": 1})

        desk.agent("other", other, output={})
        desk.workflow("slow", "other")
        run = await desk.run()
        assert run.outcome == "completed" and len(slow.calls) == 3 + 1
        assert breakers_of(run.entries) == [("agent:slow", "open")]

    simulate(story)


def test_what_takes_back_is_not_held_back_by_a_workflows_breaker() -> None:
    async def story(sim: Simulation) -> None:
        undo = write("shop.undo", {}, idempotency="key")
        tools = [write("shop.do", {}, idempotency="key"), tool("shop.bad", *[Unavailable("down")] * 50), undo]
        desk = Desk(
            sim, tools, "breakers: {workflows: {flow: {minimum: 2, error_rate: 0.5, cooldown: 1h, longest: 1h}}}\n"
        )
        looker("bad", desk, 3)

        async def fail(ctx: Any, given: dict[str, Any]) -> Any:
            return await ctx.tool("shop.bad", {"n": 99})

        desk.agent("fail", fail, output={})
        desk.workflow({"action": "shop.do", "with": {"n": "1"}, "undo": "shop.undo"}, "bad", "fail")
        run = await desk.run()
        assert run.outcome == "escalated" and len(undo.calls) == 1

    simulate(story)
