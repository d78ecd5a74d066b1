"""The Postgres store on a real server: who may open it, and what many processes append at once."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres_desk
from ledger_desk import Store, begin, fill, note, projections, script, until
from postgres_desk import Server
from store_desk import store_of
from tightship.core.errors import (
    LedgerError,
    StoreError,
    StoreLost,
    StoreMissing,
    StoreReadOnly,
    StoreVersionError,
    TightshipError,
)
from tightship.core.world import SystemClock, World
from tightship.ledger import Ledger, _pg
from tightship.ledger._pg import Address
from tightship.ledger._pg_schema import MIGRATIONS
from tightship.ledger._schema import schema
from tightship.ledger.audit import rebuild, verify
from tightship.ledger.keyring import WrappedKey
from tightship.ledger.pg_keys import PostgresKeyStore


@pytest.fixture
def server() -> Server:
    return postgres_desk.server()


store = store_of("postgres")


def url_of(store: Store) -> str:
    assert isinstance(store.where, str)
    return store.where


def name_of(store: Store) -> str:
    return Address.of(url_of(store)).schema


# --- opening -----------------------------------------------------------------------------------------


async def test_many_processes_that_open_a_new_store_at_once_make_it_once(store: Store, server: Server) -> None:
    ledgers = await asyncio.gather(*(store.open() for _ in range(6)))
    assert len({ledger.backend.id for ledger in ledgers}) == 1  # type: ignore[attr-defined]
    with server.connect() as db:
        applied = db.execute(f"SELECT name FROM {name_of(store)}.migrations ORDER BY version").fetchall()
    assert [row[0] for row in applied] == list(MIGRATIONS)


async def test_both_databases_have_the_same_tables_column_for_column(store: Store, server: Server) -> None:
    await store.open()
    with server.connect() as db:
        rows = db.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = %s"
            " ORDER BY ordinal_position",
            (name_of(store),),
        ).fetchall()
    there: dict[str, list[str]] = {}
    for table, column in rows:
        there.setdefault(table, []).append(column)
    own = {"store", "migrations", "public_keys", "workers", "rate_levels"}
    assert there.keys() - own == schema().keys()
    for table, made in schema().items():
        assert [column for column in there[table] if (table, column) != ("entries", "kind")] == list(made.defaults)


async def test_a_store_that_a_newer_version_wrote_is_not_touched(store: Store, server: Server) -> None:
    await (await store.open()).close()
    with server.connect() as db:
        db.execute(f"INSERT INTO {name_of(store)}.migrations (version, name) VALUES (99, '0099_later')")
    with pytest.raises(StoreVersionError, match="0099_later"):
        await store.open()


async def test_a_schema_that_is_something_elses_is_refused(store: Store, server: Server) -> None:
    with server.connect() as db:
        db.execute(f"CREATE SCHEMA {name_of(store)}")
        db.execute(f"CREATE TABLE {name_of(store)}.migrations (version integer, name text)")
        db.execute(f"INSERT INTO {name_of(store)}.migrations VALUES (1, 'users')")
    with pytest.raises(StoreVersionError, match="not by this program"):
        await store.open()


async def test_a_second_workspace_on_the_same_schema_is_refused(store: Store, tmp_path: Path) -> None:
    async def open_as(name: str, folder: str) -> Ledger:
        return await Ledger.open(store.where, None, projections(), folder=tmp_path / folder, name=name)

    first = await open_as("desk", "a")
    await first.close()
    again = await open_as("desk", "a")
    await again.close()
    with pytest.raises(StoreError, match="workspace 'desk', not of 'shop'"):
        await open_as("shop", "a")
    (tmp_path / "b" / "keys").mkdir(parents=True)
    (tmp_path / "b" / "keys" / "master.key").write_bytes(b"k" * 32)
    (tmp_path / "b" / "keys" / "master.key").chmod(0o600)
    with pytest.raises(StoreError, match="another master key"):
        await open_as("desk", "b")


async def test_a_store_that_is_not_there_is_not_made_by_who_only_looks(store: Store, server: Server) -> None:
    with pytest.raises(StoreMissing):
        await Ledger.open(store.where, create=False, folder=store.folder)
    with server.connect() as db:
        found = db.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE %s", (f"{name_of(store)}%",))
        assert found.fetchone() == (0,)


@pytest.fixture
def role(server: Server) -> Iterator[str]:
    """A user whose password the server asks for."""
    with server.connect() as db:
        db.execute("CREATE ROLE clerk LOGIN SUPERUSER PASSWORD 'right'")
        rules = server.folder / "pg_hba.conf"
        before = rules.read_text()
        rules.write_text("local all clerk scram-sha-256\n" + before)
        db.execute("SELECT pg_reload_conf()")
        yield "clerk"
        rules.write_text(before)
        db.execute("SELECT pg_reload_conf()")
        db.execute("DROP ROLE clerk")


async def test_errors_of_connecting_say_what_is_wrong_and_never_the_password(
    store: Store, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = url_of(store).replace("postgres:@", f"{role}:s3cret@")
    socket = url.partition("host=")[2].partition("&")[0]
    cases: list[tuple[str, type[TightshipError], str]] = [
        (url, StoreError, "user and password"),
        (url.replace("s3cret@/postgres", "right@/nowhere"), StoreMissing, "no such database"),
        (url.replace(role, "nobody"), StoreError, "does not let this user in"),
        (url.replace(socket, f"{socket}/none"), StoreLost, "cannot be reached"),
        ("postgresql://ts:s3cret@127.0.0.1:1/db", StoreLost, "cannot be reached"),
        ("postgresql://ts:s3cret%zz@127.0.0.1/db", StoreError, "cannot be read"),
        ("postgresql://ts:s3cret@127.0.0.1/db?schema=Bad;--", StoreError, "name of the store's schema"),
    ]
    for given, kind, said in cases:
        with pytest.raises(kind, match=said) as raised:
            await Ledger.open(given, folder=store.folder)
        assert "s3cret" not in str(raised.value), given
        assert raised.value.fix
        assert raised.value.__cause__ is None, "the client library's own error holds more than we say"
    assert "s3cret" not in caplog.text


async def test_without_psycopg_the_extra_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match="psycopg") as raised:
        await store.open()
    assert "tightship[postgres]" in (raised.value.fix or "")


async def test_a_server_that_takes_no_writes_can_be_read(store: Store, server: Server) -> None:
    ledger = await store.open()
    await begin(ledger, "r-1")
    await ledger.close()
    with server.connect() as db:
        db.execute("CREATE ROLE reader LOGIN SUPERUSER")
        db.execute("ALTER ROLE reader SET default_transaction_read_only = on")
    try:
        url = url_of(store).replace("postgres:@", "reader@")
        looked = await Ledger.open(url, None, projections(), folder=store.folder / "store")
        assert [entry.run for entry in await looked.entries()] == ["r-1"]
        with pytest.raises(StoreReadOnly):
            await looked.append(note())
        assert (await verify(looked)).ok
        await looked.close()
    finally:
        with server.connect() as db:
            db.execute("DROP ROLE reader")


async def test_a_role_that_may_only_select_can_look_at_everything(store: Store, server: Server) -> None:
    ledger = await store.open()
    await begin(ledger, "r-1")
    payload = ledger.seal(ledger.vault.new_scope("r-1"), {"who": "ada"})
    await ledger.append(replace(note("r-1", epoch=1, out=payload.address), payloads=(payload,)))
    await ledger.close()
    schema = url_of(store).rpartition("schema=")[2]
    with server.connect() as db:
        db.execute("CREATE ROLE looker LOGIN")
        for name in (schema, f"{schema}_keys"):
            db.execute(f"GRANT USAGE ON SCHEMA {name} TO looker".encode())
            db.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO looker".encode())
    try:
        url = url_of(store).replace("postgres:@", "looker@")
        looked = await Ledger.open(url, None, projections(), folder=store.folder / "store")
        assert [row["id"] for row in await looked.select("runs")] == ["r-1"]
        assert len(await looked.run_entries("r-1")) == 2
        assert await looked.value(payload.address) == {"who": "ada"}
        assert await looked.living() == set()
        assert (await verify(looked)).ok
        with pytest.raises(StoreReadOnly):
            await looked.append(note())
        await looked.close()
        with server.connect() as db:
            db.execute(f"DELETE FROM {schema}.migrations WHERE version > 5".encode())
        with pytest.raises(StoreReadOnly, match="may only be read"):
            await Ledger.open(url, None, projections(), folder=store.folder / "store")
    finally:
        with server.connect() as db:
            db.execute("DROP OWNED BY looker")
            db.execute("DROP ROLE looker")


async def test_commits_are_on_the_disk_whatever_the_roles_settings_say(store: Store, server: Server) -> None:
    with server.connect() as db:
        db.execute("CREATE ROLE hasty LOGIN SUPERUSER")
        db.execute("ALTER ROLE hasty SET synchronous_commit = off")
        db.execute("ALTER ROLE hasty SET statement_timeout = 1")
    try:
        address = Address.of(url_of(store).replace("postgres:@", "hasty@"))
        with _pg.connect(address) as db:
            settings = db.execute(
                "SELECT current_setting('synchronous_commit'), current_setting('statement_timeout'),"
                " current_setting('idle_in_transaction_session_timeout')"
            ).fetchone()
        assert settings == ("on", "0", "10s")
    finally:
        with server.connect() as db:
            db.execute("DROP ROLE hasty")


class Wrong(SystemClock):
    """A machine's clock that is so many seconds ahead."""

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead

    def now(self) -> float:  # type: ignore[override]
        return time.time() + self.ahead


@pytest.mark.parametrize(("ahead", "said"), [(-300, "behind"), (300, "ahead of"), (20, "")])
async def test_a_clock_that_is_minutes_off_is_told_and_does_not_count(
    store: Store, ahead: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(Wrong(ahead))
    began = time.monotonic()
    ledger = await Ledger.open(store.where, world, projections(), folder=store.folder / "store")

    def off() -> float:
        """By how much what was told may be off: half of the longest round trip so far, and what is rounded."""
        return time.monotonic() - began + 1

    told = [re.search(r"clock is ([\d,]+) seconds (behind|ahead of) the", one.getMessage()) for one in caplog.records]
    assert [one[2] for one in told if one] == [said] * bool(said) and None not in told
    assert all(abs(int(one[1].replace(",", "")) - abs(ahead)) <= off() for one in told if one)
    assert abs(world.clock.now() - time.time()) <= off()
    ledger.vault.new_scope("r-1")
    await ledger.append(note(n=1))
    assert abs((await ledger.entries())[0].at - world.clock.now()) <= off()
    assert abs(ledger.vault.keyring.look_up("r-1").created - time.time()) <= off()
    await ledger.close()


# --- many processes ----------------------------------------------------------------------------------


async def test_what_many_processes_append_is_one_log_without_a_gap(store: Store) -> None:
    await store.open()
    text = (
        "async def main():\n"
        "    ledger = await Ledger.open(URL, None, projections(), folder=STORE)\n"
        "    me = sys.argv[1]\n"
        "    told = []\n"
        "    async def one(n):\n"
        "        entries = await ledger.append(note(me, n=n), note(me, n=-n), log='a' if n % 3 else 'b')\n"
        "        told.append([entry.n for entry in entries])\n"
        "    for n in range(1, 40):\n"
        "        await asyncio.gather(*(one(100 * n + k) for k in range(n % 4 + 1)))\n"
        "    print(json.dumps(told))\n"
        "    await ledger.close()\n"
        "import json\n"
        f"URL = {store.where!r}\n"
        "asyncio.run(main())\n"
    )
    command = script(store.folder / "store", text)
    processes = [
        await asyncio.create_subprocess_exec(*command, f"p{n}", stdout=asyncio.subprocess.PIPE) for n in range(3)
    ]
    outputs = [await asyncio.wait_for(process.communicate(), 300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    units = [tuple(unit) for out, _ in outputs for unit in json.loads(out)]
    assert all(b == a + 1 for a, b in units), "a unit is not torn apart"
    ledger = await store.open()
    times: list[float] = []
    for log in ("a", "b"):
        entries = await ledger.entries(limit=10_000, log=log)
        assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
        at = [entry.at for entry in entries]
        assert at == sorted(at), "positions are in the order of commits, and so is time"
        times += at[::2]
    assert len(set(times)) == len(times) == len(units)
    report = await verify(ledger)
    assert report.ok, report.findings
    assert report.entries == 2 * len(units)


async def test_the_owner_of_an_earlier_epoch_is_stopped_by_a_takeover_of_another_process(store: Store) -> None:
    from tightship.core import kinds
    from tightship.core.errors import StaleOwner
    from tightship.ledger import Draft, Guards

    ours, theirs = await store.open(), await store.open()
    await begin(ours, "r-1")
    outcomes = await asyncio.gather(
        *(ours.append(note("r-1", epoch=1, n=n)) for n in range(20)),
        theirs.append(Draft("r-1", kinds.CLAIMED, "", {"owner": "them"}, 2), guards=Guards(takeover=1)),
        return_exceptions=True,
    )
    assert not any(isinstance(outcome, BaseException) and not isinstance(outcome, StaleOwner) for outcome in outcomes)
    with pytest.raises(StaleOwner):
        await ours.append(note("r-1", epoch=1))
    entries = await ours.run_entries("r-1")
    taken = next(entry.n for entry in entries if entry.kind == kinds.CLAIMED)
    assert all(entry.epoch == 2 for entry in entries if entry.n >= taken)


async def test_everything_of_a_store_verifies_and_rebuilds(store: Store) -> None:
    ledger = await store.open()
    await fill(ledger)
    before = {table: await ledger.select(table) for table in ledger.folder.tables}
    report = await verify(ledger)
    assert report.ok, report.findings
    assert report.integrated
    assert (await verify(ledger)).uncovered == 0
    await rebuild(ledger)
    assert {table: await ledger.select(table) for table in ledger.folder.tables} == before
    assert (await verify(ledger)).ok


async def test_damage_in_the_database_is_found(store: Store, server: Server) -> None:
    ledger = await store.open()
    await fill(ledger, runs=4)
    assert (await verify(ledger)).ok
    with server.connect() as db:
        db.execute(f"SET search_path TO {name_of(store)}")
        db.execute("UPDATE entries SET data = replace(data, 'run.started', 'run.startled') WHERE id & 255 = 1")
        db.execute("UPDATE runs SET state = 'queued' WHERE id = 'r-001'")
        db.execute("UPDATE payloads SET data = set_byte(data, 20, 255 - get_byte(data, 20)) WHERE id = 3")
    report = await verify(ledger)
    places = " ".join(finding.place for finding in report.findings)
    assert "entries, row" in places
    assert "payloads, row 3" in places
    assert "runs, row ['r-001']" in places


async def test_a_value_that_fits_no_column_refuses_its_unit_alone(store: Store) -> None:
    from tightship.core import kinds
    from tightship.ledger import Draft

    ledger = await store.open()
    outcomes = await asyncio.gather(
        ledger.append(note(n=1)),
        ledger.append(note("nul\x00run")),
        ledger.append(Draft("", kinds.HALT, "", {"scope": os.urandom(9_000).hex()})),
        ledger.append(note(n=2)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes[1:3]] == [LedgerError, LedgerError]
    assert [entry.body.get("n") for entry in await ledger.entries()] == [1, 2]


# --- names and options -------------------------------------------------------------------------------


def test_options_of_the_url_reach_the_server_as_they_were_meant(store: Store) -> None:
    url = url_of(store) + "&options=-c%20work_mem%3D5MB&application_name=a+b"
    with _pg.connect(Address.of(url)) as db:
        found = db.execute("SELECT current_setting('work_mem'), current_setting('application_name')").fetchone()
    assert found == ("5MB", "a+b")


async def test_the_schema_may_be_called_by_a_word_of_sql(store: Store) -> None:
    url = url_of(store).replace(name_of(store), "order")
    ours, theirs = [await Ledger.open(url, None, projections(), folder=store.folder / "store") for _ in range(2)]
    heard: list[Any] = []
    ours.listen(lambda entries, foreign: heard.extend(entries))
    await theirs.append(note(n=1))
    await ours.poll()
    assert [entry.body["n"] for entry in heard] == [1]
    await ours.close()
    await theirs.close()


async def test_keys_that_several_processes_make_at_once_are_stored_in_one_order_so_that_none_waits_in_a_circle(
    store: Store, server: Server
) -> None:
    await store.open()
    keys = PostgresKeyStore(Address.of(url_of(store)))
    table = f"{name_of(store)}_keys.keys"
    insert = f"INSERT INTO {table} (name, wrapped, created) VALUES (%s, 'x', 1)"
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO keys%'"
    try:
        with server.connect() as first, server.connect() as second:
            first.execute("BEGIN")
            first.execute(insert, ("subject:a",))  # another process, which comes to subject:b next
            rows = [WrappedKey(name, b"y", 1.0) for name in ("subject:b", "subject:a")]
            putting = asyncio.create_task(asyncio.to_thread(keys.put, rows))
            await until(lambda: second.execute(waits).fetchone()[0] > 0)
            first.execute("SET LOCAL lock_timeout TO '500ms'")
            first.execute(insert, ("subject:b",))
            first.execute("COMMIT")
            assert sorted(await putting) == ["subject:a", "subject:b"]  # whose keys stand is told
    finally:
        keys.close()
