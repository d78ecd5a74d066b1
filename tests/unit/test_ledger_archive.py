"""Old entries leave for a folder: nothing is lost, everything can still be proved, and readings stay what they were."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from archive_desk import pack, run, years
from ledger_desk import Store, note
from store_desk import ledger_of_store, store_of
from tightship.core import kinds
from tightship.core.errors import Archived, LedgerError, StoreFull, StoreMissing, TamperError
from tightship.ledger import Draft, Ledger, folded
from tightship.ledger.archive_folder import FolderWriter
from tightship.ledger.archiving import DRAFT, archive
from tightship.ledger.audit import _reader, export, prove, rebuild, verify

store = store_of("sqlite", "postgres")
ledger = ledger_of_store()


async def tables(ledger: Ledger) -> dict[str, Any]:
    return {table: await ledger.select(table) for table in ledger.folder.tables}


async def test_what_left_is_in_the_folder_and_the_store_still_verifies(ledger: Ledger, tmp_path: Path) -> None:
    before, inputs = await years(ledger)
    folder = tmp_path / "old"
    root = await prove(ledger, 5)
    report = await archive(ledger, folder, before, "ann")
    assert report.runs == 12
    assert report.values == report.runs
    assert report.entries > 400
    audit = await verify(ledger)
    assert audit.ok, [str(one) for one in audit.findings]
    assert audit.archived == report.entries
    whole = await verify(ledger, archives=[folder])
    assert whole.ok, [str(one) for one in whole.findings]
    assert (whole.archived, whole.archives) == (0, report.entries + report.values)
    assert (await prove(ledger, 5, archives=[folder])).splitlines()[:3] == root.splitlines()[:3]
    with pytest.raises(Archived):
        await prove(ledger, 5)
    with pytest.raises(Archived, match="r-00"):
        await ledger.run_entries("r-00")
    with pytest.raises(Archived):
        await ledger.value(inputs["r-00"])
    assert await ledger.values([inputs["r-00"]], None) == {inputs["r-00"]: None}


async def test_what_is_still_needed_stays(ledger: Ledger, tmp_path: Path) -> None:
    before, inputs = await years(ledger)
    seen = {name: [entry.data for entry in await ledger.run_entries(name)] for name in ("r-open", "r-above", "r-young")}
    await archive(ledger, tmp_path / "old", before, "ann")
    for name, data in seen.items():
        assert [entry.data for entry in await ledger.run_entries(name)] == data
        assert (await ledger.value(inputs[name]))["secret"] == f"of {name}"
    assert len(await ledger.select("runs")) == 15, "rows of runs stay"
    await ledger.append(note("r-open", 1), Draft("r-open", kinds.ENDED, "", {"outcome": "completed"}, 1))
    assert (await verify(ledger)).ok


async def test_runs_that_others_still_need_stay_and_so_does_what_is_in_no_run(ledger: Ledger, tmp_path: Path) -> None:
    asked, forked, model, plain = "r-asked", "r-forked", "r-model", "r-plain"
    names = (asked, forked, model, plain, "r-other", "r-writer")
    inputs = {name: await run(ledger, name, notes=60) for name in names}
    item = {"item": "i-1", "type": "escalation", "role": "lead", "title": "t", "package": inputs[asked]}
    await ledger.append(Draft(asked, kinds.OPENED, "", item))
    await ledger.append(Draft("conduct", kinds.BASELINE, "", {"subject": "workflow:w", "by": "a", "runs": [model]}))
    price = ledger.seal(ledger.vault.new_scope("r-price"), 3)
    written = {"scope": "tenant:default", "key": "price", "value": price.address, "writer": "a"}
    old, new = [
        (await ledger.append(Draft("r-writer", kinds.CONTEXT, "", written, payloads=(price,))))[0].n for _ in range(2)
    ]
    for at in range(20):
        await run(ledger, f"r-more-{at:02d}", notes=20)
    before = (await ledger.append(note("")))[0].at
    await run(ledger, "r-fork", forked={"run": forked, "key": "", "n": 0}, notes=300)
    await pack(ledger)
    await archive(ledger, tmp_path / "old", before, "ann")
    for name in (asked, forked, model):
        assert len(await ledger.run_entries(name)) > 60
    assert [entry.kind for entry in await ledger.run_entries("conduct")] == [kinds.BASELINE]
    for name in (plain, "r-other", "r-writer", "r-more-03"):
        with pytest.raises(Archived):
            await ledger.run_entries(name)
    assert [entry.n for entry in await ledger.entries(new - 1, 1)] == [new], "the value that stands"
    assert [entry.n for entry in await ledger.entries(old - 1, 1)] == [old], "a run that stays may have read it"
    assert await ledger.value(price.address) == 3
    assert (await verify(ledger, archives=[tmp_path / "old"])).ok


async def test_every_log_is_archived_and_erasing_reaches_the_archive(ledger: Ledger, tmp_path: Path) -> None:
    keyring = ledger.vault.keyring
    for at in range(18):
        log, name = ("default", "acme & sons", "..")[at % 3], f"r-{at}"
        keyring.create(name)
        scope = ledger.vault.scope([name, keyring.subject("default", "c-1")] if at < 4 else [name])
        given = ledger.seal(scope, {"of": name, "long": [ledger.world.chance.token(300_000).hex() if at == 5 else ""]})
        first = {"workflow": "w", "owner": "h", "input": given.address}
        await ledger.append(Draft(name, kinds.STARTED, "", first, 1, (given,)), log=log)
        await asyncio.gather(*(ledger.append(note(name, 1, at=n), log=log) for n in range(80)))
        await ledger.append(Draft(name, kinds.ENDED, "", {"outcome": "completed"}, 1), log=log)
    before = (await ledger.append(note("")))[0].at
    await pack(ledger)
    report = await archive(ledger, tmp_path / "old", before, "ann")
    assert set(report.logs) == {"default", "acme & sons", ".."}
    await ledger.erase("default", "c-1", "ann")
    whole = await verify(ledger, archives=[tmp_path / "old"])
    assert whole.ok, [str(one) for one in whole.findings]
    assert whole.erased == 4
    assert not [finding for finding in whole.findings if "no payload has this name" in finding.message]
    there = await tables(ledger)
    await rebuild(ledger)
    assert await tables(ledger) == there


async def test_rebuilding_gives_the_same_tables_with_the_archive_and_without(ledger: Ledger, tmp_path: Path) -> None:
    before, _ = await years(ledger)
    await archive(ledger, tmp_path / "old", before, "ann")
    await run(ledger, "r-later")
    there = await tables(ledger)
    await rebuild(ledger)
    assert await tables(ledger) == there
    await rebuild(ledger, archives=[tmp_path / "old"])
    assert await tables(ledger) == there
    assert (await verify(ledger)).ok


async def test_archives_follow_one_another(ledger: Ledger, tmp_path: Path) -> None:
    before, _ = await years(ledger)
    await archive(ledger, tmp_path / "one", before, "ann")
    for n in range(20, 30):
        await run(ledger, f"r-{n}")
    later = (await ledger.append(note("")))[0].at
    for n in range(30, 40):
        await run(ledger, f"r-{n}")
    await pack(ledger)
    first = folded.latest(ledger)
    await archive(ledger, tmp_path / "two", later, "ann")
    second = folded.latest(ledger)
    assert first and second
    assert not ledger.backend.payloads(list(first.pages - second.pages)), "only the last ones are needed"
    assert len(ledger.backend.payloads(list(second.pages))) == len(second.pages)
    audit = await verify(ledger)
    assert audit.ok, [str(one) for one in audit.findings]
    assert audit.archived
    whole = await verify(ledger, archives=[tmp_path / "one", tmp_path / "two"])
    assert whole.ok, [str(one) for one in whole.findings]
    assert not whole.archived
    await pack(ledger)
    out = await export(ledger, tmp_path / "out", archives=[tmp_path / "one", tmp_path / "two"], plain=True)
    assert out.logs == {"default": await ledger.head()}
    with pytest.raises(Archived):
        await export(ledger, tmp_path / "less", archives=[tmp_path / "two"])


async def test_a_dry_run_changes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    before, _ = await years(ledger)
    head = await ledger.head()
    report = await archive(ledger, tmp_path / "old", before, "ann", dry_run=True)
    assert report.entries
    assert not (tmp_path / "old").exists()
    assert await ledger.head() == head


async def test_a_folder_with_something_in_it_and_a_store_with_nothing_old_are_refused(
    ledger: Ledger, tmp_path: Path
) -> None:
    before, _ = await years(ledger)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("mine")
    with pytest.raises(LedgerError, match="not empty"):
        await archive(ledger, tmp_path / "full", before, "ann")
    if ledger.path is not None:
        with pytest.raises(LedgerError, match="does not lie in the store"):
            await archive(ledger, ledger.path / "payloads" / "old", before, "ann")
    with pytest.raises(LedgerError, match="nothing to archive"):
        await archive(ledger, tmp_path / "old", 1.0, "ann")
    with pytest.raises(ValueError, match="past"):
        await archive(ledger, tmp_path / "old", before + 1e6, "ann")


async def named(ledger: Ledger, folder: Path) -> list[Path]:
    """The archive, once the log speaks of it."""
    there = folder if folder.exists() else folder.with_name(folder.name + DRAFT)
    return [there] if await ledger.select("archives") else []


async def test_a_full_disk_says_so_and_nothing_leaves(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = await years(ledger)
    head = await ledger.head()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StoreFull, match="nothing has left"):
        patch.setattr(FolderWriter, "finish", full)
        await archive(ledger, tmp_path / "old", before, "ann")
    assert await ledger.head() == head
    assert not (tmp_path / "old").exists()
    assert (await archive(ledger, tmp_path / "old", before, "ann")).entries


class Killed(Exception):
    """The process is gone."""


async def test_cut_off_at_any_step_it_is_completed_by_the_next_call(
    store: Store, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, inputs = await years(ledger)
    folder, step, runs = tmp_path / "old", 0, 0
    done = False
    while not done:
        step += 1
        _die_at(ledger, step, monkeypatch)
        try:
            await archive(ledger, folder, before, "ann")
            done = True
        except Killed:
            pass
        monkeypatch.undo()
        audit = await verify(ledger, archives=await named(ledger, folder))
        assert audit.ok, (step, [str(one) for one in audit.findings])
        runs += 1
    assert runs > 5
    assert (await verify(ledger)).archived
    assert (await ledger.value(inputs["r-open"]))["secret"] == "of r-open"


def _die_at(ledger: Ledger, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nth of the steps that change anything is the last one that is done."""
    from tightship.ledger import archiving

    left = step
    monkeypatch.setattr(archiving, "_VALUES_AT_ONCE", 4)

    def dies(target: Any, name: str) -> None:
        real = getattr(target, name)

        @functools.wraps(real)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            last = left == 0
            result = real(*args, **kwargs)
            if last:
                raise Killed
            return result

        monkeypatch.setattr(target, name, stepped)

    dies(archiving, "_check")
    dies(archiving, "_write")
    dies(archiving, "_give_name")
    dies(ledger, "append")
    dies(ledger.backend, "drop_payloads")
    dies(ledger.backend, "drop_bundles")


KILLED_WITHIN = """
import asyncio, os, signal, sys
from pathlib import Path
from ledger_desk import projections
from tightship.ledger import Ledger
from tightship.ledger.archiving import DRAFT, archive

left = int(sys.argv[4])

def told(stage, done, total):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    where = sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1])
    ledger = await Ledger.open(where, None, projections(), folder=Path(sys.argv[5]))
    try:
        await archive(ledger, Path(sys.argv[2]), float(sys.argv[3]), "ann", told)
    finally:
        await ledger.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_killed_at_any_time_nothing_is_lost_and_the_next_call_completes_it(kind: str, tmp_path: Path) -> None:
    store = Store(kind, tmp_path)
    ledger = await store.open()
    before, _ = await years(ledger)
    written = [entry.data for entry in await ledger.entries(limit=100_000)]
    await ledger.close()
    folder, step, ended = tmp_path / "old", 0, None
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    while ended != 0:
        step += 1
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED_WITHIN, str(store.where), str(folder), repr(before), str(step),
            str(tmp_path / "store"),
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        ended = await child.wait()
        assert ended in (0, -signal.SIGKILL)
        ledger = await store.open()
        archives = await named(ledger, folder)
        audit = await verify(ledger, archives=archives, integrate=False)
        assert audit.ok, (step, [str(one) for one in audit.findings])
        read = _reader(ledger, "default", archives)
        assert [*read(0, 256), *read(256, 256), *read(512, 200)] == written[:712]
        await ledger.close()
    assert step > 5


@pytest.mark.parametrize("name", ["values.jsonl", "default/tile/entries/000", "default/checkpoint", "manifest.json"])
async def test_a_changed_archive_is_found(ledger: Ledger, tmp_path: Path, name: str) -> None:
    before, _ = await years(ledger)
    await archive(ledger, tmp_path / "old", before, "ann")
    path = tmp_path / "old" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not (await verify(ledger, archives=[tmp_path / "old"])).ok


async def test_a_changed_snapshot_is_found(store: Store, ledger: Ledger, tmp_path: Path) -> None:
    before, _ = await years(ledger)
    await archive(ledger, tmp_path / "old", before, "ann")
    row = (await ledger.select("archives"))[0]
    mark = "?" if store.kind == "sqlite" else "%s"
    sql = f"DELETE FROM payloads WHERE address = {mark}"
    _execute(ledger, store, sql, bytes.fromhex(row["detail"]))
    assert not (await verify(ledger)).ok
    with pytest.raises((TamperError, StoreMissing)):
        await rebuild(ledger)


async def test_an_entry_that_stays_and_is_taken_away_is_missed(store: Store, ledger: Ledger, tmp_path: Path) -> None:
    before, _ = await years(ledger)
    await archive(ledger, tmp_path / "old", before, "ann")
    _execute(ledger, store, "DELETE FROM kept WHERE id = (SELECT max(id) FROM kept)")
    audit = await verify(ledger)
    assert any("it stays" in finding.message for finding in audit.findings)


def _execute(ledger: Ledger, store: Store, statement: str, *values: Any) -> None:
    backend: Any = ledger.backend
    if store.kind == "sqlite":
        backend._db.execute(statement, values)
    else:
        with backend._link.held() as db:
            db.execute(statement, values)
