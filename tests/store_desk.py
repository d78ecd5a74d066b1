"""The fixtures of tests over a store; apart from `ledger_desk`, which started processes load without pytest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ledger_desk import Store, note
from tightship.ledger import Ledger
from tightship.ledger.bundles import WIDTH
from tightship.ledger.entries import entry_crc, log_crc
from tightship.ledger.sequencer import Sequencer

BASE = 1 << 40
"""The row of entry n of the first log is this and n."""


def store_of(*kinds: str) -> Any:
    """The fixture `store` of a test file: a store of each of these kinds in turn, closed after its test."""

    @pytest.fixture(params=kinds)
    async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
        store = Store(request.param, tmp_path)
        yield store
        await store.close()

    return store


def ledger_of_store() -> Any:
    """The fixture `ledger` of a test file: that of its `store`."""

    @pytest.fixture
    async def ledger(store: Store) -> Ledger:
        return await store.open()

    return ledger


def covered_ledger() -> Any:
    """The fixture `ledger` of a test file: two bundles, a few entries in the table, all of it under a checkpoint."""

    @pytest.fixture
    async def ledger(store: Store) -> Ledger:
        ledger = await store.open()
        await asyncio.gather(*(ledger.append(note(f"r-{n % 5}", n=n)) for n in range(2 * WIDTH + 20)))
        await Sequencer(ledger).close()
        return ledger

    return ledger


# --- behind the back of a ledger --------------------------------------------------------------------------


async def sql(ledger: Ledger, statement: str, *values: Any) -> None:
    """Change the database behind the ledger's back."""
    await ledger.job(lambda: ledger.backend._db.execute(statement, values).fetchall())  # type: ignore[union-attr]


def one(ledger: Ledger, statement: str, *values: Any) -> Any:
    return ledger.backend._read(statement, values)[0]  # type: ignore[union-attr]


async def rewrite(ledger: Ledger, n: int, change: Callable[[str], str]) -> None:
    """Change an entry of the table as somebody would who knows of the checksums."""
    run, data = one(ledger, "SELECT run, data FROM entries WHERE id = ?", BASE | n)
    data = change(data)
    crc = entry_crc(log_crc("default"), run.encode(), data.encode())
    await sql(ledger, "UPDATE entries SET data = ?, crc = ? WHERE id = ?", data, crc, BASE | n)
