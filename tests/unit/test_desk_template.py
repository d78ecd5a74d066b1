"""The service desk's template keeps what it promises: each practice ticket ends as it says, over the real company."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import tightship
from support_desk import CONTRACT
from template_desk import TemplateDesk
from tightship.cli._batch import Line
from tightship.cli._expect import Comparison, Verdict
from tightship.cli._work import record
from tightship.connectors.openapi import OpenApiConnector
from tightship.connectors.testing import ScriptedTool
from tightship.core.errors import Unavailable
from tightship.core.ports import ToolSpec
from tightship.insight import coordination_report
from tightship.runtime.simulation import Simulation, simulate
from tightship.workflow.loader import load_workspace
from tightship.workflow.readiness import check_workspace

TEMPLATE = Path(tightship.__file__).parent / "templates" / "service-desk"
TICKETS = [orjson.loads(line) for line in (TEMPLATE / "tickets.jsonl").read_bytes().splitlines()]


class ServiceDesk(TemplateDesk):
    """The template's workspace and the sample company, in virtual time; nobody answers for the monitoring."""

    def __init__(self, sim: Simulation, folder: Path) -> None:
        monitor = ScriptedTool(ToolSpec("monitor.status"), [Unavailable("nobody answers")])
        super().__init__(sim, TEMPLATE, folder, more={"monitor.status": monitor})

    async def run(self, ticket: dict[str, Any]) -> Any:
        """One ticket, filed and answered."""
        given = {name: value for name, value in ticket.items() if name != "expected"}
        filed = await self.process.start(self.ws.run("intake", given))
        assert filed.outcome == "completed"
        return await self.process.start(self.ws.run("service-desk", given, reference=ticket["id"]))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Verdict], list[Any], Any, dict[str, Any]]:
    """Every ticket once, one after the other: verdicts, what waits for people, coordination, the company's records."""
    folder = tmp_path_factory.mktemp("desk") / "workspace"

    async def story(sim: Simulation) -> Any:
        desk, comparison = ServiceDesk(sim, folder), Comparison()
        for number, ticket in enumerate(TICKETS, 1):
            run = await desk.run(ticket)
            line = Line(number, ticket["id"], ticket, ticket["expected"])
            comparison.add(record(line, run), line.expected, run.entries)
        verdicts = await comparison.verdicts(desk.ledger)
        items = await (await desk.ws.operator()).items()
        sums = await coordination_report(desk.ledger, workflow="service-desk")
        state = desk.company.state()
        await desk.close()
        return verdicts, items, sums["default", "service-desk"], state

    return simulate(story)


def test_every_ticket_ends_as_it_says(played: Any) -> None:
    assert len(TICKETS) >= 20
    assert [(one.reference, one.differences) for one in played[0] if one.differences] == []


def test_what_can_happen_at_such_a_desk_is_among_the_tickets() -> None:
    assert {ticket["expected"]["case"] for ticket in TICKETS} >= {
        "direct_answer",
        "missing_field_goes_back_once",
        "missing_twice",
        "undeclared_target",
        "ping_pong_stopped",
        "domain_budget_exhausted",
        "domain_system_down",
        "facts_kept_along_three_handoffs",
    }


def test_what_a_domain_cannot_finish_is_with_its_own_people_and_the_rest_with_those_of_the_desk(played: Any) -> None:
    roles = Counter(item.role for item in played[1])
    wanted = Counter[str]()
    for ticket in TICKETS:
        wanted["service_lead"] += ticket["expected"]["outcome"] == "escalated"
        for below in ticket["expected"].get("below", ()):
            if ": escalated" in below:
                wanted[f"{below.partition('-desk')[0]}_lead"] += 1
    assert roles == +wanted


def test_the_desk_s_figures_are_those_of_its_tickets(played: Any) -> None:
    found = played[2]
    assert found.runs == len(TICKETS)
    passed = Counter(way for ticket in TICKETS for way in ticket["expected"].get("handoffs", ()))
    assert {f"{one.source} > {one.target}": one.handoffs for one in found.pairs.values() if one.handoffs} == passed
    assert found.refused == {("it", "peer"): 2, ("reception", "brief"): 6}
    assert found.chains[0] == found.chains[1] > 0
    assert all(one.retention in (None, 1.0) for one in found.pairs.values())


def test_every_customer_of_a_finished_ticket_has_one_reply_and_what_is_owed(played: Any) -> None:
    state = played[3]
    finished = {ticket["id"] for ticket in TICKETS if ticket["expected"]["outcome"] == "completed"}
    replies = Counter(one["ticket_id"] for one in state["messages"] if one["kind"] == "reply")
    assert replies == dict.fromkeys(finished, 1)
    refunds = {(one["order_id"], one["reason"]) for one in state["refunds"] if one["order_id"] in ("O-2032", "O-2033")}
    assert refunds == {("O-2032", "cancelled"), ("O-2033", "lost")}


def test_check_has_nothing_to_say_but_advice() -> None:
    connector = OpenApiConnector("company", CONTRACT.read_bytes(), "http://127.0.0.1:1")
    monitor = OpenApiConnector("monitor", (TEMPLATE / "monitor.json").read_bytes(), "http://127.0.0.1:1")
    tools = {name: one.spec(name) for one in (connector, monitor) for name in one.tools()}
    found = check_workspace(load_workspace(TEMPLATE), tools)
    assert {(one.rule, one.severity) for one in found} <= {("TS105", "advice"), ("TS600", "advice")}
