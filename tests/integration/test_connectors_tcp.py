"""The connector over real TCP: what it says of a write is what the company's own record shows."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tightship.company import CompanySettings, Fault, Running, running
from tightship.connectors.openapi import OpenApiConnector, open_connector
from tightship.connectors.secrets import EnvironmentSecrets
from tightship.connectors.settings import connector_settings
from tightship.core.errors import (
    LoadError,
    OutcomeUnknown,
    RateLimited,
    TimedOut,
    Unavailable,
    WriteFailed,
)
from tightship.core.ports import Request
from tightship.core.world import SystemClock, World

REPLY = {"ticket_id": "T-3007", "body": "On its way."}
SHORT = 2.0
"""A time-out (s) that is to pass, and yet is enough for a busy machine to connect and to answer."""
REFUND = {"order_id": "O-2001", "amount": 39.9, "reason": "returned"}


def request(args: dict[str, Any], key: str = "k1", not_after: float | None = None) -> Request:
    return Request(args, key, "r1", "agent", time.time() + 60 if not_after is None else not_after)


@asynccontextmanager
async def served(timeout: float = 10.0) -> AsyncIterator[tuple[Running, OpenApiConnector]]:
    """The company on a port of its own, and a connector that read the contract from it."""
    async with running(CompanySettings()) as company:
        settings = connector_settings(
            "company",
            {"openapi": f"{company.url}/openapi.json", "auth": {"bearer": {"secret": "TOKEN"}}, "timeout": timeout},
        )
        secrets = EnvironmentSecrets(environment={"TOKEN": company.token})
        made = await open_connector("company", settings, Path(), World(), secrets)
        try:
            yield company, made
        finally:
            await made.aclose()


async def test_a_whole_case_over_tcp() -> None:
    async with served() as (company, made):
        order = await made.tool("orders.get").perform(request({"order_id": "O-2001"}))
        assert order.value["refundable"] == 39.9
        refund = await made.tool("refunds.create").perform(request(REFUND))
        undo = made.spec("refunds.create").undo
        assert undo is not None
        undone = await made.tool(undo.tool).perform(request({"refund_id": refund.value["id"]}, key="undo"))
        assert undone.value["status"] == "cancelled"
        assert [entry["operation"] for entry in company.company.ledger()] == ["refunds.create", "refunds.cancel"]


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        (Fault("drop_before", times=1), False),
        (Fault("drop_after", times=1), True),
        (Fault("timeout", times=1), False),
        (Fault("timeout_after", times=1), True),
        (Fault("error_after", times=1), True),
        (Fault("malformed", times=1), True),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
async def test_an_unknown_outcome_is_settled_by_looking(fault: Fault, done: bool) -> None:
    async with served(timeout=SHORT) as (company, made):
        company.faults.set([replace(fault)])
        tool = made.tool("helpdesk.reply")
        with pytest.raises(OutcomeUnknown):
            await tool.perform(request(REPLY))
        found = await tool.lookup(request(REPLY))
        assert (found is not None) == done == (len(company.company.ledger()) == 1)


async def test_a_write_with_a_key_is_done_once_however_often_its_answer_is_lost() -> None:
    async with served(timeout=SHORT) as (company, made):
        tool = made.tool("refunds.create")
        for kind in ("drop_after", "timeout_after", "malformed", "error_after"):
            company.faults.set([Fault(kind, operation="refunds.create", times=1)])
            with pytest.raises(OutcomeUnknown):
                await tool.perform(request(REFUND))
        reply = await tool.perform(request(REFUND))
        assert reply.meta["replayed"] is True
        writes = [entry for entry in company.company.ledger() if entry["operation"] == "refunds.create"]
        assert len(writes) == 1


async def test_a_rate_limit_says_how_long_and_does_nothing() -> None:
    async with served() as (company, made):
        company.faults.set([Fault("rate_limit", seconds=3)])
        with pytest.raises(RateLimited) as caught:
            await made.tool("refunds.create").perform(request(REFUND))
        assert caught.value.retry_after == 3
        assert company.company.ledger() == []


async def test_a_dropped_connection_does_not_spoil_the_next_call() -> None:
    async with served() as (company, made):
        company.faults.set([Fault("drop_before", operation="orders.get", times=3)])
        for _ in range(3):
            with pytest.raises(Unavailable):
                await made.tool("orders.get").perform(request({"order_id": "O-2001"}))
        assert (await made.tool("orders.get").perform(request({"order_id": "O-2001"}))).value["id"] == "O-2001"


async def test_many_calls_at_once_share_few_connections() -> None:
    async with served() as (_, made):
        numbers = range(2001, 2061)
        calls = [made.tool("orders.get").perform(request({"order_id": f"O-{n}"})) for n in numbers]
        replies = await asyncio.gather(*calls)
        assert [reply.value["id"] for reply in replies] == [f"O-{n}" for n in numbers]


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, and on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield int(probe.getsockname()[1])


CONTRACT = {
    "openapi": "3.1.0",
    "paths": {
        "/": {
            "get": {"operationId": "a.read", "responses": {}},
            "post": {"operationId": "a.write", "responses": {}},
        }
    },
}


async def test_nobody_listening_means_not_done() -> None:
    with closed_port() as port:
        made = OpenApiConnector("a", CONTRACT, f"http://127.0.0.1:{port}")
        for tool in ("a.read", "a.write"):
            with pytest.raises(Unavailable) as caught:
                await made.tool(tool).perform(request({}))
            assert type(caught.value) is Unavailable
            assert caught.value.evidence["done"] is False
        await made.aclose()


async def test_a_host_without_an_address_means_not_done() -> None:
    made = OpenApiConnector("a", CONTRACT, "http://nobody.localhost:9", insecure_http=True)
    with pytest.raises(Unavailable):
        await made.tool("a.write").perform(request({}))
    await made.aclose()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """A server of bare TCP; the URL it listens at."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.sleep(0)
        await asyncio.gather(*tasks)


async def test_the_deadline_is_judged_at_the_last_moment_before_the_first_byte() -> None:
    received: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1000))

    class Slow(SystemClock):
        """The deadline passes while the connection is made: between the first and the second look at the clock."""

        looks = 0

        def now(self) -> float:  # type: ignore[override]
            self.looks += 1
            return 10.0 if self.looks <= 2 else 20.0

    async with listening(accept) as url:
        made = OpenApiConnector("a", CONTRACT, url, world=World(clock=Slow()))
        with pytest.raises(TimedOut) as caught:
            await made.tool("a.write").perform(request({}, not_after=15.0))
        assert caught.value.evidence["done"] is False
        await made.aclose()
    assert b"".join(received) == b""


@pytest.mark.parametrize(
    ("answer", "read", "write"),
    [
        (b"", Unavailable, OutcomeUnknown),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", Unavailable, OutcomeUnknown),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n{",
            None,
            OutcomeUnknown,
        ),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n{", Unavailable, WriteFailed),
        (b"nonsense\r\n\r\n", Unavailable, OutcomeUnknown),
        (None, TimedOut, OutcomeUnknown),
    ],
    ids=["nothing", "cut body", "huge body", "cut refusal", "no HTTP", "drip"],
)
async def test_broken_answers(answer: bytes | None, read: Any, write: Any) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer if answer is not None else b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        await writer.drain()
        for _ in range(0 if answer is not None else 2000):  # far beyond the time-out, or until the caller has gone
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.close()

    async with listening(respond) as url:
        made = OpenApiConnector("a", CONTRACT, url, timeout=SHORT if answer is None else 60.0)
        if read is not None:
            with pytest.raises(read) as caught:
                await made.tool("a.read").perform(request({}))
            assert type(caught.value) is read
        with pytest.raises(write) as caught:
            await made.tool("a.write").perform(request({}))
        assert type(caught.value) is write
        await made.aclose()


async def test_a_contract_that_nobody_serves_is_a_load_error() -> None:
    with closed_port() as port, pytest.raises(LoadError, match="cannot be fetched"):
        settings = connector_settings("a", {"openapi": f"http://127.0.0.1:{port}/openapi.json"})
        await open_connector("a", settings, Path(), World(), EnvironmentSecrets(environment={}))
