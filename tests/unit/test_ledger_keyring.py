"""Keys: made by one process or another, durable before anything sealed with them, never readable by others."""

from __future__ import annotations

import base64
import hmac
import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import Store, note
from tightship.core.errors import (
    PayloadErased,
    StoreCorrupt,
    StoreError,
    StoreMissing,
    StoreVersionError,
    TamperError,
)
from tightship.core.world import World
from tightship.ledger import Ledger
from tightship.ledger._hmac import hmac_sha256
from tightship.ledger.keyring import FileKeyStore, Keyring, KeyStore, WrappedKey
from tightship.ledger.master_key import MASTER_VARIABLE, load_master
from tightship.ledger.vault import Vault


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    made = KeyStore() if request.param == "memory" else FileKeyStore(tmp_path / "keys.db")
    request.addfinalizer(made.close)
    return made


def ring(store: KeyStore, master: bytes = b"m" * 32) -> Keyring:
    return Keyring(store, master, World())


def test_a_key_is_the_same_for_whoever_opens_the_store_later(store: KeyStore) -> None:
    first = ring(store)
    key = first.key("tenant:a", create=True)
    assert len(key) == 32
    assert first.key("tenant:a") == key
    first.flush()
    assert ring(store).key("tenant:a") == key
    assert ring(store).key("tenant:b", create=True) != key


def test_keys_are_wrapped_by_the_master_key(store: KeyStore) -> None:
    first = ring(store)
    key = first.key("r-1", create=True)
    first.flush()
    row = store.get("r-1")
    assert row is not None
    assert key not in row.wrapped
    with pytest.raises(TamperError, match="another master key"):
        ring(store, b"n" * 32).key("r-1")


def test_a_key_that_is_not_there_is_not_made_unasked(store: KeyStore) -> None:
    with pytest.raises(StoreMissing):
        ring(store).key("r-1")
    assert store.page("", 10) == []


def test_a_destroyed_key_never_comes_back(store: KeyStore) -> None:
    first = ring(store)
    first.key("subject:1", create=True)
    first.destroy("subject:1")
    for opened in (first, ring(store)):
        with pytest.raises(PayloadErased):
            opened.key("subject:1", create=True)
    first.destroy("subject:2")
    with pytest.raises(PayloadErased):
        first.key("subject:2", create=True)


def test_a_key_that_is_destroyed_before_it_was_stored_is_gone(store: KeyStore) -> None:
    first = ring(store)
    first.key("subject:1", create=True)
    first.destroy("subject:1")
    first.flush()
    with pytest.raises(PayloadErased):
        first.key("subject:1")


def test_of_two_processes_that_make_a_key_at_once_the_first_ones_stands(store: KeyStore) -> None:
    ours, theirs = ring(store), ring(store)
    lost = ours.key("tenant:a", create=True)
    kept = theirs.key("tenant:a", create=True)
    assert theirs.flush() == []
    assert ours.flush() == ["tenant:a"]
    assert ours.key("tenant:a") == kept != lost
    assert ours.conflicts == {"tenant:a"}


async def test_nothing_is_stored_that_was_sealed_with_a_key_that_lost(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ours, theirs = await store.open(), await store.open()
    scopes = [ledger.vault.scope(["tenant:a"]) for ledger in (ours, theirs)]
    mine, too_late, other = ours.seal(scopes[0], "mine"), ours.seal(scopes[0], "late"), theirs.seal(scopes[1], "theirs")

    def draft(ledger: Ledger, payload: object) -> object:
        made = note(out=payload.address)  # type: ignore[attr-defined]
        made.payloads = (payload,)  # type: ignore[assignment]
        return ledger.append(made)

    await draft(theirs, other)  # type: ignore[misc]
    with pytest.raises(StoreError, match="at the same moment"):
        await draft(ours, mine)  # type: ignore[misc]
    with pytest.raises(StoreError, match="at the same moment"):
        await draft(ours, too_late)  # type: ignore[misc]
    again = ours.seal(scopes[0], "mine")
    await draft(ours, again)  # type: ignore[misc]
    assert await theirs.value(again.address) == "mine"
    assert await ours.value(other.address) == "theirs"
    await store.close()


def test_no_key_is_lost_between_the_thread_that_makes_it_and_the_one_that_stores_it(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys.db")
    made = ring(store)
    done = threading.Event()

    def flushing() -> None:
        while not done.is_set():
            made.flush()

    thread = threading.Thread(target=flushing)
    thread.start()
    keys = {f"r-{n:05d}": made.create(f"r-{n:05d}").secret for n in range(3000)}
    done.set()
    thread.join()
    made.flush()
    fresh = ring(store)
    assert {name: fresh.key(name) for name in keys} == keys
    store.close()


def test_a_look_up_waits_for_no_key_that_is_being_stored(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys.db")
    made = ring(store)
    kept = made.key("r-1", create=True)
    made.flush()
    inside, go_on = threading.Event(), threading.Event()

    class Slow(list[WrappedKey]):
        """Rows of which the last one takes its time, while the transaction is open."""

        def __iter__(self) -> Iterator[WrappedKey]:
            yield from super().__iter__()
            inside.set()
            go_on.wait()

    thread = threading.Thread(target=store.put, args=(Slow([WrappedKey("r-2", b"w", 1.0)]),))
    thread.start()
    inside.wait()
    assert ring(store).key("r-1") == kept
    assert store.get("r-2") is None
    go_on.set()
    thread.join()
    assert store.get("r-2") == WrappedKey("r-2", b"w", 1.0)
    store.close()


def test_a_key_that_is_not_stored_yet_is_never_dropped_from_memory(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keyring, "_CACHE", 8)
    made = ring(store)
    keys: dict[str, bytes] = {}
    for number in range(100):
        keys[f"r-{number}"] = made.create(f"r-{number}").secret
        if number == 50:
            made.flush()
    assert {name: made.key(name) for name in keys} == keys
    made.flush()
    made.key("r-0")
    made.create("r-new")
    assert len(made._keys) <= 110


def test_a_store_that_refuses_keeps_the_keys_waiting(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ring(store)
    key = made.create("r-1").secret
    with monkeypatch.context() as broken:
        broken.setattr(type(store), "put", lambda *_: (_ for _ in ()).throw(StoreError("no")))
        with pytest.raises(StoreError):
            made.flush()
    made.flush()
    assert ring(store).key("r-1") == key


# --- the files -----------------------------------------------------------------------------------------


def test_nobody_else_can_read_the_keys(tmp_path: Path) -> None:
    load_master(tmp_path / "master.key")
    FileKeyStore(tmp_path / "keys.db").close()
    for name in ("master.key", "keys.db"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


async def test_the_folder_of_the_keys_is_the_owners_alone(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    await store.open()
    assert stat.S_IMODE((tmp_path / "store" / "keys").stat().st_mode) == 0o700
    await store.close()


def test_a_master_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    load_master(path)
    path.chmod(0o640)
    with pytest.raises(StoreError, match=f"chmod 600 {path}"):
        load_master(path)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_master_key_of_another_length_is_damaged(tmp_path: Path, length: int) -> None:
    path = tmp_path / "master.key"
    load_master(path)
    path.write_bytes(b"k" * length)
    with pytest.raises(StoreCorrupt, match="backup"):
        load_master(path)


def test_the_master_key_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = os.urandom(32)
    monkeypatch.setenv(MASTER_VARIABLE, base64.b64encode(key).decode())
    assert load_master(tmp_path / "master.key") == key
    assert not (tmp_path / "master.key").exists(), "it is not written to the disk"


@pytest.mark.parametrize("text", ["short", base64.b64encode(b"k" * 31).decode(), "ä" * 44])
def test_a_master_key_in_the_environment_has_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(MASTER_VARIABLE, text)
    with pytest.raises(StoreError, match="32 bytes in base 64") as refused:
        load_master(tmp_path / "master.key")
    assert text not in str(refused.value), "no secret in a message"


async def test_a_lost_master_key_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    await (await store.open()).append(note())
    await store.close()
    (tmp_path / "store" / "keys" / "master.key").unlink()
    with pytest.raises(StoreMissing, match=MASTER_VARIABLE):
        await store.open()


async def test_a_lost_keystore_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    await (await store.open()).append(note())
    await store.close()
    (tmp_path / "store" / "keys" / "keys.db").unlink()
    with pytest.raises(StoreMissing, match="keystore"):
        await store.open()
    assert not (tmp_path / "store" / "keys" / "keys.db").exists()


def test_a_keystore_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    FileKeyStore(tmp_path / "keys.db").close()
    with closing(sqlite3.connect(tmp_path / "keys.db")) as db:
        db.execute("PRAGMA user_version=9")
    with pytest.raises(StoreVersionError, match="schema 9"):
        FileKeyStore(tmp_path / "keys.db")


def test_a_keystore_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_bytes(b"not a database" * 500)
    with pytest.raises(StoreCorrupt):
        FileKeyStore(tmp_path / "keys.db")


class SlowRows(list[WrappedKey]):
    """Rows that are being stored for as long as the test wants."""

    def __init__(self, rows: list[WrappedKey]) -> None:
        super().__init__(rows)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[WrappedKey]:
        self.begun.set()
        self.go_on.wait()
        return super().__iter__()


def test_a_look_up_waits_for_no_flush(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys.db")
    known = WrappedKey("subject:1", b"w" * 60, 1.0)
    store.put([known])
    rows = SlowRows([WrappedKey("subject:2", b"v" * 60, 1.0)])
    flush = threading.Thread(target=store.put, args=(rows,))
    flush.start()
    rows.begun.wait()
    found: list[WrappedKey | None] = []
    look = threading.Thread(target=lambda: found.extend([store.get("subject:1"), store.get("subject:2")]))
    look.start()
    look.join(timeout=20)
    waited = look.is_alive()
    rows.go_on.set()
    flush.join()
    look.join()
    assert not waited
    assert found == [known, None]
    assert store.get("subject:2") is not None
    store.close()


def test_a_conflict_that_another_key_s_destruction_has_met_is_told_by_the_next_flush(store: KeyStore) -> None:
    ours, theirs = ring(store), ring(store)
    ours.key("subject:1", create=True)
    theirs.key("subject:1", create=True)
    theirs.flush()
    ours.destroy("subject:2")
    assert ours.flush() == ["subject:1"]
    assert ours.flush() == []


class HalfWay(KeyStore):
    """A keystore whose disk answers only after the rows are stored, with an error."""

    fails = 1

    def put(self, rows: Sequence[WrappedKey]) -> list[str]:
        taken = super().put(rows)
        if self.fails:
            self.fails -= 1
            raise StoreError("the disk refused a write")
        return taken


def test_a_conflict_is_told_although_the_flush_that_found_it_failed() -> None:
    store = HalfWay()
    ours, theirs = ring(store), ring(store)
    ours.key("subject:1", create=True)
    kept = ours.key("subject:2", create=True)
    KeyStore.put(store, [WrappedKey("subject:1", b"t" * 60, 1.0)])
    with pytest.raises(StoreError):
        ours.flush()
    assert ours.flush() == ["subject:1"]
    assert ours.conflicts == {"subject:1"}
    assert theirs.key("subject:2") == kept


# --- tombstones --------------------------------------------------------------------------------------


class Overtaken(KeyStore):
    """A keystore in which something happens between reading a row and handing it over."""

    meanwhile: Callable[[], None] | None = None

    def get(self, name: str) -> WrappedKey | None:
        row = super().get(name)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return row


@pytest.mark.parametrize("through", ["the keyring", "a reader of it"])
@pytest.mark.parametrize("by", ["forget", "destroy"])
def test_a_key_that_is_erased_while_it_is_looked_up_is_not_used_again(by: str, through: str) -> None:
    """`forget` is what hearing of another process's erasure does, before that process has destroyed the row."""
    store = Overtaken()
    ring(store).key("subject:1", create=True)
    first = ring(store)
    first.key("subject:1", create=True)
    first.flush()
    later = ring(store)
    used = later if through == "the keyring" else later.reader()
    store.meanwhile = lambda: getattr(later, by)("subject:1")
    for _ in range(2):  # the look-up that was overtaken, and every one after it
        with pytest.raises(PayloadErased):
            used.look_up("subject:1")
        with pytest.raises(PayloadErased):
            used.look_up("subject:1", create=True)


def test_what_was_derived_from_a_key_is_not_used_once_it_was_erased() -> None:
    store = Overtaken()
    first = ring(store)
    first.key("subject:1", create=True)
    first.flush()
    keyring = ring(store)
    vault, reading = Vault(keyring), Vault(keyring.reader())
    sealed = vault.seal("subject:1", b"flat 7")
    assert reading.open(sealed.address, sealed.scope, sealed.data or b"") == b"flat 7"
    keyring.forget("subject:1")
    for one in (vault, reading):
        with pytest.raises(PayloadErased):
            one.open(sealed.address, sealed.scope, sealed.data or b"")
        with pytest.raises(PayloadErased):
            one.seal("subject:1", b"flat 7")


def test_keys_that_are_derived_while_one_is_erased_are_not_kept() -> None:
    store = Overtaken()
    first = ring(store)
    for name in ("subject:1", "tenant:a"):
        first.key(name, create=True)
    first.flush()
    keyring = ring(store)
    keyring.key("subject:1")
    vault = Vault(keyring)
    store.meanwhile = lambda: keyring.forget("subject:1")  # while the scope's second key is looked up
    for _ in range(2):
        with pytest.raises(PayloadErased):
            vault.keys("subject:1+tenant:a")


def test_a_person_who_comes_back_while_the_key_is_being_destroyed_gets_another_one(store: KeyStore) -> None:
    first, other = ring(store), ring(store)
    name = first.subject("default", "ada")
    first.key(name, create=True)
    first.flush()
    other.key("tenant:default")
    other.forget(name)  # it has heard of the erasure; the row is still there
    assert store.get(name) is not None
    assert other.subject("default", "ada") == f"{name}.2"


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_the_short_hmac_is_the_librarys(key: bytes, data: bytes) -> None:
    assert hmac_sha256(key, data) == hmac.digest(key, data, "sha256")
