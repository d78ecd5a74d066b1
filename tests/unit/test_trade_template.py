"""The trading desk's template keeps what it promises: each practice request ends as it says, over the real company."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import tightship
from template_desk import TemplateDesk, findings
from tightship.cli._batch import Line
from tightship.cli._expect import Comparison, Verdict
from tightship.cli._work import record
from tightship.review.inbox import Decision
from tightship.runtime.simulation import Simulation, simulate

TEMPLATE = Path(tightship.__file__).parent / "templates" / "trade-approval"
TRADES = [orjson.loads(line) for line in (TEMPLATE / "trades.jsonl").read_bytes().splitlines()]


class TradingDesk(TemplateDesk):
    """The template's workspace and the sample company, in virtual time."""

    def __init__(self, sim: Simulation, folder: Path) -> None:
        super().__init__(sim, TEMPLATE, folder, systems=("desk.",))

    async def run(self, trade: dict[str, Any]) -> Any:
        """One request."""
        given = {name: value for name, value in trade.items() if name != "expected"}
        return await self.process.start(self.ws.run("trade-approval", given, reference=trade["id"]))

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """The company's records by id."""
        return {row["id"]: row for row in self.company.state()[table]}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Verdict], dict[str, Any], dict[str, Any]]:
    """Every request once, one after the other; the verdicts, and what is held before and after."""
    folder = tmp_path_factory.mktemp("desk") / "workspace"

    async def story(sim: Simulation) -> Any:
        desk = TradingDesk(sim, folder)
        before, comparison = desk.rows("instruments"), Comparison()
        for number, trade in enumerate(TRADES, 1):
            run = await desk.run(trade)
            line = Line(number, trade["id"], trade, trade["expected"])
            comparison.add(record(line, run), trade["expected"], run.entries)
        verdicts = await comparison.verdicts(await desk.ws.ledger())
        found = verdicts, before, {"instruments": desk.rows("instruments"), "trades": desk.rows("trades")}
        await desk.close()
        return found

    return simulate(story)


def test_every_request_ends_as_it_says(played: Any) -> None:
    verdicts, _, _ = played
    assert [one.as_dict() for one in verdicts if one.differences] == []
    assert len(verdicts) == len(TRADES) >= 24


def test_the_requests_hold_the_cases_that_matter() -> None:
    cases = Counter(trade["expected"]["case"] for trade in TRADES)
    wanted = {"clear", "tie", "no_quorum", "too_few_answer", "stale_price", "voter_abstains", "two_at_once"}
    wanted |= {"turned_down", "restricted", "conflict_of_interest", "high_stakes", "not_confirmed"}
    assert wanted <= set(cases)
    outcomes = {trade["expected"].get("outcome") for trade in TRADES}
    assert {"completed", "escalated", "review"} <= outcomes


def test_what_is_held_is_what_was_confirmed_and_nothing_that_was_taken_back(played: Any) -> None:
    _, before, after = played
    held = {name: row["held"] for name, row in before.items()}
    for trade in after["trades"].values():
        assert trade["status"] in ("confirmed", "cancelled")
        if trade["status"] == "confirmed":
            held[trade["instrument_id"]] += trade["quantity"] * (1 if trade["side"] == "buy" else -1)
    assert {name: row["held"] for name, row in after["instruments"].items()} == held
    assert Counter(trade["status"] for trade in after["trades"].values())["cancelled"] == 2


@pytest.mark.parametrize(("decision", "booked"), [("approve", 1), ("reject", 0)])
def test_high_stakes_wait_for_a_person_whatever_the_voters_say(tmp_path: Path, decision: Any, booked: int) -> None:
    trade = next(one for one in TRADES if one["expected"]["case"] == "high_stakes")

    async def story(sim: Simulation) -> None:
        desk = TradingDesk(sim, tmp_path / "workspace")
        run = await desk.run(trade)
        assert run.state == "parked" and not desk.rows("trades")
        operator = await desk.ws.operator()
        [item] = run.waiting
        _, package = await operator.item(item)
        assert package["evidence"]["approval"]["for"] == ["limits", "credit", "market", "compliance"]
        await operator.decide(item, Decision(decision, "head@example.com"))
        await desk.process.start(desk.ws.resume())
        assert len(desk.rows("trades")) == booked
        assert (await desk.ws.result(run.id)).outcome == ("completed" if booked else "escalated")
        await desk.close()

    simulate(story)


def test_check_has_nothing_to_say_but_advice() -> None:
    assert {(one.rule, one.severity) for one in findings(TEMPLATE)} <= {("TS105", "advice")}
