"""Whoever integrates the log's entries is killed, frozen or cut off: another goes on, and what was proven stays so."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import postgres_desk
from ledger_desk import Store, note, script, until
from proxy import Proxy
from tightship.ledger import pg_lock
from tightship.ledger.audit import export, prove, verify
from tightship.ledger.merkle.proof import verify_bundle
from tightship.ledger.sequencer import Sequencer

HOLDER = """
from tightship.ledger.sequencer import Sequencer
async def main():
    ledger = await Ledger.open(URL, None, projections(), folder=STORE)
    task = asyncio.ensure_future(Sequencer(ledger, every=0.05).run())
    while not (ledger.backend.checkpoint(1) or (0,))[0]:
        await ledger.append(note("theirs"))
        await asyncio.sleep(0.02)
    print("holds", flush=True)
    while True:
        await ledger.append(note("theirs"))
        await asyncio.sleep(0.02)
asyncio.run(main())
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store("postgres", tmp_path)
    yield store
    await store.close()


@pytest.mark.parametrize("how", ["killed", "frozen", "cut off"])
async def test_the_tree_grows_on_when_its_sequencer_is_lost(
    store: Store, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg_lock, "SILENT", 1.0)
    ledger = await store.open()
    await ledger.append(note())
    schema = str(store.where).rpartition("schema=")[2]
    proxy = Proxy(postgres_desk.server().folder / ".s.PGSQL.5432")
    url = f"postgresql://postgres@127.0.0.1:{await proxy.start()}/postgres?schema={schema}"
    command = script(store.folder / "store", HOLDER.replace("URL", repr(url)))
    holder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert (await holder.stdout.readline()).strip() == b"holds"
        assert not ledger.backend.sequences()
        proof, archive = await prove(ledger, 1), tmp_path / "archive"
        before = (await export(ledger, archive, integrate=False)).logs["default"]
        if how == "cut off":
            proxy.cut()
        else:
            holder.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        ours = Sequencer(ledger, every=0.05)
        running = asyncio.ensure_future(ours.run())
        await ledger.append(note("ours"))
        head = await ledger.head()
        await until(lambda: (ledger.backend.checkpoint(1) or (0,))[0] >= head)
        holder.send_signal(signal.SIGCONT) if how == "frozen" else proxy.mend()
        await asyncio.sleep(0.3)  # what comes back finds another at its place
        assert ledger.backend.sequences()
        running.cancel()
        await ours.close()
        report = await verify(ledger)
        assert report.ok, report.findings
        assert head > before
        key = (archive / "default.vkey").read_text().strip()
        assert verify_bundle(proof, key).index == 0
        assert (await export(ledger, archive, integrate=False)).logs["default"] >= head, "it continues the archived one"
        assert verify_bundle(await prove(ledger, 1), key).index == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()
        await proxy.close()


async def test_a_sequencer_that_asks_keeps_its_place(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_lock, "SILENT", 2.0)  # longer than a busy machine takes from one question to the next
    first, other = await store.open(), await store.open()
    assert first.backend.sequences()
    for _ in range(9):
        await asyncio.sleep(0.25)
        assert first.backend.sequences()
        assert not other.backend.sequences()


async def test_two_that_integrate_at_once_do_no_harm(store: Store) -> None:
    """The lock saves work; what keeps the tree right is the transaction that extends it."""
    first, other = await store.open(), await store.open()
    ours, theirs = Sequencer(first), Sequencer(other)
    for _ in range(5):
        await asyncio.gather(*(one.append(note()) for one in (first, other) for _ in range(50)))
        await asyncio.gather(ours.run_once(), theirs.run_once(), return_exceptions=True)
    await ours.run_once()
    report = await verify(first)
    assert report.ok, report.findings
