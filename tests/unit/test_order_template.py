"""The template order-to-cash keeps what it promises: each order ends as it says, and the company is as its ledger says."""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import tightship
from support_desk import CONTRACT, Token
from tightship.cli._batch import Line
from tightship.cli._expect import Comparison, Verdict
from tightship.cli._work import record
from tightship.company import Call, Company, Faults, InProcessTransport, build_app
from tightship.company._contract import contract
from tightship.company._faults import faults_from_json
from tightship.connectors.auth import NoAuth, auth_of
from tightship.connectors.openapi import OpenApiConnector
from tightship.connectors.settings import AuthSettings
from tightship.core.world import World
from tightship.ledger import Ledger, MemoryState
from tightship.patterns import load_all
from tightship.review.inbox import Decision
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.loader import load_workspace
from tightship.workflow.readiness import check_workspace

TEMPLATE = Path(tightship.__file__).parent / "templates" / "order-to-cash"
ORDERS = [orjson.loads(line) for line in (TEMPLATE / "orders.jsonl").read_bytes().splitlines()]
FAULTS = orjson.loads((TEMPLATE / "faults.json").read_bytes())["faults"]


class Shop:
    """The template's workspace and the sample company, in virtual time; the process can die and be followed."""

    def __init__(self, sim: Simulation, folder: Path) -> None:
        load_all()
        self.sim, self.folder = sim, folder
        self.company = Company(clock=sim.clock.now, rng=random.Random(1))
        self.faults = Faults(random.Random(1))
        self.state, self.lives = MemoryState(), 0
        shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__"))
        config = folder / "tightship.yaml"
        head, _, rest = config.read_text().partition("connectors:")
        config.write_text(head + "budgets:" + rest.partition("budgets:")[2])
        self.open()

    def open(self) -> None:
        """A process on what the ledger holds."""
        self.lives += 1
        self.process = self.sim.loop.process(f"life {self.lives}")
        world = self.sim.world(InProcessTransport(build_app(self.company, self.faults, token="practice")))
        auth = auth_of(AuthSettings.model_validate({"bearer": {"secret": "COMPANY_TOKEN"}}), Token(), world)
        connector = OpenApiConnector("company", CONTRACT.read_bytes(), "http://company.example", auth, world)
        tools = {name: connector.tool(name) for name in connector.tools()}
        self.ledger = Ledger.in_memory(world, projections(), self.state)
        self.ws = Workspace.open(self.folder, world=world, ledger=self.ledger, tools=tools)

    def break_down(self, *faults: dict[str, Any]) -> None:
        """Switch these faults on."""
        self.faults.set(faults_from_json({"faults": list(faults)}, contract().operations))

    def place(self, order: dict[str, Any]) -> None:
        """The order comes in."""
        body = {"id": order["order_id"], "customer_id": order["customer_id"], "items": order["items"]}
        self.company.perform("orders.create", Call(body=body))

    async def run(self, order: dict[str, Any]) -> Any:
        """One order."""
        given = {name: value for name, value in order.items() if name != "expected"}
        return await self.process.start(self.ws.run("order-to-cash", given, reference=order["id"]))

    def standing(self) -> dict[str, list[str]]:
        """What stands in the company of what fulfilment does."""
        state = self.company.state()
        tables = ("reservations", "payments", "shipments", "invoices", "purchase_orders")
        return {table: [f"{row['id']} {row.get('status')}" for row in state[table] if new(row)] for table in tables}


def new(row: dict[str, Any]) -> bool:
    return str(row.get("order_id", "O-7")).startswith("O-7") and row.get("status") != "ordered"


def of(case: str) -> dict[str, Any]:
    return next(order for order in ORDERS if order["expected"]["case"] == case)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Verdict], dict[str, Any], dict[str, int]]:
    """Every order once, with the faults of the demo; the verdicts, the company's state and its stock before."""
    folder = tmp_path_factory.mktemp("shop") / "workspace"

    async def story(sim: Simulation) -> Any:
        shop = Shop(sim, folder)
        before = {row["sku"]: row["on_hand"] for row in shop.company.state()["stock"]}
        shop.break_down(*FAULTS)
        placed, comparison = set[str](), Comparison()
        for number, order in enumerate(ORDERS, 1):
            if order["order_id"] not in placed and not order["expected"]["case"].startswith("unknown"):
                shop.place(order)
                placed.add(order["order_id"])
            run = await shop.run(order)
            line = Line(number, order["id"], order, order["expected"])
            comparison.add(record(line, run), order["expected"], run.entries)
        assert shop.faults.fired() == sum(fault["times"] for fault in FAULTS)
        return await comparison.verdicts(shop.ledger), shop.company.state(), before

    return simulate(story)


def test_every_order_ends_as_it_says(played: Any) -> None:
    verdicts, _, _ = played
    assert [one.as_dict() for one in verdicts if one.differences] == []
    assert len(verdicts) == len(ORDERS) >= 22


def test_the_orders_hold_the_cases_that_matter() -> None:
    cases = Counter(order["expected"]["case"] for order in ORDERS)
    wanted = {"clear", "partial_shipment", "above_credit_limit", "payment_declined", "carrier_refuses", "last_piece"}
    assert wanted | {"too_late_to_undo", "same_order_twice", "sold_out", "unknown_goods"} <= set(cases)


def test_the_template_is_ready() -> None:
    load_all()
    connector = OpenApiConnector("company", CONTRACT.read_bytes(), "http://127.0.0.1:1", NoAuth(), World())
    tools = {name: connector.tool(name).spec for name in connector.tools()}
    found = check_workspace(load_workspace(TEMPLATE), tools)
    assert [str(one) for one in found if one.severity in ("error", "warning")] == []


def test_goods_money_and_papers_agree_in_the_company(played: Any) -> None:
    _, state, before = played
    taken = Counter[str]()
    for row in state["reservations"]:
        if row["status"] != "released":
            taken.update({line["sku"]: line["quantity"] for line in row["lines"]})
    assert {row["sku"]: row["on_hand"] for row in state["stock"]} == {
        sku: count - taken[sku] for sku, count in before.items()
    }
    sent = {row["order_id"] for row in state["shipments"] if row["status"] == "handed_over"}
    charged = {row["order_id"]: row["amount"] for row in state["payments"] if row["status"] == "captured"}
    invoiced = {row["order_id"]: row["amount"] for row in state["invoices"] if row["status"] == "sent"}
    late = of("too_late_to_undo")["order_id"]
    assert sent - {late} == set(invoiced) and late in sent - set(invoiced)
    assert {name: charged[name] for name in invoiced} == invoiced
    assert {name for name in charged if name.startswith("O-7")} == sent


def alone(tmp_path: Path, story: Callable[[Shop, dict[str, Any]], Any], case: str, *faults: dict[str, Any]) -> Any:
    """One order of this case in a shop of its own."""

    async def play(sim: Simulation) -> Any:
        shop, order = Shop(sim, tmp_path / f"shop-{len(list(tmp_path.iterdir()))}"), of(case)
        shop.place(order)
        shop.break_down(*faults)
        return await story(shop, order)

    return simulate(play)


@pytest.mark.parametrize(("decision", "outcome"), [("approve", "completed"), ("reject", "escalated")])
def test_a_customer_above_the_limit_buys_only_with_a_persons_consent(
    tmp_path: Path, decision: Any, outcome: str
) -> None:
    async def story(shop: Shop, order: dict[str, Any]) -> None:
        run = await shop.run(order)
        assert run.state == "parked" and shop.standing()["reservations"] == []
        operator = await shop.ws.operator()
        (item,) = await operator.items()
        await operator.decide(item.item, Decision(decision, "credit@example.com"))
        await shop.process.start(shop.ws.resume())
        run = await shop.ws.result(run.id)
        assert run.outcome == outcome
        assert [row.split()[1] for row in shop.standing()["invoices"]] == ["sent"] * (outcome == "completed")

    alone(tmp_path, story, "above_credit_limit")


@pytest.mark.parametrize(
    "gives",
    [
        '"now": [{"sku": "SKU-510", "quantity": 1}], "later": []',
        '"now": [{"sku": "SKU-501", "quantity": 2}], "later": []',
        '"now": [{"sku": "SKU-501", "quantity": 1}], "later": [{"sku": "SKU-510", "quantity": 1}]',
    ],
)
def test_nothing_is_done_with_goods_that_were_not_ordered(tmp_path: Path, gives: str) -> None:
    async def story(shop: Shop, order: dict[str, Any]) -> None:
        code = shop.folder / "agents" / "cash.py"
        answer = 'return {"now": now, "later": later'
        assert order["items"] == [{"sku": "SKU-501", "quantity": 1}] and answer in code.read_text()
        code.write_text(code.read_text().replace(answer, f"return {{{gives}"))
        before, run = shop.standing(), await shop.run(order)
        assert run.outcome == "escalated" and shop.standing() == before

    alone(tmp_path, story, "clear")


def test_what_does_not_answer_for_a_while_undoes_nothing(tmp_path: Path) -> None:
    async def story(shop: Shop, order: dict[str, Any]) -> None:
        run = await shop.run(order)
        assert run.outcome == "completed" and shop.faults.fired() == 4
        assert [entry for entry in run.entries if entry.body.get("undoes")] == []

    alone(tmp_path, story, "clear", {"operation": "payments.charge", "kind": "rate_limit", "times": 4})


def test_what_the_carrier_has_is_left_and_is_in_the_inbox_of_the_lead(tmp_path: Path) -> None:
    async def story(shop: Shop, order: dict[str, Any]) -> None:
        run = await shop.run(order)
        assert run.outcome == "escalated"
        operator = await shop.ws.operator()
        (item,) = [one for one in await operator.items() if one.type == "residual"]
        assert item.role == "fulfilment_lead"
        _, package = await operator.item(item.item)
        told = orjson.dumps(package).decode()
        for left in ("shipments.hand_over", "shipments.create", "payments.charge", "reservations.create"):
            assert left in told
        assert shop.standing()["purchase_orders"][-1].endswith("cancelled")

    alone(tmp_path, story, "too_late_to_undo")


def test_a_halt_in_the_middle_of_an_action_leaves_nothing_of_the_order(tmp_path: Path) -> None:
    async def story(shop: Shop, order: dict[str, Any]) -> None:
        task = shop.process.start(
            shop.ws.run("order-to-cash", {k: v for k, v in order.items() if k != "expected"}, reference=order["id"])
        )
        while not shop.standing()["reservations"]:
            await shop.sim.world().clock.sleep(0.05)
        operator = await shop.ws.operator()
        await operator.halt("workflow:order-to-cash", by="ann", reason="a price was wrong")
        run = await task
        assert (run.outcome, run.reason) == ("escalated", "halted")
        standing = shop.standing()
        assert [row.split()[1] for row in standing["reservations"]] == ["released"]
        assert [row.split()[1] for row in standing["payments"]] == ["voided"]
        assert standing["invoices"] == []

    late = {"operation": "payments.charge", "kind": "latency", "times": 1, "seconds": 2}
    alone(tmp_path, story, "clear", late)


@pytest.mark.parametrize("case", ["clear", "partial_shipment", "carrier_refuses", "too_late_to_undo"])
def test_a_process_that_dies_anywhere_leaves_the_same_company_behind(tmp_path: Path, case: str) -> None:
    """Sampled entries of the undisturbed run are points to die at, forward and in undo."""

    def play(at: int) -> Any:
        async def story(shop: Shop, order: dict[str, Any]) -> Any:
            given = {k: v for k, v in order.items() if k != "expected"}
            task = shop.process.start(shop.ws.run("order-to-cash", given, reference=order["id"]))
            while await shop.ledger.head() < at and not task.done():
                await shop.sim.world().clock.sleep(0.0005)
            if not task.done():
                shop.process.kill()
                shop.open()
                for ended in await shop.process.start(shop.ws.resume()):
                    if ended.error is not None:
                        raise ended.error
            head = await shop.ledger.head()
            writes = Counter(
                (row["operation"], row["path"], str(row["body"].get("order_id"))) for row in shop.company.ledger()
            )
            return shop.company.digest(), writes, head

        return alone(tmp_path, story, case)

    digest, writes, head = play(10_000)
    for at in range(3, head, max(1, head // 8)):
        assert play(at)[:2] == (digest, writes), at
