"""A server that takes connections and never answers: reading and closing end all the same, and say why."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import postgres_desk
from ledger_desk import note, projections
from proxy import Proxy, proxied
from tightship.core.errors import StoreError, StoreLost
from tightship.ledger import Ledger, _pg, _pg_patience, postgres, reader

LIMIT = 120.0
"""Seconds; the limit of what would last for ever."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGHTSHIP_MASTER_KEY", "dGlnaHRzaGlwIHRlc3RzJyBtYXN0ZXIga2V5ISEhISE=")
    monkeypatch.setattr(_pg_patience, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(_pg_patience, "CLOSING_SECONDS", 0.5)
    monkeypatch.setattr(postgres, "CLOSING_SECONDS", 0.5)
    monkeypatch.setattr(_pg, "RETRY_SECONDS", 0.1)


@asynccontextmanager
async def opened(folder: Path, mute: str) -> AsyncIterator[tuple[Proxy, Ledger, str]]:
    """A store whose ledger or keystore is reached by way of a relay, and a value in it whose key is in no memory."""
    url, keys = postgres_desk.new_store(), postgres_desk.new_store()
    ledger = await Ledger.open(url, None, projections(), folder=folder, keys=keys)
    payload = ledger.seal(ledger.vault.new_scope("r-1"), {"who": "ada"})
    await ledger.append(replace(note("r-1"), payloads=(payload,)))
    await ledger.close()
    async with proxied(url if mute == "ledger" else keys) as (proxy, through):
        through += "&connect_timeout=2"
        where = (through, keys) if mute == "ledger" else (url, through)
        ledger = await Ledger.open(where[0], None, projections(), folder=folder, keys=where[1])
        try:
            assert await ledger.head() == 1
            yield proxy, ledger, payload.address
        finally:
            closing = asyncio.ensure_future(ledger.close())
            await asyncio.wait([closing], timeout=LIMIT)
            ended = closing.done()
            proxy.mend()
            await closing
            assert ended, "closing waits for who does not answer"


async def outcome(work: Awaitable[Any]) -> Any:
    """What comes of it within the limit: its value, or its error."""
    return (await asyncio.wait_for(asyncio.gather(work, return_exceptions=True), LIMIT))[0]


async def test_a_keystore_that_does_not_answer_fails_what_needs_its_keys_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path, "keystore") as (proxy, ledger, address):
        proxy.cut()
        found = await outcome(ledger.value(address))
        assert isinstance(found, StoreLost) and "it has not answered for 0.5 seconds" in str(found)
        assert await outcome(ledger.head()) == 1
        proxy.mend()
        assert await outcome(ledger.value(address)) == {"who": "ada"}
        proxy.cut()


async def test_all_who_wait_for_a_ledger_that_does_not_answer_are_told(tmp_path: Path) -> None:
    """Were each to try anew, the last of them would be told after as many minutes as there are in front of it."""
    async with opened(tmp_path, "ledger") as (proxy, ledger, _):
        tried: list[int] = []

        def read(number: int) -> object:
            tried.append(number)
            return ledger.backend.heads()

        proxy.cut()
        waiting = [ledger.off_loop(read, number) for number in range(200)]
        found = await outcome(asyncio.gather(*waiting, return_exceptions=True))
        assert {type(one) for one in found} == {StoreLost}
        assert len(tried) < 10
        proxy.mend()
        assert await outcome(ledger.head()) == 1


async def test_what_is_under_way_when_the_store_is_closed_is_told_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pg_patience, "ANSWER_SECONDS", 10 * LIMIT)
    async with opened(tmp_path, "ledger") as (proxy, ledger, _):
        proxy.cut()
        reading = asyncio.ensure_future(ledger.head())
        writing = ledger.append(note("r-1"))
        await asyncio.sleep(0.1)
        await asyncio.wait_for(ledger.close(), LIMIT)
        assert isinstance(await outcome(reading), StoreError)
        assert isinstance(await outcome(writing), StoreError)


async def test_closing_does_not_wait_for_ever_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CLOSING_SECONDS", 0.1)
    ledger = await Ledger.open(tmp_path)
    hangs = threading.Event()
    try:
        reading = asyncio.ensure_future(ledger.off_loop(hangs.wait, 10 * LIMIT))
        behind = asyncio.ensure_future(ledger.head())
        await asyncio.sleep(0.1)
        await asyncio.wait_for(ledger.close(), LIMIT)
        for one in (reading, behind):
            told = await outcome(one)
            assert isinstance(told, StoreError) and "has not answered" in str(told)
    finally:
        hangs.set()
