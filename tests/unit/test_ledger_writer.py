"""Group commit: all that waits becomes one transaction, everybody hears their own outcome, nobody waits for ever."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import KINDS, Store, note
from store_desk import ledger_of_store, store_of
from tightship.core.errors import StoreError, StoreFull
from tightship.ledger import Entry, Ledger
from tightship.ledger.entries import Unit
from tightship.ledger.writer import MAX_BATCH, ThreadWriter

store = store_of(*KINDS)
ledger = ledger_of_store()


def batches(ledger: Ledger) -> list[int]:
    """From now on, how many units each transaction has held."""
    sizes: list[int] = []
    commit = ledger._committer.commit

    def counted(units: Any) -> list[Entry]:
        sizes.append(len(units))
        return commit(units)

    ledger._committer.commit = counted  # type: ignore[method-assign]
    return sizes


async def test_what_is_appended_in_one_tick_is_one_transaction(ledger: Ledger) -> None:
    sizes = batches(ledger)
    await asyncio.gather(*(ledger.append(note(n=n)) for n in range(500)))
    assert sizes == [500]
    await ledger.append(note())
    assert sizes == [500, 1]


async def test_what_waits_while_a_transaction_runs_goes_together_into_the_next(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    sizes = batches(ledger)
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go.wait(60)

    job = ledger.job(hold)
    await asyncio.to_thread(held.wait)
    waiting: list[asyncio.Future[list[Entry]]] = []
    for number in range(40):
        waiting.append(ledger.append(note(n=number)))
        await asyncio.sleep(0)
    go.set()
    await asyncio.gather(job, *waiting)
    assert sizes == [40]
    await store.close()


async def test_a_batch_is_bounded(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    sizes = batches(ledger)
    waiting: list[Any] = []
    hold = threading.Event()
    job = ledger.job(lambda: hold.wait(60))
    for _ in range(3):
        waiting += [ledger.append(note()) for _ in range(MAX_BATCH)]
        await asyncio.sleep(0)
    hold.set()
    await asyncio.gather(job, *waiting)
    assert sizes == [MAX_BATCH] * 3
    await store.close()


async def test_a_caller_that_stops_waiting_harms_nobody_and_the_entry_stands(ledger: Ledger) -> None:
    gone, stays = ledger.append(note(n=1)), ledger.append(note(n=2))
    gone.cancel()
    await stays
    assert [entry.body["n"] for entry in await ledger.entries()] == [1, 2]


async def test_who_is_cut_off_hears_of_it_once_the_outcome_is_known(tmp_path: Path) -> None:
    """Whoever is told that they were cut off can still see whether it was written: nothing is in between."""
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    held, go = threading.Event(), threading.Event()
    job = ledger.job(lambda: (held.set(), go.wait(60)))
    await asyncio.to_thread(held.wait)
    written: list[Entry] = []

    async def caller() -> None:
        future = ledger.append(note())
        try:
            await future
        except asyncio.CancelledError:
            written.extend(future.result())
            raise

    task = asyncio.ensure_future(caller())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    go.set()
    await asyncio.gather(job, task, return_exceptions=True)
    assert task.cancelled() and len(written) == 1
    await store.close()


async def test_a_job_runs_between_batches_after_what_was_appended_before_it(ledger: Ledger) -> None:
    appended = ledger.append(note())
    assert await ledger.job(lambda: ledger.backend.heads()["default"][1]) == 1
    assert appended.done()


async def test_a_job_that_raises_raises_at_its_caller_alone(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError):
        await ledger.job(lambda: 1 // 0)
    await ledger.append(note())


async def test_a_listener_that_raises_is_told_of_and_keeps_nothing_from_the_others(ledger: Ledger) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    heard: list[int] = []

    def broken(entries: list[Entry], foreign: bool) -> None:
        raise ValueError("a defect")

    ledger.listen(broken)
    ledger.listen(lambda entries, foreign: heard.extend(entry.n for entry in entries))
    await ledger.append(note())
    await ledger.append(note())
    assert heard == [1, 2]
    assert [str(context["exception"]) for context in complaints] == ["a defect"] * 2


async def test_closing_commits_all_that_waits(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    waiting = [ledger.append(note(n=n)) for n in range(5000)]
    await ledger.close()
    assert all(future.done() for future in waiting)
    assert [future.result()[0].n for future in waiting] == list(range(1, 5001))
    assert await (await store.open()).head() == 5000
    await store.close()


async def test_a_closed_ledger_refuses_at_once_and_closes_twice(ledger: Ledger) -> None:
    await ledger.append(note())
    await ledger.close()
    await ledger.close()
    with pytest.raises(StoreError, match="closed"):
        await ledger.append(note())
    with pytest.raises(StoreError, match="closed"):
        await ledger.job(lambda: None)
    if ledger.path is not None:
        with pytest.raises(StoreError, match="closed"):
            await ledger.entries()


async def test_an_append_while_it_closes_is_committed_or_refused_never_forgotten(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()

    async def busy() -> int:
        done = 0
        while True:
            try:
                await ledger.append(note())
            except StoreError:
                return done
            done += 1

    callers = [asyncio.ensure_future(busy()) for _ in range(8)]
    await asyncio.sleep(0.05)
    await ledger.close()
    async with asyncio.timeout(300):
        done = sum(await asyncio.gather(*callers))
    assert await (await store.open()).head() == done
    await store.close()


class Stop(BaseException):
    """What is no error: an interpreter that ends, say."""


async def test_whatever_happens_in_a_transaction_its_callers_are_told_and_the_next_one_goes_on() -> None:
    trouble: list[BaseException | None] = [Stop(), MemoryError(), StopIteration(), StoreFull(), None]

    def commit(units: list[Unit]) -> list[Entry]:
        error = trouble.pop(0)
        if error is not None:
            raise error
        return []

    writer = ThreadWriter(commit, lambda entries, foreign: None)
    told: list[type[BaseException] | None] = []
    for _ in range(5):
        try:
            await writer.submit(Unit("default", ()))
            told.append(None)
        except Exception as error:
            told.append(type(error))
    assert told == [StoreError, MemoryError, StoreError, StoreFull, None]

    def stop() -> None:
        raise Stop

    with pytest.raises(StoreError, match="interrupted"):
        await writer.job(stop)
    assert await writer.job(lambda: 1) == 1
    await writer.close()


async def test_an_error_of_the_disk_reaches_every_caller_of_its_batch_and_is_over_with_it(ledger: Ledger) -> None:
    commit, failing = ledger.backend.commit, [True]

    def full() -> None:
        if failing:
            failing.pop()
            raise StoreFull("the disk is full")
        commit()

    ledger.backend.commit = full  # type: ignore[method-assign]
    outcomes = await asyncio.gather(*(ledger.append(note(n=n)) for n in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreFull] * 3
    [entry] = await ledger.append(note(n=4))
    assert entry.n == 1


async def test_what_others_appended_during_a_failed_transaction_is_told_later(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ours, theirs = await store.open(), await store.open()
    heard: list[int] = []
    ours.listen(lambda entries, foreign: heard.extend(entry.n for entry in entries if foreign))
    await theirs.append(note())
    commit, failing = ours.backend.commit, [True]

    def full() -> None:
        if failing:
            failing.pop()
            raise StoreFull("the disk is full")
        commit()

    ours.backend.commit = full  # type: ignore[method-assign]
    with pytest.raises(StoreFull):
        await ours.append(note())
    assert heard == []
    await ours.append(note())
    assert heard == [1]
    await store.close()
