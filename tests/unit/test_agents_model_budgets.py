"""What a model may cost is reserved before it is asked; what it did cost is charged; envelopes are never exceeded."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))

from model_desk import ANSWER, BOUND, USAGE, Desk, Paid, effects, of_kind
from tightship.agents._asking import ModelTool, _Asked, _counted
from tightship.agents.model import REPAIRS
from tightship.controls.budgets import Amount, Chain, Envelope, Limit
from tightship.core import kinds
from tightship.core.errors import FormatMismatch, RateLimited, TightshipError, TimedOut, Unavailable
from tightship.core.ports import Usage
from tightship.core.signals import OverBudget
from tightship.core.world import World
from tightship.ledger import Ledger
from tightship.models import Conversation, Message, ModelReply, ModelRequest, Models, Tiers
from tightship.models.prices import Counted, tokens_in_bound
from tightship.review.inbox import Decision
from tightship.runtime.result import Run
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import projections

USD, TOKENS = BOUND.usd, BOUND.tokens
CONFIG = """\
name: practice-shop
roles: {lead: [ann]}
tiers: {cheap: {model: "openai:practice-small"}}
"""


def reserves(run: Any) -> list[dict[str, int]]:
    return [entry.body["reserve"] for entry in of_kind(run, kinds.ADMITTED) if "reserve" in entry.body]


async def test_the_bound_is_reserved_and_the_cost_is_charged(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Paid([ANSWER]))
    run = await desk.run()
    assert reserves(run) == [{"usd": USD, "tokens": TOKENS}]
    [settled] = of_kind(run, kinds.SETTLED)
    assert (settled.body["usd"], settled.body["tokens_in"], settled.body["tokens_out"]) == (300, 30, 10)
    assert (run.usd, run.tokens, run.calls) == (USAGE.usd, USAGE.tokens, 1)
    [row] = await desk.ledger.select("spend", [("cls", "=", "model")])
    assert (row["agent"], row["name"], row["usd"], row["tokens_in"]) == ("triage", "model.cheap", 300, 30)


async def test_an_answer_dearer_than_its_bound_is_charged_as_it_was_and_says_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Paid([ANSWER], usage=Usage(1500, 100, 10)))
    run = await desk.run()
    [settled] = of_kind(run, kinds.SETTLED)
    assert settled.body["overrun"] == {"usd": 500}
    assert run.usd == 1500


@pytest.mark.parametrize(
    ("error", "usd", "tokens"),
    [
        (RateLimited("no", retry_after=99.0, evidence={"sent": False}), 0, 0),
        (Unavailable("connection refused", evidence={"sent": False}), 0, 0),
        (TimedOut("too slow", evidence={"sent": True}), USD, TOKENS),
        (Unavailable("broken off"), USD, TOKENS),
        (FormatMismatch("no answer", evidence={"sent": True}), USD, TOKENS),
        (Unavailable("half an answer", evidence={"usd_nano": 120}), 120, TOKENS),
    ],
)
async def test_a_failed_attempt_costs_what_it_may_have_cost(
    tmp_path: Path, error: TightshipError, usd: int, tokens: int
) -> None:
    desk = Desk(tmp_path, Paid([error]), config=CONFIG)
    run = await desk.run()
    assert run.outcome == "escalated"
    settled = of_kind(run, kinds.SETTLED)
    assert [entry.body.get("usd", 0) for entry in settled] == [usd] * len(settled)
    assert [entry.body.get("tokens_in", 0) for entry in settled] == [tokens] * len(settled)
    assert (run.usd, run.calls) == (usd * len(settled), len(settled))
    assert len(settled) == len(desk.requests)


async def test_repairs_are_paid_from_the_same_envelope(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Paid(["no"]), config=CONFIG, budget={"calls": 2}, workflow={"budget": {"then": "escalate"}})
    run = await desk.run()
    assert (run.outcome, run.reason) == ("escalated", "over_budget")
    assert len(desk.requests) == 2 < REPAIRS + 1


@pytest.mark.parametrize(
    "budget", [{"usd": 1.5e-6}, {"tokens": 180}, {"calls": 1}], ids=lambda budget: next(iter(budget))
)
@pytest.mark.parametrize("whose", ["run", "agent:triage"])
async def test_a_short_envelope_asks_a_person_and_goes_on_where_it_stood(
    tmp_path: Path, budget: dict[str, Any], whose: str
) -> None:
    fields: dict[str, Any] = {"workflow": {"budget": budget}} if whose == "run" else {"budget": budget}
    desk = Desk(tmp_path, Paid(["no", ANSWER]), config=CONFIG, tools=[], **fields)
    if "usd" in budget:
        desk.model.bound = Usage(1400, 10, 10)
    run = await desk.run()
    assert run.state == "parked" and len(desk.requests) == 1
    [item] = run.waiting
    operator = await desk.space.operator()
    _, package = await operator.item(item)
    assert (package["kind"], package["evidence"]["scope"]) == ("budget", whose)
    await operator.decide(item, Decision("approve", "ann"))
    await desk.space.resume([run.id])
    run = await desk.space.result(run.id)
    assert (run.outcome, run.output) == ("completed", ANSWER)
    assert len(desk.requests) == 2
    assert [body["usd"] for body in effects(run).values()] == [300, 300]


async def test_a_refused_extension_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Paid([ANSWER]), budget={"tokens": 10})
    run = await desk.run()
    operator = await desk.space.operator()
    await operator.decide(run.waiting[0], Decision("reject", "ann", reason="too dear"))
    await desk.space.resume([run.id])
    run = await desk.space.result(run.id)
    assert (run.outcome, run.reason, desk.requests) == ("escalated", "over_budget", [])


async def test_thinking_is_asked_for_within_its_budget_and_reserved(tmp_path: Path) -> None:
    config = CONFIG.replace('"openai:practice-small"', '"openai:practice-small", thinking: 700, max_tokens: 50')
    desk = Desk(tmp_path, [ANSWER], config=config)
    run = await desk.run()
    settings = desk.requests[0].settings
    assert (settings.max_tokens, settings.thinking_budget) == (50, 700)
    args = await desk.ledger.value(effects(run)["triage/triage/1/model/1"]["args"])
    assert args["thinking_budget"] == 700
    price = {"input": 1, "output": 10, "source": "a test", "date": "2026-01-01"}
    raw = {"model": "openai:practice", "thinking_budget": 700, "max_tokens": 50, "price": price}
    made = Models(Tiers({"cheap": raw}), World(), _NoSecrets())
    assert made.bound(desk.requests[0]).tokens_out == 750


def test_the_budget_of_seconds_bounds_a_turn_and_what_was_asked_is_charged_all_the_same(tmp_path: Path) -> None:
    class Slow(Paid):
        async def request(self, request: ModelRequest, on_text: Any = None) -> ModelReply:
            await asyncio.sleep(30)
            return await super().request(request, on_text)

    async def story(sim: Simulation) -> Run:
        world = sim.world()
        ledger = Ledger.in_memory(world, projections())
        desk = Desk(tmp_path, Slow([ANSWER]), world=world, ledger=ledger, budget={"seconds": 1}, within=20)
        return await desk.run()

    run = simulate(story)
    assert (run.outcome, run.reason) == ("escalated", "AgentHung")
    assert run.package is not None and "within 1 s" in run.package["what_happened"]
    assert run.usd == 300


# --- waiting for what is only reserved ---------------------------------------------------------------


async def test_calls_side_by_side_wait_for_each_others_reserve_and_all_are_made(tmp_path: Path) -> None:
    async def agent(ctx: Any, given: Any) -> Any:
        async def work(c: Any) -> Any:
            return await c.model("hello", tier="cheap")

        return {"topic": "order", "note": " ".join(await ctx.parallel(*[work] * 8))}

    # Each reserves 150 tokens and uses 40: one after the other they fit, side by side two do.
    desk = Desk(tmp_path, Paid(["yes"]), function=agent, workflow={"budget": {"tokens": 7 * 40 + 150}})
    run = await desk.run()
    assert run.outcome == "completed"
    assert run.tokens == 8 * USAGE.tokens


async def test_what_does_not_fit_once_everything_has_settled_is_refused(tmp_path: Path) -> None:
    async def agent(ctx: Any, given: Any) -> Any:
        async def work(c: Any) -> Any:
            return await c.model("hello", tier="cheap")

        await ctx.parallel(*[work] * 8)
        return ANSWER

    budget = {"tokens": 300, "then": "escalate"}
    desk = Desk(tmp_path, Paid(["yes"]), function=agent, workflow={"budget": budget})
    run = await desk.run()
    assert (run.outcome, run.reason) == ("escalated", "over_budget")
    made = [body for body in effects(run).values() if "out" in body]
    assert len(made) == 4 and run.tokens == 4 * USAGE.tokens  # 4 x 40 leaves 140, and 150 are asked


async def test_an_envelope_tells_who_waits_when_a_call_settles_or_its_limit_is_raised() -> None:
    envelope = Envelope("run", Limit(tokens=100))
    chain = Chain([envelope])
    first = chain.reserve(Amount(tokens=80))
    with pytest.raises(OverBudget):
        chain.reserve(Amount(tokens=50))
    short = chain.shortage(Amount(tokens=50))
    assert short is not None and short.passing
    too_much = chain.shortage(Amount(tokens=101))
    assert too_much is not None and not too_much.passing
    waiting = asyncio.ensure_future(envelope.settled())
    await asyncio.sleep(0)
    first.settle(Amount(tokens=70))
    await asyncio.wait_for(waiting, 1)
    again = chain.shortage(Amount(tokens=50))
    assert again is not None and not again.passing
    waiting = asyncio.ensure_future(envelope.settled())
    await asyncio.sleep(0)
    envelope.extend(Amount(tokens=50))
    await asyncio.wait_for(waiting, 1)
    chain.reserve(Amount(tokens=50))


# --- what a request can cost -------------------------------------------------------------------------


class _NoSecrets:
    def get(self, name: str) -> str:
        return ""


def byte_tokens(text: str) -> int:
    return len(text.encode())


def pair_tokens(text: str) -> int:
    return (len(text.encode()) + 3) // 4


texts = st.text(max_size=60)


@given(st.lists(texts, min_size=1, max_size=8), st.integers(0, 7), st.sampled_from([byte_tokens, pair_tokens]))
def test_what_a_tier_has_counted_bounds_what_comes_after_it(
    said: list[str], at: int, tokenizer: Callable[[str], int]
) -> None:
    """A tier that frames messages counts the sum of its messages; the bound from any counted part is never below."""

    def real(talk: Conversation) -> int:
        return 20 + sum(4 + tokenizer(message.content) for message in talk.messages())

    nodes = [Conversation().append(Message.user(said[0]))]
    for text in said[1:]:
        nodes.append(nodes[-1].append(Message.user(text)))
    part = nodes[min(at, len(nodes) - 1)]
    request = ModelRequest(nodes[-1], "cheap")
    bound = tokens_in_bound(request, Counted(part, real(part)))
    assert real(nodes[-1]) <= bound
    assert tokens_in_bound(request) >= real(nodes[-1])


def test_a_bound_from_another_tier_or_other_tools_is_not_used() -> None:
    talk = Conversation.of([Message.user("hello")])
    asked = ModelRequest(talk, "cheap")
    before = _Asked(asked, "k", Message.assistant("yes"), 50)
    assert _counted(before, ModelRequest(talk, "cheap")) == Counted(talk, 50)
    assert _counted(before, ModelRequest(talk, "strong")) is None
    assert _counted(before, ModelRequest(talk, "cheap", (ModelTool(None, asked).spec,))) is None  # type: ignore[arg-type]
    assert _counted(before, ModelRequest(talk, "cheap", output_schema={"type": "object"})) is None
    assert _counted(_Asked(asked, "k", Message.assistant(""), 0), asked) is None
