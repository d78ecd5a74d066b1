"""Opening a Postgres store: what the server must be, the schema as the migrations make it, and whose store it is."""

from __future__ import annotations

import hmac
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tightship.core.errors import StoreError, StoreMissing, StoreReadOnly, StoreVersionError
from tightship.ledger._pg import OLDEST, Address, connect, script, too_old, translate_errors
from tightship.ledger._pg_patience import Patience

if TYPE_CHECKING:
    import psycopg

MIGRATIONS: Final = (
    "0001_ledger",
    "0002_context",
    "0003_rates",
    "0004_claims",
    "0005_upkeep",
    "0006_reviews",
    "0007_listing",
    "0008_incidents",
    "0009_deliveries",
    "0010_ended",
    "0011_counters",
    "0012_family_spend",
    "0013_archives",
    "0014_tenants",
)
KEY_MIGRATIONS: Final = ("keys_0001",)


@dataclass(slots=True)
class Opened:
    """What opening found.

    Attributes:
        read_only: the server takes no writes, or none of this user.
        outdated: an earlier version has folded the tables.
        heard: its time (s since the epoch), when it was asked for that, and when the answer came (monotonic, s).
    """

    read_only: bool
    heard: tuple[float, float, float]
    outdated: bool = False


def prepare(address: Address, migrations: tuple[str, ...], create: bool) -> Opened:
    """Make the schema, or bring it up to this version; say what is remarkable about the server.

    Raises:
        StoreMissing: there is no such schema and none may be made.
        StoreVersionError: the server is too old, or a newer version has written the schema.
        StoreReadOnly, StoreError: as the server answers.
    """
    patience = Patience()
    db = connect(address, patience)
    try:
        with translate_errors(address):
            opened = _look_at_server(db, address)
            if _has_schema(db, address):
                opened.read_only = opened.read_only or not _may_write(db, address)
                version = _version(db, migrations, address)
            elif not create:
                raise StoreMissing(
                    f"there is no store here: nothing has been run (no schema {address.schema} in this database)",
                    where=address.shown,
                    fix="run something (`tightship run WORKFLOW …`), or correct `store:` in tightship.yaml",
                )
            else:
                version = 0
            if version < len(migrations):
                if opened.read_only:
                    raise StoreReadOnly(
                        f"the store has schema {version}, this version works with {len(migrations)}, and it may only be"
                        " read from here",
                        where=address.shown,
                        fix="run any command with the URL of the primary, as a user who may write",
                    )
                with patience.long():
                    _migrate(db, address, migrations)
            opened.outdated = _is_outdated(db, address, opened.read_only)
    finally:
        db.close()
    return opened


def _look_at_server(db: psycopg.Connection[Any], address: Address) -> Opened:
    if db.info.server_version < OLDEST * 10_000:
        raise too_old(db.info.server_version, address)
    sent = time.monotonic()
    row = db.execute(
        "SELECT current_setting('fsync'), current_setting('server_encoding'), pg_is_in_recovery(),"
        " current_setting('default_transaction_read_only'),"
        " extract(epoch FROM clock_timestamp())::double precision"
    ).fetchone()
    received = time.monotonic()
    assert row is not None
    fsync, encoding, standby, read_only, now = row
    if fsync != "on":
        raise StoreError(
            "the server runs with fsync=off: what it acknowledges may be lost",
            where=address.shown,
            fix="set fsync=on in postgresql.conf",
        )
    if encoding != "UTF8":
        raise StoreError(
            f"the database is encoded in {encoding}, not in UTF8",
            where=address.shown,
            fix="CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
    return Opened(standby or read_only == "on", (now, sent, received))


def _has_schema(db: psycopg.Connection[Any], address: Address) -> bool:
    found = db.execute("SELECT to_regclass(%s)", (f'"{address.schema}".migrations',)).fetchone()
    return found is not None and found[0] is not None


def _may_write(db: psycopg.Connection[Any], address: Address) -> bool:
    """Whether this user may add to what the schema holds; whoever may only SELECT can look at everything."""
    found = db.execute(
        "SELECT bool_and(has_table_privilege(c.oid, 'INSERT')) FROM pg_class c JOIN pg_namespace n"
        " ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname IN ('entries', 'keys')",
        (address.schema,),
    ).fetchone()
    return found is None or found[0] is not False


def _version(db: psycopg.Connection[Any], migrations: tuple[str, ...], address: Address) -> int:
    applied = [row[0] for row in db.execute("SELECT name FROM migrations ORDER BY version")]
    if len(applied) > len(migrations):
        raise StoreVersionError(
            f"the store has schema {len(applied)} ({applied[-1]}), this version knows {len(migrations)}",
            where=address.shown,
            fix="install the newer tightship that wrote it",
        )
    if tuple(applied) != migrations[: len(applied)]:
        raise StoreVersionError(
            f"the schema {address.schema!r} was made by {', '.join(applied)}, not by this program",
            where=address.shown,
            fix="choose another schema with ?schema=NAME in the store's URL",
        )
    return len(applied)


def _is_outdated(db: psycopg.Connection[Any], address: Address, read_only: bool) -> bool:
    """Whether an earlier version has folded the tables, and nobody has done so anew since.

    Raises:
        StoreReadOnly: it is so, and nothing can be written.
    """
    found = db.execute("SELECT FROM migrations WHERE applied_at = 'infinity'").fetchone() is not None
    if found and read_only:
        raise StoreReadOnly(
            "the store was brought up to this version, its tables were not yet, and it may only be read from here",
            where=address.shown,
            fix="run any command with the URL of the primary, as a user who may write",
        )
    return found


def _migrate(db: psycopg.Connection[Any], address: Address, migrations: tuple[str, ...]) -> None:
    """Apply what this schema has not seen, forward, one process at a time, each in a transaction of its own.

    What comes to a schema that an earlier version has filled counts as applied once the tables are folded anew
    (`exchange_projections`): whatever ends the process in between, the next one knows.
    """
    lock = address.lock("migrate")
    db.execute("SELECT pg_advisory_lock(%s, %s)", lock)
    try:
        if not _has_schema(db, address):
            exists = db.execute("SELECT to_regnamespace(%s)", (f'"{address.schema}"',)).fetchone()
            with db.transaction():
                if exists is None or exists[0] is None:
                    db.execute(f'CREATE SCHEMA "{address.schema}"'.encode())
                db.execute(script("migrations").encode())
        had = _version(db, migrations, address)
        for number in range(had, len(migrations)):
            with db.transaction():
                db.execute(script(migrations[number]).encode())
                db.execute(
                    "INSERT INTO migrations VALUES (%s, %s, CASE WHEN %s THEN 'infinity' ELSE now() END)",
                    (number + 1, migrations[number], had > 0),
                )
    finally:
        if not db.closed:
            db.execute("SELECT pg_advisory_unlock(%s, %s)", lock)


def identify(address: Address, master: bytes, name: str | None, read_only: bool) -> str:
    """Whose store this is; a new one is this workspace's from here on. Returns its id.

    Args:
        master: the workspace's master key, which has to be the one the store was made with.
        name: the workspace's name; None where it is not known.

    Raises:
        StoreError: it is another workspace's.
    """
    db = connect(address)
    try:
        with translate_errors(address):
            if not read_only:
                made = os.urandom(16).hex()
                db.execute(
                    "INSERT INTO store (name, id, proof) SELECT %s, %s, %b WHERE NOT EXISTS (SELECT FROM store)"
                    " ON CONFLICT DO NOTHING",
                    (name or "tightship", made, proof_of(master, made)),
                )
            row = db.execute("SELECT name, id, proof FROM store").fetchone()
    finally:
        db.close()
    if row is None:
        raise StoreMissing("the store was never written to", where=address.shown, fix="use the URL of the primary")
    if name is not None and row[0] != name:
        raise StoreError(
            f"the schema {address.schema!r} holds the store of the workspace {row[0]!r}, not of {name!r}",
            where=address.shown,
            fix="give this workspace a schema of its own: ?schema=NAME in the store's URL; after a change of `name:`"
            f' in tightship.yaml: UPDATE "{address.schema}".store SET name = …',
        )
    if not hmac.compare_digest(bytes(row[2]), proof_of(master, row[1])):
        raise StoreError(
            "the store was made with another master key, and only that key opens it",
            where=address.shown,
            fix="set TIGHTSHIP_MASTER_KEY to that of this store (every machine needs the same), or choose another"
            " schema with ?schema=NAME in the store's URL",
        )
    return row[1]


def proof_of(master: bytes, store: str) -> bytes:
    """What shows that somebody has the master key, without giving it away."""
    return hmac.digest(master, b"tightship store\x00" + store.encode(), "sha256")[:16]
