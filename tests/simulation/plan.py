"""Random workflows and agents from one seed: every pattern, every kind of sink, agents that fail in every way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tightship.agents.context import AgentContext
from tightship.core.errors import (
    DataMissing,
    FormatMismatch,
    LowConfidence,
    OutOfScope,
    RuleConflict,
    TightshipError,
    Unavailable,
)
from tightship.patterns import load_all
from tightship.workflow.build import Agent, Workflow
from tightship.workflow.models import AgentSpec, WorkflowSpec

from .coordination import PLANNER, RECEIVERS, Coordination, Gives, passing, plan_of
from .machines import seeded

Op = dict[str, Any]
OUTPUT = {"ok": "bool", "n": "int", "c": "float", "objections": "list[str]", "seen": "list[str]"}
INPUT = {"case": "str", "group": "str", "amount": "float", "numbers": "list[int]"}
RAISES: dict[str, Callable[[str], TightshipError]] = {
    "unavailable": Unavailable,
    "data_missing": DataMissing,
    "rule_conflict": RuleConflict,
    "out_of_scope": OutOfScope,
    "low_confidence": LowConfidence,
    "format_mismatch": FormatMismatch,
}
TOOLS = (
    *("orders.get", "stock.get", "lookups.credit", "orders.update", "refunds.create", "purchasing.create"),
    *("helpdesk.note", "helpdesk.reply", "letters.send"),
)
ORDERS = ("O-2001", "O-2003", "O-2004", "O-2006", "O-2012", "O-2021", "O-2034", "O-2055")
PERSON, ROLE = "ann", "operator"
PEOPLE = (PERSON, "ben", "cy", "di", "eve")
"""Who holds the role: one more than the voters of a vote, for its judge."""


@dataclass(slots=True)
class Plan:
    """What one seed makes of the world."""

    agents: list[AgentSpec] = field(default_factory=list[AgentSpec])
    functions: dict[str, Any] = field(default_factory=dict[str, Any])
    workflows: list[WorkflowSpec] = field(default_factory=list[WorkflowSpec])
    runs: list[tuple[float, str, str, dict[str, Any]]] = field(default_factory=list[Any])
    """When it is started, its reference, its workflow, its input."""
    tenant_usd: float | None = None
    cached: bool = False
    slow_rate: bool = False
    nervous: bool = False
    """Whether breakers open after few failures."""


# --- agents -----------------------------------------------------------------------------------------


def make_agent(
    seed: int | str, name: str, rng: random.Random, takes: dict[str, Any] | None = None, gives: Gives | None = None
) -> tuple[AgentSpec, Any]:
    """An agent whose behaviour follows from the seed and from its turn's key.

    Args:
        takes: its input, name to type; by default what every agent gets.
        gives: what it gives beside what every agent gives.
    """
    script = [_op(rng, deep=True) for _ in range(rng.choice((0, 1, 1, 2, 2, 3)))]
    fails = rng.choice((0.0, 0.0, 0.0, 0.1, 0.3))
    fields: dict[str, Any] = {"on": _behaviours(rng)} if rng.random() < 0.3 else {}
    if rng.random() < 0.15:
        fields["budget"] = {"calls": rng.randint(1, 6)}
    if rng.random() < 0.1:
        fields["budget"] = {"usd": rng.choice((0.002, 0.004, 0.01))}
    if rng.random() < 0.2:
        fields["within"] = rng.choice((0.3, 1.0, 5.0))
    tools = [tool for tool in TOOLS if rng.random() < 0.97]
    if gives is not None:  # a coordinator that fails leaves nothing to coordinate
        script, fields, fails = script[:1], {}, fails / 3
    spec = Agent(
        name,
        owner="sim",
        purpose=f"plays {name}",
        python=f"sim:{name}",
        input=takes or {},
        output=OUTPUT | {"tasks?": "list", "handoff?": "object"} if gives is not None else OUTPUT,
        tools=tools,
        **fields,
    )

    async def function(ctx: AgentContext, given: dict[str, Any]) -> dict[str, Any]:
        turn = seeded(seed, f"{name}/{given.get('case')}/{ctx.key}")
        seen: list[str] = []
        for number, op in enumerate(script):
            seen.append(await _do(ctx, given, op, f"{ctx.run}/{ctx.key}/{number}"))
        draw = turn.random()
        if draw < fails:
            return await _misbehave(ctx, turn)
        return {
            "ok": turn.random() < 0.6,
            "n": turn.randint(0, 9) + len(ctx.feedback),
            "c": round(turn.random(), 3),
            "objections": ["not good enough"],
            "seen": seen,
            **(gives(turn, given) if gives is not None else {}),
        }

    return spec, function


async def _misbehave(ctx: AgentContext, turn: random.Random) -> Any:
    how = turn.choice((*RAISES, "bug", "shape", "hang", "fork", "nojson", "cancels", "exits", "large"))
    if how in RAISES:
        raise RAISES[how](f"{how} on purpose")
    if how == "bug":
        raise KeyError("a bug on purpose")
    if how == "hang":
        await asyncio.sleep(100_000)
    if how == "fork":
        await asyncio.ensure_future(ctx.tool("orders.get", {"order_id": "O-2001"}))
    if how == "cancels":
        raise asyncio.CancelledError
    if how == "exits":
        raise SystemExit(3)
    return {"shape": 17, "nojson": object(), "large": {"x": "x" * 20_000_000}}.get(how)


def _op(rng: random.Random, deep: bool = False) -> Op:
    kinds = ["read", "read", "read", "paid", "paid", "note", "reply", "refund", "buy", "letter", "etag", "chance"]
    kinds += ["sleep", "clock", "undeclared", "invalid", "absent", "again"]
    if deep:
        kinds += ["parallel", "parallel", "parallel"]
    kind = rng.choice(kinds)
    op: Op = {"do": kind, "order": rng.choice(ORDERS), "number": rng.randint(1, 8), "careless": rng.random() < 0.5}
    if kind == "parallel":
        op["branches"] = [[_op(rng) for _ in range(rng.randint(1, 2))] for _ in range(rng.randint(2, 3))]
    op["claim"] = rng.choice(("", "", "case", "group"))
    return op


async def _do(ctx: AgentContext, given: dict[str, Any], op: Op, mark: str) -> str:
    """One operation; what an agent sees of it. A careful agent takes errors as they come."""
    if op["do"] == "parallel":

        def work(ops: list[Op], at: str) -> Callable[[AgentContext], Any]:
            async def branch(sub: AgentContext) -> list[str]:
                return [await _do(sub, given, one, f"{at}.{index}") for index, one in enumerate(ops)]

            return branch

        works = [work(ops, f"{mark}.{index}") for index, ops in enumerate(op["branches"])]
        return str(await ctx.parallel(*works))
    try:
        return await _call(ctx, given, op, mark)
    except TightshipError as error:
        if not op["careless"]:
            return f"{op['do']}: {error.code}"
        raise


async def _call(ctx: AgentContext, given: dict[str, Any], op: Op, mark: str) -> str:
    order, kind = op["order"], op["do"]
    claim = f"{kind}:{given[op['claim']]}" if op["claim"] else None
    if kind == "sleep":
        await asyncio.sleep(op["number"] / 20 + 0.007)  # never equal to a time limit
        return "slept"
    if kind == "clock":
        return str(await ctx.now())
    if kind == "chance":
        return str(await ctx.random())
    if kind == "etag":
        found = await ctx.tool("orders.get", {"order_id": order}, fresh=True)
        version = f'"v{found["version"]}"'
        done = await ctx.tool("orders.update", {"order_id": order, "If-Match": version, "note": mark}, claim=claim)
        return str(done["note"] == mark)
    ticket = f"T-300{op['number']}"
    name, args = {
        "read": ("orders.get", {"order_id": order}),
        "again": ("orders.get", {"order_id": order}),
        "paid": ("lookups.credit", {"customer_id": f"C-10{op['number']:02d}"}),
        "note": ("helpdesk.note", {"ticket_id": ticket, "body": mark}),
        "reply": ("helpdesk.reply", {"ticket_id": ticket, "body": mark}),
        "refund": ("refunds.create", {"order_id": order, "amount": 0.01, "reason": "goodwill"}),
        "buy": ("purchasing.create", {"sku": f"SKU-50{op['number']}", "quantity": 1}),
        "letter": ("letters.send", {"text": mark}),
        "undeclared": ("customers.get", {"customer_id": "C-1001"}),
        "absent": ("nowhere.none", {}),
        "invalid": ("orders.get", {"order": 7}),
    }[kind]
    value = await ctx.tool(name, args, claim=claim)
    if isinstance(value, dict):
        return f"{kind}: {value.get('id') or value.get('customer_id') or sorted(value)}"
    return f"{kind}: {value}"


# --- workflows --------------------------------------------------------------------------------------


def _behaviours(rng: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in ("unavailable", "data_missing", "unforeseen", "duplicate", "low_confidence", "format_mismatch"):
        if rng.random() < 0.35:
            behaviour: dict[str, Any] = {"then": rng.choice(("escalate", "continue", "ask", "fail"))}
            if rng.random() < 0.5:
                behaviour |= {"retry": rng.randint(1, 2), "after": rng.choice((0, 1, 3, 8))}
            found[kind] = behaviour
    return found


class Maker(Coordination):
    """Makes workflows' steps."""

    def __init__(self, rng: random.Random, agents: list[str], child: str | None) -> None:
        self._rng = rng
        self._agents = agents
        self._child = child
        self._count = 0

    def steps(self, depth: int, bound: list[str]) -> list[Any]:
        """A few steps; `bound` names the agents whose outputs are there."""
        return [self.step(depth, bound) for _ in range(self._rng.randint(1, 3))]

    def step(self, depth: int, bound: list[str]) -> Any:
        """One step."""
        rng = self._rng
        kinds = ["agent", "agent", "agent", "action", "action", "action"]
        if bound:
            kinds += ["checkpoint", "review", "when"]
        if depth:
            kinds += ["concurrent", "concurrent", "foreach", "maker_checker", "sequence", "vote"]
            kinds += ["manager", "handoff", "saga", "saga"]
        if depth and self._child:
            kinds.append("workflow")
        return getattr(self, f"_{rng.choice(kinds)}")(depth, bound)

    def _agent(self, depth: int, bound: list[str]) -> Any:
        name = self._rng.choice(self._agents)
        bound.append(name)
        return {"agent": {"agent": name, **self._extras()}}

    def _extras(self, time: bool = True) -> dict[str, Any]:
        rng = self._rng
        extras: dict[str, Any] = {"on": _behaviours(rng)} if rng.random() < 0.3 else {}
        if time and rng.random() < 0.12:
            extras["within"] = rng.choice((0.2, 1.0, 4.0, 20.0))
        return extras

    def _action(self, depth: int, bound: list[str]) -> Any:
        rng = self._rng
        self._count += 1
        mark = f'"{self._count}:" + input.case'
        tool, given, undo = rng.choice(
            (
                (
                    "refunds.create",
                    {"order_id": f'"{rng.choice(ORDERS)}"', "amount": "0.01", "reason": '"lost"'},
                    "refunds.cancel",
                ),
                ("purchasing.create", {"sku": '"SKU-503"', "quantity": "2"}, "purchasing.cancel"),
                ("helpdesk.reply", {"ticket_id": '"T-3006"', "body": mark}, "helpdesk.retract"),
                ("helpdesk.note", {"ticket_id": '"T-3006"', "body": mark}, "none"),
                ("letters.send", {"text": mark}, "none"),
            )
        )
        fields: dict[str, Any] = {"tool": tool, "with": given, "undo": undo if rng.random() < 0.85 else "none"}
        if rng.random() < 0.5:
            fields["claim"] = rng.choice((f'"c{self._count}:" + input.case', '"shared:" + input.group'))
        return {"action": {**fields, **self._extras()}}

    def _sequence(self, depth: int, bound: list[str]) -> Any:
        return {"sequence": {"steps": self.steps(depth - 1, bound), **self._extras()}}

    def _concurrent(self, depth: int, bound: list[str]) -> Any:
        rng = self._rng
        branches = [{"sequence": self.steps(depth - 1, list(bound))} for _ in range(rng.randint(2, 3))]
        return {
            "concurrent": {
                "branches": branches,
                "on_failure": rng.choice(("end", "escalate", "keep")),
                **self._extras(),
            }
        }

    def _foreach(self, depth: int, bound: list[str]) -> Any:
        rng = self._rng
        inner = self.steps(0, list(bound))
        fields = {"in": "input.numbers", "max": 5, "concurrency": rng.choice((1, 2, 3)), "steps": inner}
        return {"foreach": {**fields, "on_failure": rng.choice(("end", "escalate", "keep")), **self._extras()}}

    def _maker_checker(self, depth: int, bound: list[str]) -> Any:
        rng = self._rng
        maker, checker = rng.sample(self._agents, 2)
        settle = {"rule": "priority", "order": [rng.choice((maker, checker))]}
        ends = ({"then": "escalate"}, {"then": "fail"}, {"then": "accept_with_review", "by": ROLE}, {"settle": settle})
        then = rng.choice(ends)
        fields = {"maker": maker, "checker": checker, "rounds": rng.randint(1, 3), "accept": f"{checker}.ok", **then}
        return {"maker_checker": {**fields, **self._extras()}}

    def _checkpoint(self, depth: int, bound: list[str]) -> Any:
        name = self._rng.choice(bound)
        otherwise = self._rng.choice(("redo", "escalate", "fail"))
        return {"checkpoint": {"that": f"{name}.c > 0.15", "otherwise": otherwise, "on": _behaviours(self._rng)}}

    def _review(self, depth: int, bound: list[str]) -> Any:
        rng, name = self._rng, self._rng.choice(bound)
        fields: dict[str, Any] = {
            "by": ROLE,
            "of": name,
            "when": rng.choice((f"{name}.c < 0.7", f"{name}.c < threshold")),
        }
        if rng.random() < 0.7:
            fields |= {"within": rng.choice((1, 5, 30)), "otherwise": rng.choice(("escalate", "reject", "fail"))}
        return {"review": {**fields, "on_reject": rng.choice(("escalate", "fail"))}}

    def _when(self, depth: int, bound: list[str]) -> Any:
        rng, name = self._rng, self._rng.choice(bound)
        fields: dict[str, Any] = {
            "if": f"{name}.ok && input.amount > 1.0",
            "then": self.steps(max(0, depth - 1), list(bound)),
        }
        if rng.random() < 0.5:
            fields["else"] = self.steps(0, list(bound))
        return {"when": {**fields, **self._extras()}}

    def _workflow(self, depth: int, bound: list[str]) -> Any:
        return {"workflow": {"workflow": self._child, **self._extras()}}


def make_plan(seed: int | str) -> Plan:
    """Everything that one seed's runs are."""
    load_all()
    rng = seeded(seed, "plan")
    plan = Plan()
    for index in range(rng.randint(3, 5)):
        spec, function = make_agent(seed, f"a{index}", rng)
        plan.agents.append(spec)
        plan.functions[spec.agent] = function
    names = [spec.agent for spec in plan.agents]
    _add_coordinators(plan, seed)
    child = "child" if rng.random() < 0.5 else None
    if child:
        plan.workflows.append(_workflow(rng, child, Maker(rng, names, None), depth=1))
    for index in range(rng.randint(1, 2)):
        plan.workflows.append(_workflow(rng, f"w{index}", Maker(rng, names, child), depth=2))
    roots = [spec.workflow for spec in plan.workflows if spec.workflow != "child"]
    for index in range(rng.randint(2, 5)):
        given = {
            "case": f"case-{index}",
            "group": rng.choice(("red", "blue")),
            "amount": rng.choice((0.5, 2.0)),
            "numbers": [rng.randint(0, 9) for _ in range(rng.randint(0, 3))],
        }
        plan.runs.append((rng.random() * 5.0, f"ref-{index}", rng.choice(roots), given))
    if rng.random() < 0.15:
        plan.tenant_usd = rng.choice((0.004, 0.01, 0.02))
    plan.cached, plan.slow_rate, plan.nervous = (rng.random() < 0.25 for _ in range(3))
    add_board(plan, seed)
    return plan


def add_board(plan: Plan, seed: int | str) -> None:
    """In some worlds: peers, whose runs work on one board. Nothing else is drawn from the same source."""
    rng = seeded(seed, "board")
    if rng.random() < 0.6:
        return
    names = [f"p{index}" for index in range(rng.randint(2, 3))]
    given = {name: "list" for name in ("open", "mine", "inbox")}
    for name in names:
        spec = Agent(name, owner="sim", purpose=f"plays {name}", python=f"sim:{name}", input=given, output={}, tools=[])
        plan.agents.append(spec)
        plan.functions[name] = _peer(seed, name, [other for other in names if other != name])
    scope = rng.choice(("run", "tenant", "tenant"))
    fields = {
        "scope": scope,
        "lease": rng.choice((1, 5, 30)),
        "turns": 8,
        "within": rng.choice((5, 60)),
        "then": "keep",
    }
    step = {"peers": {"agents": names, "board": '["u", "v", "w", "x"]', **fields}, "name": "shared"}
    plan.workflows.append(
        Workflow("board", owner="sim", purpose="is simulated", input=INPUT, escalate_to=ROLE, steps=[step])
    )
    for index in range(rng.randint(1, 3)):
        case = {"case": f"board-{index}", "group": "red", "amount": 1.0, "numbers": []}
        plan.runs.append((rng.random() * 5.0, f"board-{index}", "board", case))


def _peer(seed: int | str, name: str, others: list[str]) -> Any:
    """A peer that is slow, asks, gives away, forgets and fails, as its turn's key says."""

    async def function(ctx: AgentContext, given: dict[str, Any]) -> dict[str, Any]:
        turn = seeded(seed, f"{name}/{ctx.run}/{ctx.key}")
        await asyncio.sleep(turn.choice((0.011, 0.3, 2.1)))
        if turn.random() < 0.05:
            raise turn.choice((Unavailable, OutOfScope))("on purpose")
        mine = [one["key"] for one in given["mine"]]
        asks = [one for one in given["inbox"] if one["kind"] == "ask"]
        messages: list[Any] = [
            {"to": one["from"], "kind": "reply", "re": one["id"], "about": one["about"], "value": turn.choice((1, 2))}
            for one in asks
        ]
        other, done = turn.choice(others), [key for key in mine if turn.random() < 0.6]
        for key in mine:
            if key not in done and turn.random() < 0.4:
                kind = turn.choice(("ask", "delegate", "tell"))
                messages.append({"to": other, "kind": kind, "about": key, "text": ctx.key})
        return {
            "claim": [one["key"] for one in given["open"] if turn.random() < 0.7],
            "results": [{"key": key, "value": 1} for key in done],
            "release": [key for key in mine if key not in done and turn.random() < 0.2],
            "messages": messages,
        }

    return function


def _add_coordinators(plan: Plan, seed: int | str) -> None:
    """The agents that plan, and those that hand on. What they call follows from a chance of their own."""
    took = {"team": "object", "items": "list", "done": "list", "failed": "list"}  # bound by a manager
    roles = [(PLANNER, took, plan_of), *((name, {"brief": "object", "peers": "list"}, passing) for name in RECEIVERS)]
    for name, takes, gives in roles:
        spec, function = make_agent(seed, name, seeded(seed, name), takes, gives)
        plan.agents.append(spec)
        plan.functions[name] = function


def _workflow(rng: random.Random, name: str, maker: Maker, depth: int) -> WorkflowSpec:
    fields: dict[str, Any] = {"on": _behaviours(rng)} if rng.random() < 0.3 else {}
    budget: dict[str, Any] = {"then": rng.choice(("ask", "escalate", "fail"))}
    if rng.random() < 0.3:
        budget["usd"] = rng.choice((0.002, 0.004, 0.006, 0.02))
    if rng.random() < 0.15:
        budget["calls"] = rng.randint(2, 20)
    if rng.random() < 0.1:
        budget["seconds"] = rng.choice((2, 10, 30))
    if rng.random() < 0.1:
        fields["limits"] = {"turns": rng.randint(2, 8), "calls": rng.randint(3, 12), "retries": rng.randint(0, 4)}
    bound = [maker._agents[0]]
    steps = [{"agent": {"agent": bound[0]}}, *maker.coordinated(depth, bound), *maker.steps(depth, bound)]
    return Workflow(
        name,
        owner="sim",
        purpose="is simulated",
        input=INPUT,
        budget=budget,
        undo_on_failure=rng.random() < 0.85,
        escalate_to=ROLE,
        steps=steps,
        **fields,
    )
