"""Feeds over real systems: a table of Postgres, streams of Redis and NATS where these are installed."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import postgres_desk
from tightship import Workspace
from tightship.context.feeds import Broker, open_broker
from tightship.context.feeds.changes import ChangeFeed, setup_sql
from tightship.core import kinds
from tightship.core.errors import TightshipError, Unavailable
from tightship.workflow.context_feeds import PostgresFeed

CONFIG = """
name: desk
context:
  stock/*: {feeds: [shop], type: int, max_age: 1h}
feeds:
  shop:
    %s
    key: '"stock/" + %s'
    value: %s
    as_of: at
"""


def workspace(folder: Path, way: str, sku: str = "event.sku", value: str = "event.count") -> Workspace:
    (folder / "tightship.yaml").write_text(CONFIG % (way, sku, value))
    return Workspace.open(folder)


async def stock(ws: Workspace) -> dict[str, Any]:
    return {value.key: value.value for _, value in await ws.context.list("stock/*")}


async def recorded(ws: Workspace) -> int:
    """Writes, and what came too late to be one."""
    kept = (kinds.CONTEXT, kinds.CONFLICT)
    return sum(one.kind in kept for one in await (await ws.ledger()).entries())


async def taken(ws: Workspace, broker: Broker, count: int) -> None:
    """Take until so many came."""
    feeds, got = ws.context.feeds(), 0
    async with asyncio.timeout(300):
        while got < count:
            got += await feeds.take_some("shop", broker, 0.5)


# --- Postgres ----------------------------------------------------------------------------------------


class Table:
    """A table whose changes are noted."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.spec = PostgresFeed(url="${SHOP_DB}", table=f"{schema}.parts")
        self.db = postgres_desk.server().connect()
        self.db.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.parts (sku text PRIMARY KEY, count int)")
        self.url = postgres_desk.server().url("x").partition("?schema")[0].partition("&schema")[0]

    def set(self, sku: str, count: int) -> None:
        """A row's new value."""
        self.db.execute(
            f"INSERT INTO {self.schema}.parts VALUES (%s, %s) ON CONFLICT (sku) DO UPDATE SET count = excluded.count",
            (sku, count),
        )

    def waiting(self) -> int:
        """Changes that nobody has taken."""
        return self.db.execute(f"SELECT count(*) FROM {self.schema}.tightship_changes").fetchone()[0]

    async def open(self) -> ChangeFeed:
        """The feed."""
        return await ChangeFeed.open(self.url, "shop", self.spec)


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table(f"shop_{time.monotonic_ns()}")
    yield made
    made.db.close()


def postgres_workspace(folder: Path, table: Table) -> Workspace:
    way = f"postgres: {{url: '${{SHOP_DB}}', table: {table.spec.table}}}"
    return workspace(folder, way, "event.new.sku", "event.new.count")


async def test_a_table_s_rows_and_changes_arrive_and_nothing_is_lost_while_nobody_listens(
    tmp_path: Path, table: Table
) -> None:
    table.set("widget", 1)
    table.db.execute(setup_sql("shop", table.spec))
    table.db.execute(setup_sql("shop", table.spec))  # it may be run again
    table.set("gadget", 5)
    async with postgres_workspace(tmp_path, table) as ws:
        feed = await table.open()
        await taken(ws, feed, 3)
        assert (await stock(ws), table.waiting()) == ({"stock/widget": 1, "stock/gadget": 5}, 0)
        await feed.close()
    table.set("widget", 2)
    table.set("widget", 3)
    async with postgres_workspace(tmp_path, table) as ws:
        feed = await table.open()
        await taken(ws, feed, 2)
        assert (await stock(ws))["stock/widget"] == 3
        assert (await ws.context.get("stock/widget")).age < 60
        await feed.close()


async def test_a_truncate_withdraws_what_a_delete_of_each_row_would(tmp_path: Path, table: Table) -> None:
    table.db.execute(setup_sql("shop", table.spec))
    table.db.execute(f"CREATE TABLE {table.schema}.bins (sku text REFERENCES {table.schema}.parts)")
    way = f"postgres: {{url: '${{SHOP_DB}}', table: {table.spec.table}}}"
    gone = 'event.op == "delete"'
    ws = workspace(tmp_path, way, f"({gone} ? event.old.sku : event.new.sku)", f"'{gone} ? -1 : event.new.count'")
    async with ws:
        feed = await table.open()
        for sku in ("widget", "gadget"):
            table.set(sku, 7)
        await taken(ws, feed, 2)
        with pytest.raises(Exception, match="rolled back"), table.db.transaction():
            table.db.execute(f"TRUNCATE {table.spec.table} CASCADE")
            raise RuntimeError("rolled back")
        assert table.waiting() == 0, "what did not happen is not noted"
        table.db.execute(f"TRUNCATE {table.schema}.bins, {table.spec.table}")
        table.set("gadget", 3)
        await taken(ws, feed, 3)
        assert (await stock(ws), table.waiting()) == ({"stock/widget": -1, "stock/gadget": 3}, 0)
        await feed.close()


async def test_what_commits_late_is_not_passed_over(tmp_path: Path, table: Table) -> None:
    """Its number is smaller than that of what was taken already."""
    table.db.execute(setup_sql("shop", table.spec))
    with postgres_desk.server().connect() as slow:
        slow.autocommit = False
        slow.execute(f"INSERT INTO {table.schema}.parts VALUES ('slow', 1)")
        table.set("fast", 1)
        async with postgres_workspace(tmp_path, table) as ws:
            feed = await table.open()
            await taken(ws, feed, 1)
            slow.commit()
            await taken(ws, feed, 1)
            assert await stock(ws) == {"stock/fast": 1, "stock/slow": 1}
            await feed.close()


async def test_a_change_whose_deletion_was_lost_counts_once_and_another_process_goes_on(
    tmp_path: Path, table: Table
) -> None:
    table.db.execute(setup_sql("shop", table.spec))
    table.set("widget", 1)
    async with postgres_workspace(tmp_path, table) as ws:
        first = await table.open()
        feeds = ws.context.feeds()
        for delivery in await first.take(10, 1.0):
            await feeds.take("shop", delivery)
        second = await table.open()
        assert await second.take(10, 0.1) == []  # one takes at a time
        await first.close()
        async with asyncio.timeout(300):
            while not await feeds.take_some("shop", second, 0.2):
                pass
        assert (await recorded(ws), table.waiting()) == (1, 0)
        await second.close()


async def test_a_server_that_refuses_is_named_without_the_password(table: Table) -> None:
    with pytest.raises(Unavailable) as found:
        await ChangeFeed.open("postgresql://ann:hunter2@127.0.0.1:1/none", "shop", table.spec)
    assert "hunter2" not in str(found.value)
    feed = await table.open()  # the SQL was not run
    with pytest.raises(Unavailable, match="tightship_changes"):
        await feed.take(1, 0.1)
    await feed.close()


# --- brokers -----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def needed(program: str, module: str) -> str:
    """The server's program; the test is left out where it or its client is not installed."""
    pytest.importorskip(module)
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


@asynccontextmanager
async def running(command: list[str], open: Callable[[], Any]) -> AsyncIterator[Any]:
    """A server, and a connection to it."""
    process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
    try:
        async with asyncio.timeout(300):
            while True:
                with suppress(OSError, TightshipError, TimeoutError):
                    connection = await open()
                    break
                await asyncio.sleep(0.05)
        yield connection
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[tuple[str, Any]]:
    program, port = needed("redis-server", "redis"), free_port()
    import redis.asyncio as client

    async def open() -> Any:
        made = client.Redis(port=port)
        try:
            await made.ping()
        except client.ConnectionError:
            await made.aclose()
            raise OSError from None
        return made

    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes"]
    async with running(command, open) as connection:
        yield f"redis://127.0.0.1:{port}/0", connection
        await connection.aclose()


async def test_a_stream_of_redis_is_taken_at_least_once_and_counts_once(tmp_path: Path) -> None:
    async with redis(tmp_path) as (url, connection):
        for number in range(10):
            await connection.xadd("shop", {"data": f'{{"sku": "s{number % 3}", "count": {number}}}'})
        async with workspace(tmp_path, f"broker: {{url: '{url}', stream: shop}}") as ws:
            lost = await open_broker(url, "shop", None, "tightship")
            feeds = ws.context.feeds()
            for delivery in (await lost.take(4, 1.0))[:2]:
                await feeds.take("shop", delivery)
            await lost.close()  # it dies: two were written, none was acknowledged

            from tightship.context.feeds.redis_streams import RedisBroker

            broker = await RedisBroker.open(url, "shop", "tightship", idle=0.01)
            await asyncio.sleep(0.05)
            await taken(ws, broker, 10)
            assert await stock(ws) == {"stock/s0": 9, "stock/s1": 7, "stock/s2": 8}
            assert await recorded(ws) == 10
            assert (await connection.xpending("shop", "tightship"))["pending"] == 0
            await broker.close()


@asynccontextmanager
async def nats(folder: Path) -> AsyncIterator[tuple[str, Any]]:
    program, port = needed("nats-server", "nats"), free_port()
    import nats as client

    async def quiet(error: Exception) -> None: ...

    async def open() -> Any:
        try:
            return await client.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False, error_cb=quiet)
        except client.errors.Error:
            raise OSError from None

    async with running([program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder)], open) as connection:
        yield f"nats://127.0.0.1:{port}", connection
        await connection.close()


async def test_a_stream_of_nats_is_taken_at_least_once_and_counts_once(tmp_path: Path) -> None:
    async with nats(tmp_path) as (url, connection):
        js = connection.jetstream()
        await js.add_stream(name="SHOP", subjects=["shop.*"])
        for number in range(10):
            data = f'{{"sku": "s{number % 3}", "count": {number}}}'.encode()
            await js.publish("shop.stock", data, headers={"Nats-Msg-Id": f"n-{number}"})
        from tightship.context.feeds.jetstream import NatsBroker

        async with workspace(tmp_path, f"broker: {{url: '{url}', stream: SHOP}}") as ws:
            lost = await NatsBroker.open(url, "SHOP", None, "tightship", wait=0.5)
            feeds = ws.context.feeds()
            for delivery in (await lost.take(4, 1.0))[:2]:
                await feeds.take("shop", delivery)
            await lost.close()
            broker = await open_broker(url, "SHOP", None, "tightship")
            await taken(ws, broker, 10)
            assert await stock(ws) == {"stock/s0": 9, "stock/s1": 7, "stock/s2": 8}
            assert await recorded(ws) == 10
            await broker.close()


async def test_a_broker_that_is_not_there_is_unavailable_and_its_password_is_not_said() -> None:
    pytest.importorskip("redis")
    pytest.importorskip("nats")
    for url in ("redis://ann:hunter2@127.0.0.1:1/0", "nats://ann:hunter2@127.0.0.1:1"):
        with pytest.raises(Unavailable) as found:
            await open_broker(url, "s", None, "g")
        assert "hunter2" not in str(found.value)
