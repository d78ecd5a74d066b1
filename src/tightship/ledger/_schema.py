"""The schema as the migrations make it, and writing rows of projections by it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from tightship.core.errors import StoreVersionError
from tightship.core.ports import Delta
from tightship.ledger._sql import ERRORS, corrupt, read_version, script
from tightship.ledger.backend import Row, Rows
from tightship.ledger.projections import Deltas

MIGRATIONS: Final = (
    "0001_ledger",
    "0002_context",
    "0003_upkeep",
    "0004_reviews",
    "0005_listing",
    "0006_incidents",
    "0007_deliveries",
    "0008_ended",
    "0009_counters",
    "0010_family_spend",
    "0011_archives",
    "0012_tenants",
)
SCHEMA_VERSION: Final = len(MIGRATIONS)
UNFOLDED: Final = 1 << 16
"""Stands in the file's header beside the version until tables that an earlier version has folded are folded anew:
whatever ends the process in between, the next one knows."""
LOG_TABLES: Final = ("logs", "entries", "kept", "bundles", "bundle_runs", "payloads", "tiles", "checkpoints")
"""Tables that are the log itself; all others are projections."""
OPERATORS: Final = frozenset({"=", "!=", "<", "<=", ">", ">=", "in"})
ROWS_PER_STATEMENT: Final = 64
_LEFT_OUT: Final = {
    ("runs", "state"): "ended",
    ("runs", "outcome"): "",
    ("runs", "parent"): "",
    ("inbox", "class"): "",
    ("deliveries", "state"): "delivered",
}
"""Columns with an index of the rows that have any other value than this."""
_ALONE: Final = {("runs", "state"): "ended"}
"""Columns with an index of the rows that have this value alone."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its columns with their defaults, in order; their types; the columns of its primary key."""

    defaults: dict[str, Any]
    types: dict[str, type]
    nullable: frozenset[str]
    key: tuple[str, ...]


_TYPES: Final[dict[str, type]] = {
    "TEXT": str,
    "REAL": float,
    "INTEGER": int,
    "BLOB": bytes,
}


@cache
def schema() -> dict[str, Table]:
    """Every table by name, read from the migrations themselves."""
    with contextlib.closing(empty_database()) as db:
        return {name: _table(db, name) for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


@cache
def projection_tables() -> dict[str, Table]:
    """The tables that are readings of the log."""
    return {name: table for name, table in schema().items() if name not in LOG_TABLES}


def _table(db: sqlite3.Connection, name: str) -> Table:
    info = db.execute(f"PRAGMA table_info({name})").fetchall()
    types = {column: _TYPES[kind] for _, column, kind, *_ in info}
    defaults = {
        column: types[column](str(default).strip("'")) if default is not None else _zero(types[column])
        for _, column, _, _, default, _ in info
    }
    keyed = sorted((place, column) for _, column, _, _, _, place in info if place)
    nullable = frozenset(column for _, column, _, required, _, place in info if not required and not place)
    return Table(defaults, types, nullable, tuple(column for _, column in keyed))


def _zero(kind: type) -> Any:
    return None if kind is bytes else kind()


def empty_database(path: str = ":memory:") -> sqlite3.Connection:
    """A database with the schema and nothing in it."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for name in MIGRATIONS:
        db.executescript(script(name))
    return db


def migrate(db: sqlite3.Connection, path: Path) -> bool:
    """Apply the migrations that this file has not seen, each in a transaction of its own.

    Returns: whether its tables were folded by an earlier version, and not anew since.

    Raises:
        StoreVersionError: a newer version has written the file. StoreCorrupt: it is not what its version says.
    """
    version, outdated = _version(db, path)
    while version < SCHEMA_VERSION:
        db.execute("BEGIN IMMEDIATE")
        try:
            version, outdated = _version(db, path)
            if version < SCHEMA_VERSION:
                outdated = version > 0
                for statement in statements(script(MIGRATIONS[version])):
                    db.execute(statement)
                version += 1
                db.execute(f"PRAGMA user_version={version | UNFOLDED if outdated else version}")
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
    return outdated


def require_current(db: sqlite3.Connection, path: Path) -> None:
    """Whether this version can read the file as it is.

    Raises:
        StoreVersionError: it has another schema, or an earlier version has folded it. StoreCorrupt: it is not what its
            version says.
    """
    version, outdated = _version(db, path)
    if version != SCHEMA_VERSION or outdated:
        raise StoreVersionError(
            f"the store has schema {version}{', not yet folded anew,' if outdated else ''} and may not be written, this"
            f" version reads {SCHEMA_VERSION}",
            where=str(path),
            fix="run any command where the store can be written: it is brought up to this version",
        )


def _version(db: sqlite3.Connection, path: Path) -> tuple[int, bool]:
    """The schema's version, and whether an earlier one has folded the tables."""
    stated, tables = read_version(db)
    version, outdated = (stated & ~UNFOLDED, bool(stated & UNFOLDED)) if stated >= 0 else (stated, False)
    if version > SCHEMA_VERSION:
        raise StoreVersionError(
            f"the store has schema {version}, this version knows {SCHEMA_VERSION}",
            where=str(path),
            fix="install the newer tightship that wrote it; if none did, restore the store from your backup",
        )
    if version < 0 or (version == 0 and tables):
        raise corrupt(
            f"the file's header says schema {version}, but there are {tables} tables in it",
            path,
        )
    return version, outdated


def check_structure(db: sqlite3.Connection, fresh: sqlite3.Connection, version: int) -> list[str]:
    """What SQLite finds wrong with a file, and where its schema differs from that of a new one.

    Args:
        db: the file's connection.
        fresh: an empty database that the migrations have just made.
        version: the schema's version.
    """
    objects = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    try:
        # one line of findings may hold many
        found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(100)") if row[0] != "ok"]
        stated = db.execute("PRAGMA user_version").fetchone()[0]
        if stated != version:
            found.append(f"the header says schema {stated}, not {version}")
        ours, theirs = set(fresh.execute(objects)), set(db.execute(objects))
    except ERRORS as error:
        return [f"the structure cannot be read: {str(error)!a}"]
    found += [f"the {kind} {name} is not what it was made as" for kind, name, *_ in sorted(theirs - ours, key=str)]
    changed = {name for _, name, *_ in theirs}
    found += [
        f"the {kind} {name} is missing" for kind, name, *_ in sorted(ours - theirs, key=str) if name not in changed
    ]
    return found


def statements(text: str) -> Iterator[str]:
    """The statements of a script, one at a time (executescript would commit between them)."""
    draft = ""
    for line in text.splitlines(keepends=True):
        draft += line
        if sqlite3.complete_statement(draft):
            yield draft
            draft = ""


def chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """At most as many as one statement takes."""
    if len(items) <= ROWS_PER_STATEMENT:
        if items:
            yield items
        return
    for start in range(0, len(items), ROWS_PER_STATEMENT):
        yield items[start : start + ROWS_PER_STATEMENT]


@cache
def insert_sql(name: str, width: int, rows: int) -> str:
    """A multi-row insert: one statement takes many rows, so the writer gives up the interpreter lock once."""
    row = "(" + ",".join("?" * width) + ")"
    return script(name).format(rows=",".join([row] * rows))


@cache
def upsert_sql(
    table: str,
    key: tuple[str, ...],
    sets: tuple[str, ...],
    adds: tuple[str, ...],
    rows: int,
) -> str:
    """Insert rows of a projection, or change those that are there."""
    columns = key + sets + adds
    row = "(" + ",".join("?" * len(columns)) + ")"
    changes = [f"{column} = excluded.{column}" for column in sets]
    changes += [f"{column} = {table}.{column} + excluded.{column}" for column in adds]
    return script("upsert").format(
        table=table,
        columns=", ".join(columns),
        rows=",".join([row] * rows),
        key=", ".join(key),
        changes=f"UPDATE SET {', '.join(changes)}" if changes else "NOTHING",
    )


def write_deltas(db: sqlite3.Connection, deltas: Deltas, tables: dict[str, tuple[str, ...]]) -> None:
    """Upsert changed rows, grouped by the columns they change, sorted by key so that writers never cross."""
    for table, rows in deltas.items():
        groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Delta]] = {}
        for key in sorted(rows):  # type: ignore[type-var]
            delta = rows[key]
            groups.setdefault((tuple(delta.set), tuple(delta.add)), []).append(delta)
        for (sets, adds), group in groups.items():
            for part in chunks(group):
                values: list[Any] = []
                for delta in part:
                    values += delta.key
                    values += delta.set.values()
                    values += delta.add.values()
                db.execute(upsert_sql(table, tables[table], sets, adds, len(part)), values)


def replace_rows(db: sqlite3.Connection, tables: Iterable[str], rows: Rows) -> None:
    """Put these rows in place of what the projections hold, inside the caller's transaction."""
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    for table in tables:
        marks = ",".join("?" * len(schema()[table].defaults))
        db.execute(f"DELETE FROM {table}")
        db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows(table))


def load_rows(db: sqlite3.Connection, table: str, rows: Iterable[Row]) -> None:
    """Insert rows as they are; entries come with their text, whatever the other database kept beside it."""
    marks = ",".join("?" * len(schema()[table].defaults))
    db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


def check_condition(table: Table, column: str, op: str) -> None:
    """Whether a column and an operator exist (KeyError, ValueError)."""
    if column not in table.defaults:
        raise KeyError(column)
    if op not in OPERATORS:
        raise ValueError(op)


def check_order(table: Table, order: Sequence[tuple[str, str]]) -> None:
    """Whether the columns and directions of an order exist (KeyError, ValueError)."""
    for column, direction in order:
        if column not in table.defaults:
            raise KeyError(column)
        if direction not in ("asc", "desc"):
            raise ValueError(direction)


def implied(name: str, where: Sequence[tuple[str, str, Any]]) -> list[str]:
    """Conditions that follow from these: SQLite takes a partial index only where its own condition is among them."""
    found: list[str] = []
    for column, op, value in where:
        left_out = _LEFT_OUT.get((name, column))
        asked = [value] if op == "=" else list(value) if op == "in" else [left_out]
        if left_out is not None and left_out not in asked:
            found.append(f"{column} <> '{left_out}'")
        if op == "=" and value == _ALONE.get((name, column)):
            found.append(f"{column} = '{value}'")
    return found


def select_sql(
    name: str,
    where: Sequence[tuple[str, str, Any]],
    order: Sequence[tuple[str, str]],
    limit: int | None,
) -> tuple[str, list[Any]]:
    """The statement of a selection from a projection: names are checked against the schema, values are bound.

    Raises:
        KeyError: no such table or column. ValueError: no such operator or direction.
    """
    table = projection_tables()[name]
    parts: list[str] = []
    values: list[Any] = []
    for column, op, value in where:
        check_condition(table, column, op)
        if op == "in":
            parts.append(f"{column} IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(list(value)))
        else:
            parts.append(f"{column} {op} ?")
            values.append(value)
    parts += implied(name, where)
    check_order(table, order)
    terms = [f"{column} {direction.upper()}" for column, direction in order]
    # the key settles ties, so that both stores answer in the same order every time
    terms += [column for column in table.key if column not in dict(order)]
    values.append(-1 if limit is None else limit)
    sql = script("select").format(
        columns=", ".join(table.defaults),
        table=name,
        where=" AND ".join(parts) or "1",
        order=", ".join(terms),
    )
    return sql, values
