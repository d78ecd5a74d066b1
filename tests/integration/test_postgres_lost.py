"""The Postgres store when its server is lost: what was committed, what is told, and that nothing acknowledged goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres_desk
from ledger_desk import Store, begin, note, projections, until
from postgres_desk import Server
from store_desk import store_of
from tightship.core.errors import CommitUnknown, StoreError, StoreLost
from tightship.ledger import Ledger, _pg, postgres
from tightship.ledger._pg import Address
from tightship.ledger.audit import verify


@pytest.fixture
def server() -> Server:
    return postgres_desk.server()


store = store_of("postgres")


def cut_in_commit(monkeypatch: pytest.MonkeyPatch, done: bool) -> list[str]:
    """The next commit loses its connection: after the server has done it, or before it hears of it."""
    import psycopg

    told: list[str] = []
    run = _pg.run_together

    def cut(db: Any, statements: Any) -> Any:
        if not told and statements[-1][0] == "COMMIT" and len(statements) > 1:
            told.append("cut")
            if done:
                run(db, statements)
            db.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return run(db, statements)

    monkeypatch.setattr(postgres, "run_together", cut)
    return told


@pytest.mark.parametrize("done", [True, False])
async def test_a_commit_whose_answer_was_lost_is_asked_about(
    store: Store, monkeypatch: pytest.MonkeyPatch, done: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "tightship")
    ledger = await store.open()
    await begin(ledger, "r-1")
    cut_in_commit(monkeypatch, done)
    outcome = (await asyncio.gather(ledger.append(note("r-1", epoch=1, n=1)), return_exceptions=True))[0]
    assert isinstance(outcome, list if done else StoreLost)
    await ledger.append(note("r-1", epoch=1, n=2))
    assert [entry.body.get("n") for entry in await ledger.run_entries("r-1")] == ([None, 1, 2] if done else [None, 2])
    heard: list[Any] = []
    ledger.listen(lambda entries, foreign: heard.append(entries))
    await ledger.poll()
    assert heard == [], "what was found to be there is not somebody else's"


async def test_a_store_that_is_closed_before_it_knows_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await store.open()
    await begin(ledger, "r-1")
    monkeypatch.setattr(postgres, "CLOSING_SECONDS", 0.1)
    cut_in_commit(monkeypatch, False)

    def down(address: Address, patience: object) -> Any:
        raise StoreLost(where=address.shown)

    monkeypatch.setattr(_pg, "connect", down)
    waiting = ledger.append(note("r-1", epoch=1))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await ledger.close()
    with pytest.raises(CommitUnknown):
        await waiting


async def test_a_session_that_ends_between_two_batches_is_made_anew(store: Store, server: Server) -> None:
    ledger = await store.open()
    await begin(ledger, "r-1")
    with server.connect() as db:
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tightship'")
    await ledger.append(note("r-1", epoch=1))
    assert len(await ledger.run_entries("r-1")) == 2


async def test_a_process_that_is_frozen_in_an_append_does_not_keep_the_store_locked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = await store.open(), await store.open()
    db = ours.backend._link.live()  # type: ignore[attr-defined]
    db.execute("SET idle_in_transaction_session_timeout TO '200ms'")
    ours.backend.begin()  # and then nothing: its process stands still
    await theirs.append(note(n=1))
    outcome = (await asyncio.gather(ours.append(note(n=2)), return_exceptions=True))[0]
    assert isinstance(outcome, list)
    assert [entry.body["n"] for entry in await theirs.entries()] == [1, 2]


async def test_nothing_that_was_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    server = Server()
    acknowledged: list[int] = []
    refused: list[int] = []
    stop = asyncio.Event()
    try:
        ledger = await Ledger.open(server.url("crash"), None, projections(), folder=tmp_path)

        async def one(worker: int) -> None:
            n = 0
            while not stop.is_set():
                n += 1
                number = worker * 1_000_000 + n
                try:
                    await ledger.append(note(f"r-{worker}", n=number))
                    acknowledged.append(number)
                except StoreError:
                    refused.append(number)
                    await asyncio.sleep(0.05)

        workers = [asyncio.ensure_future(one(worker)) for worker in range(8)]
        for _ in range(2):
            before = len(acknowledged)
            await until(lambda before=before: len(acknowledged) > before + 100)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before + 100)
        stop.set()
        await asyncio.gather(*workers)
        entries = await ledger.entries(limit=1_000_000)
        there = [entry.body["n"] for entry in entries]
        assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
        assert sorted(there) == sorted(acknowledged), "neither lost, nor doubled, nor there though it was refused"
        assert not set(refused) & set(there)
        report = await verify(ledger)
        assert report.ok, report.findings
        await ledger.close()
    finally:
        with contextlib.suppress(OSError):
            server.stop()
