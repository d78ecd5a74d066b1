"""What happens to a store while old entries leave it: nothing that somebody comes to need is dropped."""

from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from archive_desk import run, years
from ledger_desk import Store, projections
from store_desk import ledger_of_store, store_of
from tightship.controls.leases import LoansProjection
from tightship.core import kinds
from tightship.core.errors import Archived, LedgerError, StoreError
from tightship.core.world import World
from tightship.insight import coordination_left_out, coordination_of
from tightship.insight.behaviour import behaviour
from tightship.ledger import Draft, Ledger, archiving
from tightship.ledger import ledger as ledger_module
from tightship.ledger.archiving import archive
from tightship.ledger.audit import verify

store = store_of("sqlite", "postgres")
ledger = ledger_of_store()


class Killed(Exception):
    """The process is gone."""


async def test_a_value_that_is_named_meanwhile_is_not_dropped(ledger: Ledger) -> None:
    one, other = [await run(ledger, name, notes=0) for name in ("r-1", "r-2")]
    head = await ledger.head()
    await ledger.append(Draft("r-3", kinds.STARTED, "", {"workflow": "w", "owner": "h", "input": one}, 1))
    gone = await ledger.job(functools.partial(ledger.backend.drop_payloads, [one, other], {"default": head}, set()))
    assert gone == {other}
    assert (await ledger.value(one))["secret"] == "of r-1"


async def test_a_value_named_while_others_are_dropped_is_not_dropped_with_later_ones(ledger: Ledger) -> None:
    first, second, third = [await run(ledger, name, notes=0) for name in ("r-1", "r-2", "r-3")]
    after, named = {"default": await ledger.head()}, set[str]()
    await ledger.append(Draft("r-4", kinds.STARTED, "", {"workflow": "w", "owner": "h", "input": second}, 1))

    async def drop(*addresses: str) -> set[str]:
        return await ledger.job(functools.partial(ledger.backend.drop_payloads, addresses, after, named))

    assert await drop(first) == {first}
    assert await drop(second, third) == {third}
    assert (await ledger.value(second))["secret"] == "of r-2"


async def test_a_run_that_somebody_goes_on_from_meanwhile_does_not_leave(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, inputs = await years(ledger)
    recorded, folder = archiving._record, tmp_path / "old"

    async def forked_meanwhile(*args: Any) -> None:
        body = {"workflow": "w", "owner": "h", "input": inputs["r-03"], "forked": {"run": "r-03", "key": "", "n": 0}}
        await ledger.append(Draft("r-fork", kinds.STARTED, "", body, 1))
        await recorded(*args)

    with monkeypatch.context() as patch, pytest.raises(LedgerError, match="r-03 is needed again"):
        patch.setattr(archiving, "_record", forked_meanwhile)
        await archive(ledger, folder, before, "ann")
    assert not folder.exists()
    assert not await ledger.select("archives")
    assert (await archive(ledger, folder, before, "ann")).runs == 11
    assert len(await ledger.run_entries("r-03")) == 42
    assert (await ledger.value(inputs["r-03"]))["secret"] == "of r-03"
    assert (await verify(ledger, archives=[folder])).ok


async def test_what_a_fork_still_needs_is_not_dropped_before_it_has_ended(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, inputs = await years(ledger)
    folder = tmp_path / "old"

    def cut_off(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(archiving, "_drop", cut_off)
        await archive(ledger, folder, before, "ann")
    forked = {"run": "r-03", "key": "", "n": 0}
    await run(ledger, "r-fork", end=False, forked=forked)
    with pytest.raises(LedgerError, match="r-fork goes on from run r-03"):
        await archive(ledger, folder, before, "ann")
    assert len(await ledger.run_entries("r-03")) == 42
    assert (await ledger.value(inputs["r-03"]))["secret"] == "of r-03"
    await ledger.append(Draft("r-fork", kinds.ENDED, "", {"outcome": "completed"}, 1))
    assert (await archive(ledger, folder, before, "ann")).completed
    with pytest.raises(Archived):
        await ledger.run_entries("r-03")
    assert (await verify(ledger, archives=[folder])).ok


async def test_the_file_of_a_value_that_is_stored_again_while_it_leaves_stays_or_whoever_stores_it_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    large = ledger.seal(ledger.vault.new_scope("r-1"), ["x" * 10, ledger.world.chance.token(300_000).hex()])
    path = tmp_path / "store" / "payloads" / large.address[:2] / large.address[2:]

    async def begin(name: str) -> None:
        body = {"workflow": "w", "owner": "h", "input": large.address}
        await ledger.append(Draft(name, kinds.STARTED, "", body, 1, (large,)))

    async def drop() -> set[str]:
        after = {"default": await ledger.head()}
        return await ledger.job(functools.partial(ledger.backend.drop_payloads, [large.address], after, set()))

    await begin("r-1")
    gone = await drop()
    await begin("r-2")
    await ledger.job(functools.partial(ledger.backend.drop_files, gone))
    assert await ledger.value(large.address)
    gone = await drop()
    prepared = ledger_module.prepare

    def dropped_behind(*args: Any) -> bool:
        done = prepared(*args)
        ledger.backend.drop_files(gone)
        return done

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="try again"):
        patch.setattr(ledger_module, "prepare", dropped_behind)
        await begin("r-3")
    assert not path.exists()
    await begin("r-3")
    assert await ledger.value(large.address)
    await store.close()


async def test_what_a_worker_spent_stays_while_it_holds_a_loan_of_this_month(store: Store, tmp_path: Path) -> None:
    world = World(clock=store.clock)
    ledger = await Ledger.open(store.where, world, [*projections(), LoansProjection()], folder=tmp_path / "store")
    before, _ = await years(ledger)
    month = datetime.fromtimestamp(before, UTC).strftime("%Y-%m")
    lent = {"scope": "tenant:default", "period": month, "owner": "w-1", "usd": 5, "tokens": 0, "calls": 0}
    await ledger.append(Draft("", kinds.ENVELOPE, "tenant:default", lent))
    assert await ledger.select("loans")
    with pytest.raises(LedgerError, match="hold loans"):
        await archive(ledger, tmp_path / "old", before, "ann")
    await ledger.append(Draft("", kinds.ENVELOPE, "tenant:default", {**lent, "usd": -5, "reconciled": True}))
    assert (await archive(ledger, tmp_path / "old", before, "ann")).entries
    await ledger.close()


async def test_figures_of_runs_that_have_left_are_not_taken_for_others(ledger: Ledger, tmp_path: Path) -> None:
    before, _ = await years(ledger)
    assert await coordination_left_out(ledger) == 0
    for name in ("r-00", "r-open"):
        audited = {"agent": "a", "workflow": "w", "upto": 1, "runs": [name]}
        await ledger.append(Draft("conduct", kinds.AUDIT, "a", audited))
    await archive(ledger, tmp_path / "old", before, "ann")
    with pytest.raises(Archived, match="r-00"):
        await coordination_of(ledger, "r-00")
    assert await coordination_left_out(ledger) == 12
    assert (await behaviour(ledger)).audits["a"] == {"archived": 1, "open": 1}


async def test_others_go_on_appending_meanwhile(store: Store, ledger: Ledger, tmp_path: Path) -> None:
    before, _ = await years(ledger)
    other, done = await store.open(), asyncio.Event()

    async def work() -> int:
        count = 0
        while not done.is_set():
            await run(other, f"r-busy-{count}", notes=3)
            count += 1
        return count

    working = asyncio.create_task(work())
    await archive(ledger, tmp_path / "old", before, "ann")
    done.set()
    count = await working
    assert count > 1
    for at in range(count):
        assert len(await ledger.run_entries(f"r-busy-{at}")) == 5
    assert (await verify(ledger, archives=[tmp_path / "old"])).ok


async def test_two_archives_at_once_are_one(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, _ = await years(ledger)
    recorded = archiving._record

    async def overtaken(*args: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(archiving, "_record", recorded)
            await archive(ledger, tmp_path / "other", before, "bob")
        await recorded(*args)

    with monkeypatch.context() as patch, pytest.raises(LedgerError, match="another process has archived"):
        patch.setattr(archiving, "_record", overtaken)
        await archive(ledger, tmp_path / "old", before, "ann")
    assert not (tmp_path / "old").exists()
    assert (await verify(ledger, archives=[tmp_path / "other"])).ok
