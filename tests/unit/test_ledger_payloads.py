"""Payloads: stored once per scope, unreadable without its keys, gone with any of them, and never silently changed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import KINDS, SteppedClock, Store, note
from store_desk import ledger_of_store, store_of
from tightship.core.errors import (
    LedgerError,
    PayloadErased,
    PayloadTooLarge,
    StoreFull,
    StoreMissing,
    StoreReadOnly,
    TamperError,
)
from tightship.core.world import World
from tightship.ledger import Draft, Ledger
from tightship.ledger.backend import FILE_FROM
from tightship.ledger.entries import SealedPayload
from tightship.ledger.keyring import Keyring, KeyStore, plain_address
from tightship.ledger.vault import MAX_BYTES, Vault, encode, names_of

json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


store = store_of(*KINDS)
ledger = ledger_of_store()


def vault() -> Vault:
    return Vault(Keyring(KeyStore(), b"m" * 32, World()))


async def keep(ledger: Ledger, scope: str, value: Any) -> SealedPayload:
    """Seal a value and append it with an entry that names it."""
    payload = ledger.seal(scope, value)
    draft = note(out=payload.address)
    draft.payloads = (payload,)
    await ledger.append(draft)
    return payload


@given(json)
def test_what_is_sealed_opens_as_it_was(value: Any) -> None:
    opener = vault()
    for scope in ("", opener.new_scope("r-1"), opener.scope(["tenant:a", "subject:b"])):
        sealed = opener.seal(scope, encode(value))
        assert sealed.data is not None
        assert opener.open(sealed.address, scope, sealed.data) == encode(value)


@given(st.binary(min_size=1, max_size=600), st.integers(0, 10**6), st.integers(1, 255), st.sampled_from(["", "r-1"]))
def test_a_changed_byte_never_opens(data: bytes, at: int, mask: int, name: str) -> None:
    opener = vault()
    scope = opener.new_scope(name) if name else ""
    sealed = opener.seal(scope, data)
    assert sealed.data is not None
    changed = bytearray(sealed.data)
    changed[at % len(changed)] ^= mask
    try:
        opened = opener.open(sealed.address, scope, bytes(changed))
    except TamperError:
        return
    assert not scope, "a seal holds no spare bits"
    assert opened == data, "a public definition may be deflated in several ways; what it says is bound by its address"


async def test_equal_values_of_one_scope_are_stored_once(ledger: Ledger) -> None:
    scope = ledger.vault.new_scope("r-1")
    one, two = await keep(ledger, scope, {"b": 1, "a": [2]}), await keep(ledger, scope, {"a": [2], "b": 1})
    assert one.address == two.address
    assert (await ledger.values([one.address, two.address])) == {one.address: {"a": [2], "b": 1}}
    table = ledger.backend._read("SELECT count(*) FROM payloads") if hasattr(ledger.backend, "_read") else [(1,)]
    assert table == [(1,)]


def test_values_of_scopes_that_were_made_together_lie_together() -> None:
    """An index of random addresses has a page of its own for nearly every value that a commit writes."""
    keys, clock = KeyStore(), SteppedClock()
    made = Vault(Keyring(keys, b"m" * 32, World(clock=clock)))
    rounds: list[list[str]] = []
    for number in range(3):
        scopes = [made.new_scope(f"r-{number}-{n}") for n in range(20)]
        rounds.append([made.seal(scope, b"%d" % value).address for scope in scopes for value in range(20)])
        clock.time += 60
    assert max(rounds[0]) < min(rounds[1]) and max(rounds[1]) < min(rounds[2])
    made.keyring.flush()
    again = Vault(Keyring(keys, b"m" * 32, World(clock=clock)))
    assert again.address("r-0-0", b"7") == rounds[0][7], "the same, whoever asks and whenever"


async def test_equal_values_of_two_scopes_cannot_be_compared(ledger: Ledger) -> None:
    value = {"name": "Ada"}
    scopes = [ledger.vault.new_scope("r-1"), ledger.vault.new_scope("r-2"), ""]
    sealed = [await keep(ledger, scope, value) for scope in scopes]
    assert len({payload.address for payload in sealed}) == 3
    assert plain_address(encode(value)) not in {payload.address for payload in sealed[:2]}, "no guess can be tested"
    assert all(b"Ada" not in (payload.data or b"") for payload in sealed[:2])
    assert [await ledger.value(payload.address) for payload in sealed] == [value] * 3


async def test_a_value_is_there_after_the_store_was_closed(store: Store) -> None:
    ledger = await store.open()
    payload = await keep(ledger, ledger.vault.new_scope("r-1"), {"kept": True})
    await ledger.close()
    again = await store.open()
    assert await again.value(payload.address) == {"kept": True}
    scope = again.vault.scope(["r-1"])
    assert again.vault.address(scope, encode({"kept": True})) == payload.address


@pytest.mark.parametrize("names", [["tenant:a+b", "subject:1"], ["tenant:100%", "r-1"], ["tenant:%2B"], ["+"]])
def test_a_scope_names_its_keys_whatever_they_are_called(names: list[str]) -> None:
    opener = vault()
    scope = opener.scope(names)
    assert sorted(names_of(scope)) == sorted(names)
    other = opener.scope([*names, "x"])
    assert opener.seal(scope, b"1").address != opener.seal(other, b"1").address


async def test_opening_never_makes_a_key(ledger: Ledger) -> None:
    payload = await keep(ledger, ledger.vault.new_scope("r-1"), {"a": 1})
    assert payload.data is not None
    with pytest.raises(StoreMissing, match="no key 'r-2'"):
        ledger.vault.open(payload.address, "r-2", payload.data)
    with pytest.raises(StoreMissing):
        ledger.vault.open(payload.address, "r-2", payload.data)


async def test_destroying_any_one_key_erases_what_was_sealed_with_it(store: Store) -> None:
    ledger = await store.open()
    keyring = ledger.vault.keyring
    ann, ben = keyring.subject("acme", "ann@example.com"), keyring.subject("acme", "ben@example.com")
    both = await keep(ledger, ledger.vault.scope(["tenant:acme", ann, ben]), "about both")
    only = await keep(ledger, ledger.vault.scope(["tenant:acme", ben]), "about ben")
    assert await ledger.erase("acme", "ann@example.com", by="dpo") == ann
    for opened in (ledger, await store.open()):
        with pytest.raises(PayloadErased):
            await opened.value(both.address)
        assert await opened.values([both.address, only.address], erased="(erased)") == {
            both.address: "(erased)",
            only.address: "about ben",
        }
    [entry] = [entry for entry in await ledger.entries() if entry.kind == "erased"]
    assert entry.body == {"subject": ann, "by": "dpo"}
    assert "ann" not in ann, "the keystore does not list people"


async def test_who_comes_back_after_an_erasure_gets_a_new_key(ledger: Ledger) -> None:
    keyring = ledger.vault.keyring
    first = keyring.subject("acme", "ann")
    old = await keep(ledger, ledger.vault.scope([first]), "old")
    await ledger.erase("acme", "ann", by="dpo")
    second = keyring.subject("acme", "ann")
    new = await keep(ledger, ledger.vault.scope([second]), "new")
    assert await ledger.value(new.address) == "new"
    with pytest.raises(PayloadErased):
        await ledger.value(old.address)
    assert keyring.subject("acme", "ann") == second
    assert await ledger.erase("acme", "ann", by="dpo") == second
    with pytest.raises(PayloadErased):
        await ledger.value(new.address)


async def test_an_erasure_by_another_process_reaches_our_memory(store: Store) -> None:
    ours, theirs = await store.open(), await store.open()
    name = ours.vault.keyring.subject("acme", "ann")
    payload = await keep(ours, ours.vault.scope([name]), "hers")
    assert await theirs.erase("acme", "ann", by="dpo") == name
    await ours.poll()
    with pytest.raises(PayloadErased):
        await ours.value(payload.address)


async def test_an_erasure_holds_when_the_keys_come_back_from_a_backup(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    scope = ledger.vault.scope([ledger.vault.keyring.subject("acme", "ann")])
    payload = await keep(ledger, scope, "hers")
    await ledger.close()
    keys = tmp_path / "store" / "keys" / "keys.db"
    backup = keys.read_bytes()
    ledger = await store.open()
    await ledger.erase("acme", "ann", by="dpo")
    await ledger.close()
    keys.write_bytes(backup)
    ledger = await store.open()
    assert await ledger.value(payload.address) == "hers"
    assert await ledger.reapply_erasures() == 1
    with pytest.raises(PayloadErased):
        await ledger.value(payload.address)
    assert await ledger.reapply_erasures() == 1, "once more does no harm"
    await store.close()


async def test_nothing_of_a_destroyed_key_stays_in_the_file(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    name = ledger.vault.keyring.subject("acme", "ann")
    await keep(ledger, ledger.vault.scope([name]), "hers")
    row = ledger.vault.keyring.store.get(name)
    assert row is not None
    file = tmp_path / "store" / "keys" / "keys.db"
    assert row.wrapped in file.read_bytes()
    await ledger.erase("acme", "ann", by="dpo")
    assert row.wrapped not in file.read_bytes()
    await store.close()


async def test_a_payload_that_is_not_there_is_named(ledger: Ledger) -> None:
    address = "ab" * 32
    with pytest.raises(StoreMissing, match=address):
        await ledger.value(address)
    assert await ledger.read_sealed([address]) == {}


async def test_a_value_over_the_limit_is_refused_with_the_way_out(ledger: Ledger) -> None:
    scope = ledger.vault.new_scope("r-1")
    with pytest.raises(PayloadTooLarge, match="reference"):
        ledger.seal(scope, "x" * MAX_BYTES)
    payload = await keep(ledger, scope, "x" * (MAX_BYTES - 2))
    assert len(await ledger.value(payload.address)) == MAX_BYTES - 2


def test_what_claims_to_be_larger_than_any_value_is_not_expanded() -> None:
    import zlib

    bomb = b"\x01" + zlib.compress(b"0" * (MAX_BYTES * 4), 9, wbits=-15)
    with pytest.raises(TamperError, match="does not decompress to its size"):
        vault().open("ab" * 32, "", bomb)


# --- definitions -------------------------------------------------------------------------------------


async def test_a_definition_is_made_and_stored_once(ledger: Ledger) -> None:
    calls: list[int] = []

    def value() -> dict[str, int]:
        calls.append(1)
        return {"steps": 3}

    address, payloads = ledger.define({"steps": 3})
    assert address == plain_address(encode({"steps": 3}))
    assert ledger.define_once(address, value) == payloads
    draft = note(definition=address)
    draft.payloads = payloads
    await ledger.append(draft)
    ledger.defined(address)
    assert ledger.define_once(address, value) == ()
    assert ledger.define({"steps": 3}) == (address, ())
    assert calls == [1]
    assert await ledger.value(address) == {"steps": 3}


async def test_a_definition_has_the_address_of_its_bytes(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="has the address"):
        ledger.define_once("ab" * 32, lambda: {"steps": 3})


# --- large payloads ----------------------------------------------------------------------------------


def large() -> str:
    return os.urandom(FILE_FROM).hex()


async def test_large_payloads_lie_in_files_and_read_the_same(store: Store) -> None:
    ledger = await store.open()
    scope = ledger.vault.new_scope("r-1")
    value = large()
    payload = await keep(ledger, scope, value)
    small = await keep(ledger, scope, "small")
    [(_, stored)] = [row for address, row in (ledger.backend.payloads([payload.address])).items()]
    if store.kind == "postgres":  # values of any size lie in the table: every machine has to reach them
        assert stored == payload.data
    else:
        assert stored is None
        assert ledger.disk.read(payload.address) == payload.data
        assert ledger.disk.read(small.address) is None
    assert await ledger.value(payload.address) == value
    await ledger.close()
    assert await (await store.open()).value(payload.address) == value


async def test_a_crash_between_file_and_entry_leaves_a_store_that_is_whole(tmp_path: Path) -> None:
    from tightship.ledger.audit import verify

    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    payload = ledger.seal(ledger.vault.new_scope("r-1"), large())
    ledger.vault.keyring.flush()
    assert payload.data is not None
    ledger.disk.write(payload.address, payload.data)  # and the process dies before the entry
    await ledger.close()
    ledger = await store.open()
    path = tmp_path / "store" / "payloads" / payload.address[:2] / payload.address[2:]
    os.utime(path, (1, 1))
    report = await verify(ledger)
    assert report.ok
    assert [(found.severity, found.file) for found in report.findings] == [
        ("note", f"payloads/{payload.address[:2]}/{payload.address[2:]}")
    ]
    draft = note(out=payload.address)
    draft.payloads = (payload,)
    await ledger.append(draft)
    assert len(await ledger.value(payload.address)) == 2 * FILE_FROM
    assert (await verify(ledger)).findings == []
    await store.close()


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    payload = await keep(ledger, ledger.vault.new_scope("r-1"), large())
    (tmp_path / "store" / "payloads" / payload.address[:2] / payload.address[2:]).unlink()
    with pytest.raises(StoreMissing, match=payload.address):
        await ledger.value(payload.address)
    await store.close()


class NoDisk:
    """A disk that refuses to write."""

    def __init__(self, code: int) -> None:
        self.code = code

    def write(self, name: str, data: bytes) -> None:
        raise OSError(self.code, os.strerror(self.code))

    def read(self, name: str) -> bytes | None:
        return None


@pytest.mark.parametrize("store", ["sqlite", "memory"], indirect=True)
@pytest.mark.parametrize(("code", "error"), [("ENOSPC", StoreFull), ("EROFS", StoreReadOnly)])
async def test_a_file_that_cannot_be_written_refuses_its_unit_alone(
    ledger: Ledger, code: str, error: type[Exception]
) -> None:
    import asyncio
    import errno

    ledger.disk = NoDisk(getattr(errno, code))
    scope = ledger.vault.new_scope("r-1")
    payload = ledger.seal(scope, large())
    outcomes = await asyncio.gather(
        ledger.append(note(n=1)),
        ledger.append(Draft("", "note", "", {"out": payload.address}, 0, (payload,))),
        ledger.append(note(n=2)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], error)
    assert [entry.body["n"] for entry in await ledger.entries()] == [1, 2]


# --- keyed hashes ------------------------------------------------------------------------------------


async def test_claims_are_hashed_with_the_tenants_key(store: Store) -> None:
    ledger = await store.open()
    mac = ledger.mac("acme", "claim", b"refund O-1")
    assert mac == ledger.mac("acme", "claim", b"refund O-1")
    assert len({mac, ledger.mac("acme", "cache", b"refund O-1"), ledger.mac("other", "claim", b"refund O-1")}) == 3
    await ledger.append(note())
    await ledger.close()
    assert (await store.open()).mac("acme", "claim", b"refund O-1") == mac
