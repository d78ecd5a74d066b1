"""The procurement template keeps what it promises: each practice round ends as it says, and nothing is ordered twice."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import tightship
from board_desk import held_by_one
from template_desk import TemplateDesk, findings
from tightship.cli._batch import Line
from tightship.cli._expect import Comparison, Verdict
from tightship.cli._work import record
from tightship.review.inbox import Decision
from tightship.runtime.simulation import Simulation, simulate

TEMPLATE = Path(tightship.__file__).parent / "templates" / "procurement"
ROUNDS = [orjson.loads(line) for line in (TEMPLATE / "rounds.jsonl").read_bytes().splitlines()]


class BuyingDesk(TemplateDesk):
    """The template's workspace and the sample company, in virtual time."""

    def __init__(self, sim: Simulation, folder: Path) -> None:
        super().__init__(sim, TEMPLATE, folder, "context:", ("stock.", "purchasing.", "helpdesk."))
        self.before = {row["id"] for row in self.company.state()["purchase_orders"]}

    async def run(self, round: dict[str, Any], reference: str = "") -> Any:
        """One round, until it ends or waits for a person."""
        given = {name: value for name, value in round.items() if name != "expected"}
        run = await self.process.start(self.ws.run("replenish", given, reference=reference or round["id"]))
        while run.state == "parked" and not run.waiting:
            await asyncio.sleep(5)
            await self.process.start(self.ws.resume([run.id]))
            run = await self.ws.result(run.id)
        return run

    def orders(self) -> list[dict[str, Any]]:
        """The company's purchase orders that stand, beside those that it began with."""
        rows = self.company.state()["purchase_orders"]
        return [row for row in rows if row["status"] == "ordered" and row["id"] not in self.before]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Verdict], list[dict[str, Any]]]:
    """Every round, all of them at once; the verdicts, and what is ordered."""
    folder = tmp_path_factory.mktemp("desk") / "workspace"

    async def story(sim: Simulation) -> Any:
        desk, comparison = BuyingDesk(sim, folder), Comparison()
        runs = await asyncio.gather(*(desk.run(one) for one in ROUNDS))
        for number, (one, run) in enumerate(zip(ROUNDS, runs, strict=True), 1):
            comparison.add(record(Line(number, one["id"], one, one["expected"]), run), one["expected"], run.entries)
        verdicts = await comparison.verdicts(desk.ledger)
        await held_by_one(desk.ledger)
        orders = desk.orders()
        await desk.close()
        return verdicts, orders

    return simulate(story)


def test_every_round_ends_as_it_says(played: Any) -> None:
    verdicts, _ = played
    assert [one.as_dict() for one in verdicts if one.differences] == []
    assert len(verdicts) == len(ROUNDS) >= 20


def test_no_item_is_ordered_twice(played: Any) -> None:
    _, orders = played
    assert max(Counter(row["sku"] for row in orders).values()) == 1
    assert {"SKU-504", "SKU-518", "SKU-509"} <= {row["sku"] for row in orders}
    assert not {"SKU-505", "SKU-508", "SKU-516"} & {row["sku"] for row in orders}, "taken back, waiting, nobody's"


def test_the_rounds_hold_the_cases_that_matter() -> None:
    wanted = {"two_rounds_at_once", "one_item_twice_in_a_line", "claim_given_back_and_taken_by_another", "nobodys_line"}
    wanted |= {"above_the_limit", "taken_back", "in_transit_is_enough", "combined_order_reaches_the_least_value"}
    assert wanted <= {one["expected"]["case"] for one in ROUNDS}


@pytest.mark.parametrize(("decision", "ordered"), [("approve", 1), ("reject", 0)])
def test_an_order_above_the_limit_waits_for_a_person(tmp_path: Path, decision: Any, ordered: int) -> None:
    one = next(one for one in ROUNDS if one["expected"]["case"] == "above_the_limit")

    async def story(sim: Simulation) -> None:
        desk = BuyingDesk(sim, tmp_path / "workspace")
        run = await desk.run(one)
        assert run.state == "parked" and desk.orders() == []
        await (await desk.ws.operator()).decide(run.waiting[0], Decision(decision, "head@example.com"))
        await desk.process.start(desk.ws.resume())
        assert len(desk.orders()) == ordered
        await desk.close()

    simulate(story)


def test_two_orders_at_one_supplier_are_not_each_filled_up_to_its_least_value(tmp_path: Path) -> None:
    async def story(sim: Simulation) -> None:
        desk = BuyingDesk(sim, tmp_path / "workspace")
        code = tmp_path / "workspace" / "agents" / "stock.py"
        figures = '"position": position,\n                "wanted": wanted,'
        drifted = figures.replace("position,", "position * 3 + 1,").replace("wanted,", "wanted * 3 + 1,")
        assert figures in code.read_text()
        code.write_text(code.read_text().replace(figures, drifted))
        run = await desk.run(next(one for one in ROUNDS if one["id"] == "R-06"))
        assert (run.outcome, run.reason) == ("escalated", "rule_conflict")
        assert desk.orders() == []
        await desk.close()

    simulate(story)


def test_check_has_nothing_to_say_but_advice() -> None:
    assert [str(one) for one in findings(TEMPLATE) if (one.rule, one.severity) != ("TS105", "advice")] == []
