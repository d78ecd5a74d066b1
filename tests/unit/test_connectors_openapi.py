"""A connector compiled from the sample company's contract, against the company itself in this process."""

from __future__ import annotations

import gzip
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

import tightship.company
from tightship.company import Company, Fault, Faults, InProcessTransport, build_app
from tightship.company._contract import contract
from tightship.connectors.auth import BearerAuth
from tightship.connectors.openapi import OpenApiConnector
from tightship.connectors.secrets import EnvironmentSecrets
from tightship.connectors.settings import ConnectorLimits, Overlay
from tightship.core.errors import (
    DataMissing,
    FormatMismatch,
    InvalidArguments,
    NotDeclared,
    OutcomeUnknown,
    RateLimited,
    TimedOut,
    Unavailable,
    WriteFailed,
)
from tightship.core.ports import FREE, Request, UndoSpec, Usage
from tightship.core.world import World

CONTRACT = Path(tightship.company.__file__).with_name("openapi.json").read_bytes()
REFUND = {"order_id": "O-2001", "amount": 39.9, "reason": "returned"}


class Desk:
    """The company and a connector to it."""

    def __init__(self, transport: Any = None, token: str = "secret-token", **more: Any) -> None:
        self.company = Company()
        self.faults = Faults()
        app = build_app(self.company, self.faults, "secret-token")
        self.world = World(transport=transport or InProcessTransport(app))
        secrets = EnvironmentSecrets(environment={"COMPANY_TOKEN": token})
        auth = BearerAuth("COMPANY_TOKEN", secrets)
        self.connector = OpenApiConnector("company", CONTRACT, "http://company.test", auth, self.world, **more)

    async def call(self, tool: str, args: dict[str, Any], key: str = "k1", run: str = "r1") -> Any:
        return await self.connector.tool(tool).perform(request(args, key, run))

    def writes(self) -> list[Any]:
        return [entry for entry in self.company.ledger()]


def request(args: dict[str, Any], key: str = "k1", run: str = "r1", seconds: float = 60.0) -> Request:
    return Request(args, key, run, "agent", time.time() + seconds)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk(timeout=2.0)
    yield made
    await made.connector.aclose()
    made.company.close()


def test_every_operation_of_the_contract_is_a_tool(desk: Desk) -> None:
    names = desk.connector.tools()
    assert len(names) == len(contract().operations)
    for name in names:
        spec = desk.connector.spec(name)
        assert spec.name == name
        assert spec.input_schema["additionalProperties"] is False
        assert spec.hosts == {"company.test"}


def test_what_the_contract_declares_becomes_the_spec(desk: Desk) -> None:
    refund = desk.connector.spec("refunds.create")
    assert (refund.effect, refund.idempotency, refund.can_lookup) == ("write", "key", True)
    assert refund.undo == UndoSpec("refunds.cancel", {"refund_id": "result.id"})
    reply = desk.connector.spec("helpdesk.reply")
    assert (reply.effect, reply.idempotency, reply.can_lookup) == ("write", "none", True)
    assert reply.undo == UndoSpec("helpdesk.retract", {"ticket_id": "result.ticket_id", "reply_id": "result.id"})
    escalate = desk.connector.spec("helpdesk.escalate")
    assert escalate.undo == UndoSpec("helpdesk.set_status", {"ticket_id": "result.id", "status": '"open"'})
    update = desk.connector.spec("stock.update")
    assert (update.idempotency, "if_match" in update.input_schema["properties"]) == ("etag", True)
    assert desk.connector.spec("lookups.credit").price == Usage(usd=2_000_000)
    assert desk.connector.spec("orders.get").price == FREE


def test_references_and_keys_of_our_own_are_no_arguments(desk: Desk) -> None:
    properties = desk.connector.spec("refunds.create").input_schema["properties"]
    assert set(properties) == {"order_id", "amount", "reason", "approved_by"}


async def test_a_read_gives_the_record_and_its_etag(desk: Desk) -> None:
    reply = await desk.call("orders.get", {"order_id": "O-2001"})
    assert reply.value["total"] == 39.9
    assert reply.meta["etag"] == '"v1"'
    assert reply.usage == FREE


async def test_a_paid_read_costs_what_the_answer_says(desk: Desk) -> None:
    reply = await desk.call("lookups.credit", {"customer_id": "C-1001"})
    assert reply.usage == Usage(usd=2_000_000)


async def test_a_conditional_write_goes_through_once_and_then_conflicts(desk: Desk) -> None:
    read = await desk.call("stock.get", {"sku": "SKU-501"})
    args = {"sku": "SKU-501", "if_match": read.meta["etag"], "on_hand": 5}
    assert (await desk.call("stock.update", args)).value["on_hand"] == 5
    with pytest.raises(WriteFailed) as caught:
        await desk.call("stock.update", args)
    assert caught.value.evidence["status"] == 412
    assert caught.value.evidence["conflict"] is True


async def test_the_same_effect_twice_is_one_refund_and_another_effect_is_another(desk: Desk) -> None:
    half = {**REFUND, "amount": 10.0}
    first = await desk.call("refunds.create", half, key="respond/2")
    again = await desk.call("refunds.create", half, key="respond/2")
    other = await desk.call("refunds.create", half, key="respond/3")
    assert first.value["id"] == again.value["id"] != other.value["id"]
    assert again.meta["replayed"] is True
    assert (await desk.call("refunds.create", half, key="respond/2", run="r2")).value["id"] not in (
        first.value["id"],
        other.value["id"],
    )


@pytest.mark.parametrize(
    ("tool", "args", "kind", "text"),
    [
        ("orders.get", {"order_id": "O-9999"}, DataMissing, "no order O-9999"),
        ("orders.get", {"order_id": "nonsense"}, InvalidArguments, "order_id"),
        ("orders.get", {}, InvalidArguments, "order_id"),
        ("orders.get", {"order_id": "O-2001", "colour": "red"}, InvalidArguments, "colour"),
        ("orders.get", {"order_id": ".."}, InvalidArguments, "path"),
        ("customers.get", {"customer_id": "C-1019", "schema": "v2"}, FormatMismatch, "406"),
        ("refunds.create", {**REFUND, "amount": 1e6}, WriteFailed, "409"),
        ("refunds.create", {**REFUND, "amount": -1}, InvalidArguments, "amount"),
        ("refunds.create", {**REFUND, "client_ref": "mine"}, InvalidArguments, "client_ref"),
        ("refunds.cancel", {"refund_id": "R-9999-1"}, WriteFailed, "404"),
    ],
)
async def test_refusals_are_told_apart(desk: Desk, tool: str, args: dict[str, Any], kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        await desk.call(tool, args)


async def test_problem_details_are_evidence(desk: Desk) -> None:
    with pytest.raises(WriteFailed) as caught:
        await desk.call("refunds.create", {**REFUND, "amount": 5000.0})
    assert caught.value.evidence["code"] == "over_refundable"
    assert caught.value.evidence["operation"] == "refunds.create"


@pytest.mark.parametrize(
    ("fault", "read", "write", "done"),
    [
        (Fault("error"), Unavailable, OutcomeUnknown, False),
        (Fault("error_after"), Unavailable, OutcomeUnknown, True),
        (Fault("timeout"), TimedOut, OutcomeUnknown, False),
        (Fault("timeout_after"), TimedOut, OutcomeUnknown, True),
        (Fault("drop_before"), Unavailable, OutcomeUnknown, False),
        (Fault("drop_after"), Unavailable, OutcomeUnknown, True),
        (Fault("malformed"), FormatMismatch, OutcomeUnknown, True),
        (Fault("rate_limit", seconds=7), RateLimited, RateLimited, False),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else None,
)
async def test_a_fault_on_a_read_and_on_a_write(fault: Fault, read: Any, write: Any, done: bool) -> None:
    desk = Desk(timeout=0.5 if fault.kind.startswith("timeout") else 60.0)
    desk.faults.set([replace(fault)])
    with pytest.raises(read) as caught:
        await desk.call("orders.get", {"order_id": "O-2001"})
    assert type(caught.value) is read
    with pytest.raises(write) as caught:
        await desk.call("helpdesk.reply", {"ticket_id": "T-3007", "body": "Hello"})
    assert type(caught.value) is write
    if write is RateLimited:
        assert caught.value.retry_after == 7
    assert len(desk.writes()) == int(done)
    desk.faults.clear()
    found = await desk.connector.tool("helpdesk.reply").lookup(request({"ticket_id": "T-3007", "body": "Hello"}))
    assert (found is not None) == done
    if found is not None:
        assert found.value["body"] == "Hello"
        assert found.meta["looked_up"] is True
    await desk.connector.aclose()
    desk.company.close()


async def test_a_lookup_finds_no_other_effects_write(desk: Desk) -> None:
    args = {"ticket_id": "T-3007", "body": "Hello"}
    await desk.call("helpdesk.reply", args, key="a")
    tool = desk.connector.tool("helpdesk.reply")
    assert await tool.lookup(request(args, key="a")) is not None
    assert await tool.lookup(request(args, key="b")) is None
    assert await tool.lookup(request(args, key="a", run="r2")) is None


async def test_a_lookup_is_asked_after_the_writes_deadline(desk: Desk) -> None:
    args = {"ticket_id": "T-3007", "body": "Hello"}
    await desk.call("helpdesk.reply", args)
    assert await desk.connector.tool("helpdesk.reply").lookup(request(args, seconds=-100)) is not None


async def test_a_conditional_write_is_looked_up_by_its_record(desk: Desk) -> None:
    tool = desk.connector.tool("orders.update")
    args = {"order_id": "O-2001", "if_match": '"v1"', "note": "call first"}
    assert await tool.lookup(request(args)) is None
    await tool.perform(request(args))
    found = await tool.lookup(request(args))
    assert found is not None and found.value["note"] == "call first"


async def test_what_no_lookup_tells_is_said_so(desk: Desk) -> None:
    tool = desk.connector.tool("refunds.settle")
    assert tool.spec.can_lookup is False
    with pytest.raises(OutcomeUnknown):
        await tool.lookup(request({"refund_id": "R-2027-1"}))


async def test_nothing_is_sent_after_the_deadline(desk: Desk) -> None:
    with pytest.raises(TimedOut) as caught:
        await desk.connector.tool("refunds.create").perform(request(REFUND, seconds=-1))
    assert caught.value.evidence["done"] is False
    assert desk.writes() == []


async def test_a_wrong_token_is_no_outcome_of_a_write_and_never_shown() -> None:
    desk = Desk(token="wrong-and-private")
    with pytest.raises(Unavailable, match="401") as read:
        await desk.call("orders.get", {"order_id": "O-2001"})
    with pytest.raises(WriteFailed, match="401") as write:
        await desk.call("refunds.create", REFUND)
    for caught in (read, write):
        assert "wrong-and-private" not in f"{caught.value!r} {caught.value} {caught.value.evidence}"
    await desk.connector.aclose()
    desk.company.close()


def scripted(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> httpx2.MockTransport:
    def handler(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, stream=httpx2.ByteStream(body), headers=headers)

    return httpx2.MockTransport(handler)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("status", "headers", "read", "write"),
    [
        (503, {"Retry-After": "5"}, Unavailable, Unavailable),
        (503, {}, Unavailable, OutcomeUnknown),
        (502, {}, Unavailable, OutcomeUnknown),
        (504, {}, Unavailable, OutcomeUnknown),
        (599, {}, Unavailable, OutcomeUnknown),
        (501, {}, Unavailable, WriteFailed),
        (408, {}, TimedOut, TimedOut),
        (403, {}, DataMissing, WriteFailed),
        (410, {}, DataMissing, WriteFailed),
        (301, {"Location": "http://elsewhere.test/"}, FormatMismatch, WriteFailed),
        (303, {"Location": "/done"}, None, OutcomeUnknown),
    ],
)
async def test_statuses_that_the_company_never_sends(
    status: int, headers: dict[str, str], read: Any, write: Any
) -> None:
    desk = Desk(transport=scripted(status, b"{}", {**JSON, **headers}))
    if read is not None:
        with pytest.raises(read) as caught:
            await desk.call("orders.get", {"order_id": "O-2001"})
        assert type(caught.value) is read
    with pytest.raises(write) as caught:
        await desk.call("refunds.create", REFUND)
    assert type(caught.value) is write
    await desk.connector.aclose()


@pytest.mark.parametrize("stated", ["Wed, 21 Oct 2099 07:28:00 GMT", "never", "99999999999", "-1"])
async def test_a_retry_after_is_bounded_whatever_it_says(stated: str) -> None:
    desk = Desk(transport=scripted(429, b"{}", {**JSON, "Retry-After": stated}))
    with pytest.raises(RateLimited) as caught:
        await desk.call("orders.get", {"order_id": "O-2001"})
    wait = caught.value.retry_after
    assert wait is None if stated in ("never", "-1") else wait == 86_400
    await desk.connector.aclose()


@pytest.mark.parametrize("body", [b'{"id": 3', b"[]", b"", b"\xff", b'{"id": 3}'])
async def test_an_answer_of_another_shape_is_a_format_mismatch_or_an_unknown_outcome(body: bytes) -> None:
    desk = Desk(transport=scripted(200, body, JSON))
    with pytest.raises(FormatMismatch):
        await desk.call("orders.get", {"order_id": "O-2001"})
    with pytest.raises(OutcomeUnknown):
        await desk.call("refunds.create", REFUND)
    await desk.connector.aclose()


async def test_what_was_got_is_described_without_its_text() -> None:
    body = (await _order()).replace(b'"O-2001"', b'"Ada Anchorage, 12 Harbour Road"')
    desk = Desk(transport=scripted(200, body, JSON))
    with pytest.raises(FormatMismatch) as caught:
        await desk.call("orders.get", {"order_id": "O-2001"})
    assert caught.value.evidence["path"] == "/id"
    assert "Anchorage" not in str(caught.value)
    assert "a text of 30 characters" in caught.value.evidence["got"]
    await desk.connector.aclose()


async def _order() -> bytes:
    import orjson

    desk = Desk()
    reply = await desk.call("orders.get", {"order_id": "O-2001"})
    await desk.connector.aclose()
    desk.company.close()
    return orjson.dumps(reply.value)


async def test_an_answer_beyond_the_limit_is_not_read_on() -> None:
    import gzip

    bomb = gzip.compress(b" " * 50_000_000)
    for headers, body in (({}, b" " * 2000), ({"Content-Encoding": "gzip"}, bomb)):
        limits = ConnectorLimits(response_bytes=len(bomb) if headers else 1000)
        desk = Desk(transport=scripted(200, body, {**JSON, **headers}), limits=limits)
        with pytest.raises(FormatMismatch, match="larger than"):
            await desk.call("orders.get", {"order_id": "O-2001"})
        with pytest.raises(OutcomeUnknown):
            await desk.call("refunds.create", REFUND)
        await desk.connector.aclose()


async def test_an_answer_that_was_cut_off_while_it_was_compressed_is_not_taken_for_whole() -> None:
    packed = gzip.compress(orjson.dumps({"id": "O-2001", "notes": "x" * 10_000}))
    desk = Desk(transport=scripted(200, packed[:-12], {"Content-Type": "text/plain", "Content-Encoding": "gzip"}))
    with pytest.raises(Unavailable, match="cut off"):
        await desk.call("orders.get", {"order_id": "O-2001"})
    with pytest.raises(OutcomeUnknown, match="cut off"):
        await desk.call("refunds.create", REFUND)
    await desk.connector.aclose()


async def test_an_argument_that_makes_the_url_too_long_is_refused_and_nothing_is_sent(desk: Desk) -> None:
    with pytest.raises(InvalidArguments, match="URL"):
        await desk.call("orders.get", {"order_id": "O" * 70_000})
    assert desk.writes() == []


async def test_reads_follow_redirects_at_the_same_origin_only() -> None:
    seen: list[str] = []
    order = await _order()

    def handler(asked: httpx2.Request) -> httpx2.Response:
        seen.append(str(asked.url))
        assert asked.headers["Authorization"] == "Bearer secret-token"
        if asked.url.path == "/orders/O-2001":
            return httpx2.Response(307, headers={"Location": "/moved/O-2001"})
        if asked.url.path == "/moved/O-2001":
            return httpx2.Response(200, content=order, headers=JSON)
        return httpx2.Response(307, headers={"Location": "https://company.test/orders/O-2001"})

    desk = Desk(transport=httpx2.MockTransport(handler))
    assert (await desk.call("orders.get", {"order_id": "O-2001"})).value["id"] == "O-2001"
    with pytest.raises(FormatMismatch):
        await desk.call("orders.get", {"order_id": "O-2002"})
    assert seen == [
        "http://company.test/orders/O-2001",
        "http://company.test/moved/O-2001",
        "http://company.test/orders/O-2002",
    ]
    await desk.connector.aclose()


async def test_only_declared_hosts_are_spoken_to() -> None:
    from tightship.connectors._arguments import Outgoing

    desk = Desk()
    with pytest.raises(NotDeclared, match=r"elsewhere\.test"):
        await desk.connector.http.send(Outgoing("GET", "http://elsewhere.test/"), timeout=1, not_after=time.time() + 9)
    await desk.connector.aclose()
    desk.company.close()


async def test_cookies_are_not_kept() -> None:
    seen: list[str | None] = []

    def handler(asked: httpx2.Request) -> httpx2.Response:
        seen.append(asked.headers.get("cookie"))
        return httpx2.Response(404, json={}, headers={"Set-Cookie": "session=1"})

    desk = Desk(transport=httpx2.MockTransport(handler))
    for _ in range(2):
        with pytest.raises(DataMissing):
            await desk.call("orders.get", {"order_id": "O-2001"})
    assert seen == [None, None]
    await desk.connector.aclose()


async def test_an_overlay_wins_over_the_contract() -> None:
    overlay = Overlay.model_validate(
        {
            "price": "0.25",
            "timeout": 3,
            "cache_seconds": 60,
            "requests_per_second": 2,
            "description": "one order",
            "effect": "read",
        }
    )
    note = Overlay.model_validate(
        {
            "undo": {
                "operation": "helpdesk.retract",
                "with": {"ticket_id": "$request.path.ticket_id", "reply_id": "$response.body#/id"},
            }
        }
    )
    desk = Desk(overlays={"orders.get": overlay, "helpdesk.note": note})
    spec = desk.connector.spec("orders.get")
    assert (spec.price.usd, spec.timeout, spec.cache_seconds) == (250_000_000, 3, 60)
    assert (spec.requests_per_second, spec.description) == (2, "one order")
    assert desk.connector.spec("helpdesk.note").can_lookup is True
    assert desk.connector.spec("helpdesk.note").undo == UndoSpec(
        "helpdesk.retract", {"ticket_id": "args.ticket_id", "reply_id": "result.id"}
    )
    await desk.connector.aclose()
    desk.company.close()
