"""The sample company over real TCP and as a real process: dropped connections, time-outs, kills."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tightship.company import CompanyError, CompanySettings, Fault, FaultKind, Running, running, serve

REFUND = {"order_id": "O-2001", "amount": 10.0, "reason": "goodwill"}
SERVE = "import asyncio, sys; from tightship.company import CompanySettings, serve; "
SERVE += "asyncio.run(serve(CompanySettings(db=sys.argv[1], token=sys.argv[2] or None)))"


@pytest.fixture
async def service() -> AsyncIterator[Running]:
    async with running(CompanySettings(token="t")) as service:
        yield service


@pytest.fixture
async def client(service: Running) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {service.token}"}
    async with httpx2.AsyncClient(base_url=service.url, headers=headers, timeout=300) as client:
        yield client


@pytest.mark.parametrize(("kind", "done"), [("drop_before", 0), ("drop_after", 1)])
async def test_a_dropped_connection_is_a_disconnect_and_the_write_is_done_or_not(
    service: Running, client: httpx2.AsyncClient, kind: FaultKind, done: int
) -> None:
    service.faults.set([Fault(kind, "refunds.create", times=1)])
    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
        await client.post("/refunds", json=REFUND, headers={"Idempotency-Key": "k"})
    assert len(service.company.ledger()) == done
    retried = await client.post("/refunds", json=REFUND, headers={"Idempotency-Key": "k"})
    assert (retried.status_code, retried.json()["id"]) == (201, "R-2001-1")
    assert retried.headers.get("Idempotency-Replayed") == ("true" if done else None)
    assert len(service.company.ledger()) == 1


async def test_a_dropped_reply_can_be_found_by_its_client_ref(service: Running, client: httpx2.AsyncClient) -> None:
    service.faults.set([Fault("drop_after", "helpdesk.reply", times=1)])
    with pytest.raises(httpx2.TransportError):
        await client.post("/tickets/T-3006/replies", json={"body": "Hello", "client_ref": "run/1"})
    found = (await client.get("/tickets/T-3006/replies", params={"client_ref": "run/1"})).json()["items"]
    assert [reply["id"] for reply in found] == ["T-3006-R1"]


async def test_dropping_one_connection_leaves_the_others_alone(service: Running, client: httpx2.AsyncClient) -> None:
    service.faults.set([Fault("drop_after", "refunds.create"), Fault("latency", "orders.get", seconds=0.05)])
    reads = [client.get("/orders/O-2001") for _ in range(5)]
    writes = [client.post("/refunds", json=REFUND) for _ in range(3)]
    results = await asyncio.gather(*reads, *writes, return_exceptions=True)
    assert [isinstance(result, httpx2.Response) for result in results] == [True] * 5 + [False] * 3
    assert len(service.company.ledger()) == 3


@pytest.mark.parametrize(("kind", "done"), [("timeout", 0), ("timeout_after", 1)])
async def test_a_call_that_is_never_answered_ends_when_the_client_leaves(
    service: Running, client: httpx2.AsyncClient, kind: FaultKind, done: int
) -> None:
    service.faults.set([Fault(kind, "refunds.create", times=1)])
    asked = asyncio.ensure_future(client.post("/refunds", json=REFUND, timeout=httpx2.Timeout(300, read=0.1)))
    async with asyncio.timeout(300):
        while len(service.company.ledger()) < done:  # noqa: ASYNC110 - the service's doing
            await asyncio.sleep(0.01)
    with pytest.raises(httpx2.ReadTimeout):
        await asked
    assert len(service.company.ledger()) == done
    assert (await client.get("/healthz")).status_code == 200


async def test_a_cut_body_arrives_as_broken_json(service: Running, client: httpx2.AsyncClient) -> None:
    service.faults.set([Fault("malformed", times=1)])
    response = await client.get("/orders/O-2001")
    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        response.json()


async def test_it_listens_on_loopback_only_and_answers_unread_bodies(service: Running) -> None:
    assert service.url.startswith("http://127.0.0.1:")
    port = int(service.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /refunds HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: 9999999\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"413"
    writer.close()
    await writer.wait_closed()


async def test_a_taken_port_and_an_unusable_database_say_so(service: Running, tmp_path: Path) -> None:
    port = int(service.url.rpartition(":")[2])
    with pytest.raises(CompanyError, match=str(port)):
        await serve(CompanySettings(port=port))
    with pytest.raises(CompanyError, match=r"company\.db"):
        async with running(CompanySettings(db=tmp_path / "missing" / "company.db")):
            pass


# As a process of its own


@contextlib.contextmanager
def process(db: Path, token: str = "") -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    server = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SERVE, str(db), token],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stderr is not None
    try:
        line = server.stdout.readline()
        assert line, server.stderr.read()
        yield server, json.loads(line)
    finally:
        server.kill()
        server.communicate()


def caller(info: dict[str, Any], token: str | None = None) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {token or info['token']}"}
    return httpx2.Client(base_url=info["url"], headers=headers, timeout=300)


def test_the_ready_line_holds_what_a_client_needs_and_no_secret_that_was_given(tmp_path: Path) -> None:
    with process(tmp_path / "a.db") as (server, info), caller(info) as client:
        assert info["pid"] == server.pid
        assert client.get("/orders/O-2001").status_code == 200
        assert httpx2.get(info["openapi"], timeout=300).json()["openapi"] == "3.1.0"
    with process(tmp_path / "b.db", "given-secret") as (_, info), caller(info, "given-secret") as client:
        assert "given-secret" not in json.dumps(info)
        assert client.get("/orders/O-2001").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_even_while_a_call_hangs(tmp_path: Path, number: signal.Signals) -> None:
    db = tmp_path / "company.db"
    with process(db) as (server, info), caller(info) as client:
        client.put("/_faults", json={"faults": [{"kind": "timeout", "operation": "orders.get"}]})
        client.post("/refunds", json=REFUND)
        with socket.create_connection(("127.0.0.1", int(info["url"].rpartition(":")[2]))) as hanging:
            request = f"GET /orders/O-2001 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {info['token']}\r\n\r\n"
            hanging.sendall(request.encode())
            while client.get("/_faults").json()["total"] == 0:
                pass
            server.send_signal(number)
            _, errors = server.communicate(timeout=300)
        assert (server.returncode, errors) == (0, "")
    assert not db.with_name("company.db-wal").exists(), "the database was closed"


def test_a_killed_process_keeps_every_write_that_it_answered(tmp_path: Path) -> None:
    db = tmp_path / "company.db"
    with process(db) as (server, info), caller(info) as client:
        for number in range(5):
            key = {"Idempotency-Key": f"k{number}"}
            assert client.post("/refunds", json={**REFUND, "amount": 1.5}, headers=key).status_code == 201
        before = client.get("/_state").json()
        server.send_signal(signal.SIGKILL)
        server.wait()
    with process(db) as (_, info), caller(info) as client:
        assert client.get("/_state").json() == before
        key = {"Idempotency-Key": "k4"}
        again = client.post("/refunds", json={**REFUND, "amount": 1.5}, headers=key)
        assert (again.json()["id"], again.headers["Idempotency-Replayed"]) == ("R-2001-5", "true")


def test_a_failing_disk_is_an_answer_and_nothing_half_done(tmp_path: Path) -> None:
    db = tmp_path / "company.db"
    with process(db) as (_, info), caller(info) as client:
        before = client.get("/_state").json()
        # Another program that holds the write lock looks to the company like a disk that does not take writes.
        with contextlib.closing(sqlite3.connect(db, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            response = client.post("/refunds", json=REFUND)
            assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
            other.execute("ROLLBACK")
        assert client.get("/_state").json() == before
        assert client.post("/refunds", json=REFUND).status_code == 201
