"""Disks that are full, read-only, missing or damaged: an error that names the file and the way out, nothing lost."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import Store, dump, flip, note, projections, run_script
from store_desk import store_of
from tightship.core.errors import StoreCorrupt, StoreFull, StoreMissing, StoreReadOnly, StoreVersionError
from tightship.core.world import FolderDisk, World
from tightship.ledger import Draft, Ledger
from tightship.ledger._open import open_files
from tightship.ledger.audit import verify, verify_folder

store = store_of("sqlite")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user of the machine can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o700)
    shutil.rmtree(folder)


# --- full ------------------------------------------------------------------------------------------------


async def limit_pages(ledger: Ledger, more: int | None) -> None:
    """Let the database grow by so many pages: SQLite answers as on a full disk beyond (None: without limit)."""

    def change() -> None:
        db = ledger.backend._db  # type: ignore[union-attr]
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={2**30 if more is None else pages + more}").fetchone()

    await ledger.job(change)


async def test_a_full_disk_refuses_the_batch_and_loses_nothing(store: Store) -> None:
    ledger = await store.open()
    await ledger.append(note(n=0))
    await limit_pages(ledger, 3)
    scope = ledger.vault.new_scope("r-1")
    payload = ledger.seal(scope, {"kept": "later"})
    draft = note(text="x" * 30_000, out=payload.address)
    draft.payloads = (payload,)
    waiting = [ledger.append(note(n=1)), ledger.append(draft), ledger.append(note(n=2))]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreFull] * 3
    message = str(outcomes[0])
    assert str(store.folder / "store" / "ledger.db") in message
    assert "free space" in message
    assert await ledger.head() == 1
    await limit_pages(ledger, None)
    await ledger.append(draft)
    assert await ledger.value(payload.address) == {"kept": "later"}
    assert (await verify(ledger)).ok
    await store.close()
    assert await (await store.open()).head() == 2


async def test_a_disk_that_refuses_every_further_write_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """The operating system itself refuses: no file may grow beyond a limit (SIGXFSZ is ignored by Python)."""
    text = (
        "import resource\n"
        "async def main():\n"
        "    ledger = await Ledger.open(STORE, None, projections())\n"
        "    await ledger.append(note(n=-1))\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))\n"
        "    done = 0\n"
        "    try:\n"
        "        while True:\n"
        "            await ledger.append(note(n=done, text='x' * 3000))\n"
        "            done += 1\n"
        "    except Exception as error:\n"
        "        print(done, type(error).__name__, flush=True)\n"
        "    try:\n"
        "        await ledger.close()\n"
        "    except Exception as error:\n"
        "        print('close', type(error).__name__)\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(run_script, tmp_path / "store", text)
    assert done.returncode == 0, done.stderr
    count, error = done.stdout.split()[:2]
    assert error == "StoreFull"
    assert int(count) > 10
    ledger = await Ledger.open(tmp_path / "store")
    assert await ledger.head() == int(count) + 1
    assert (await verify(ledger)).ok
    await ledger.close()


# --- read-only -------------------------------------------------------------------------------------------

AS_SOMEBODY = """\
async def work(path):
    ledger = await Ledger.open(path, None, projections())
    await ledger.append(note())
    payload = ledger.seal(ledger.vault.new_scope("r-1"), "x" * 100)
    await ledger.append(Draft("", "note", "", {"out": payload.address}, 0, (payload,)))
    await ledger.close()

asyncio.run(work(STORE.parent / "another"))  # all that is loaded late is loaded now, while everything can be read
if os.geteuid() == 0:  # nothing is read-only to root
    os.setegid(65534)
    os.seteuid(65534)
try:
    asyncio.run(work(STORE))
    print("done")
except Exception as error:
    print(type(error).__name__, error)
"""


def give_away(folder: Path, folders: int, files: int) -> None:
    """Make the store another user's, with these permissions."""
    for path in [*folder.rglob("*"), folder]:
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        path.chmod(folders if path.is_dir() else files)


async def test_a_read_only_store_says_so(open_folder: Path) -> None:
    ledger = await Ledger.open(open_folder / "store")
    await ledger.append(note())
    await ledger.close()
    give_away(open_folder / "store", 0o500, 0o400)
    done = await asyncio.to_thread(run_script, open_folder / "store", AS_SOMEBODY)
    assert done.stdout.startswith("StoreReadOnly"), done.stdout + done.stderr
    assert str(open_folder / "store") in done.stdout
    assert "writable" in done.stdout


async def test_a_store_in_a_folder_where_nothing_can_be_made_says_so(open_folder: Path) -> None:
    (open_folder / "closed").mkdir(mode=0o555)
    give_away(open_folder / "closed", 0o555, 0o400)
    done = await asyncio.to_thread(
        run_script, open_folder / "closed" / "store", AS_SOMEBODY.replace("STORE.parent", "STORE.parent.parent")
    )
    assert done.stdout.startswith("StoreReadOnly"), done.stdout + done.stderr
    assert "choose another in tightship.yaml" in done.stdout


async def test_a_file_in_the_place_of_the_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    with pytest.raises(StoreReadOnly, match="cannot be made"):
        await Ledger.open(tmp_path / "store")


def only_reading(folder: Path) -> Ledger:
    backend, keyring = open_files(folder, World(), create=False, read_only=True)
    return Ledger(backend, keyring, FolderDisk(folder / "payloads"), World(), projections(), True, folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("crashed", [False, True])
async def test_a_reader_changes_nothing_and_sees_all_that_was_committed(tmp_path: Path, crashed: bool) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    ledger = await Ledger.open(store, None, projections())
    payload = ledger.seal(ledger.vault.new_scope("r-1"), "a value")
    await ledger.append(Draft("", "note", "", {"out": payload.address}, 0, (payload,)))
    if crashed:
        shutil.copytree(store, copy)  # as a killed process leaves it: the entry is in the write-ahead log alone
        await ledger.close()
    else:
        await ledger.close()
        shutil.copytree(store, copy)
    before = contents(copy)
    assert any(name.endswith("-wal") for name in before) == crashed
    reader = only_reading(copy)
    assert (await reader.head(), await reader.value(payload.address)) == (1, "a value")
    assert (await verify(reader)).ok
    with pytest.raises(StoreReadOnly):
        await reader.append(note())
    await reader.close()
    assert contents(copy) == before


async def test_a_log_that_cannot_be_taken_over_where_nothing_may_be_written_says_so(tmp_path: Path) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    ledger = await Ledger.open(store, None, projections())
    await ledger.append(note())
    shutil.copytree(store, copy)
    await ledger.close()
    (copy / "ledger.db-shm").unlink()
    before = contents(copy)
    with pytest.raises(StoreReadOnly, match="write-ahead log") as refused:
        only_reading(copy)
    assert "copy its folder" in str(refused.value.fix)
    assert contents(copy) == before


# --- missing ---------------------------------------------------------------------------------------------


async def test_a_missing_store_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="tightship init"):
        await Ledger.open(tmp_path / "store", create=False)
    assert not (tmp_path / "store").exists()


async def test_a_folder_without_a_database_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(StoreMissing):
        await Ledger.open(tmp_path / "store", create=False)
    assert list((tmp_path / "store").iterdir()) == [], "nothing is made in a folder that is somebody else's"


# --- damaged, or another's -------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"", b"this is no database" * 900, b"SQLite format 3\x00" + b"\xff" * 9000])
async def test_a_database_that_is_none_is_damaged(store: Store, garbage: bytes) -> None:
    ledger = await store.open()
    payload = ledger.seal(ledger.vault.new_scope("r-1"), "x")
    await ledger.append(Draft("", "note", "", {"out": payload.address}, 0, (payload,)))
    await store.close()
    path = store.folder / "store" / "ledger.db"
    path.write_bytes(garbage)
    with pytest.raises((StoreCorrupt, StoreMissing)) as refused:
        await store.open()
    assert refused.value.where == str(path)
    assert refused.value.fix
    assert path.read_bytes() == garbage, "it is left as it was"


async def test_half_a_database_is_damaged(store: Store) -> None:
    ledger = await store.open()
    await asyncio.gather(*(ledger.append(note(text="x" * 500)) for _ in range(400)))
    await store.close()
    path = store.folder / "store" / "ledger.db"
    path.write_bytes(path.read_bytes()[: 40 * 4096])
    with pytest.raises(StoreCorrupt):
        await store.open()


@pytest.mark.parametrize("at", [0, 16, 20, 24, 59, 60, 3000])
async def test_what_keeps_a_store_from_opening_is_what_the_audit_finds(store: Store, at: int) -> None:
    ledger = await store.open()
    await asyncio.gather(*(ledger.append(note(text="x" * 500)) for _ in range(400)))
    await store.close()
    folder = store.folder / "store"
    whole, before = (folder / "ledger.db").read_bytes(), dump(folder / "ledger.db")
    flip(folder / "ledger.db", at, 0xFF)
    report = await verify_folder(folder, projections(), integrate=False)
    assert report.findings or (at in (24, 3000) and dump(folder / "ledger.db") == before)
    assert all(found.file == "ledger.db" for found in report.findings)
    (folder / "ledger.db").write_bytes(whole)
    assert (await verify_folder(folder, projections(), integrate=False)).ok
    with pytest.raises(StoreMissing):
        await verify_folder(folder / "nothing", projections())


async def test_a_store_of_a_newer_version_is_left_alone(store: Store) -> None:
    await (await store.open()).append(note())
    await store.close()
    path = store.folder / "store" / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(StoreVersionError, match="schema 99") as refused:
        await store.open()
    assert "newer tightship" in str(refused.value)


async def test_somebody_elses_database_is_left_alone(store: Store) -> None:
    folder = store.folder / "store"
    (folder / "keys").mkdir(parents=True)
    await (await store.open()).close()
    path = folder / "ledger.db"
    path.unlink()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE customers (name TEXT)")
    with pytest.raises(StoreCorrupt, match="schema 0, but there are 1 tables"):
        await store.open()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("customers",)]


async def test_a_store_that_is_another_users_is_named_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await (await Ledger.open(tmp_path)).close()
    exists = Path.exists

    def refused(path: Path) -> bool:
        if path.parent.name == "keys":  # only the owner may look into this folder
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(StoreReadOnly, match="may not look into the store") as caught:
        await Ledger.open(tmp_path)
    assert tmp_path.owner() in (caught.value.fix or "")
