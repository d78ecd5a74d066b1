"""Statements for Postgres with their values: many rows go as one array for each column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, LiteralString, cast

import orjson

from tightship.core.errors import LedgerError
from tightship.core.ports import Delta
from tightship.ledger._pg import Statement, script
from tightship.ledger._pg_arrays import ARRAYS, Array, Blobs, Integers, Texts
from tightship.ledger._rows import Seeds
from tightship.ledger._schema import Table, check_condition, check_order, implied, projection_tables
from tightship.ledger.backend import Batch, Condition
from tightship.ledger.entries import POSITION_BITS, SealedPayload, entry_crc, payload_crc
from tightship.ledger.projections import Deltas

TYPES: Final[dict[type, str]] = {str: "text", int: "bigint", float: "double precision", bytes: "bytea"}
PAYLOAD_BYTES: Final = 32 * 1024 * 1024
"""About how many bytes of payloads one statement takes."""


def entry_values(batch: Batch, seeds: Seeds) -> list[Array]:
    """The columns of a batch's entries: id, run, data, crc, kind."""
    ids: list[int] = []
    crcs: list[int] = []
    for log_id, n, run, data, log, _ in batch.rows:
        ids.append(log_id << POSITION_BITS | n)
        crcs.append(entry_crc(seeds[log], run.encode(), data))
    return [
        Integers.of(ids),
        Texts.of([row[2] for row in batch.rows]),
        Texts.encoded([row[3] for row in batch.rows]),
        Integers.of(crcs),
        Texts.of([row[5] for row in batch.rows]),
    ]


def kind_of(text: str) -> str:
    """The kind that an entry's text has."""
    return orjson.loads(text)["kind"]


def append_statements(batch: Batch, seeds: Seeds, schema: str, notice: str) -> list[Statement]:
    """Everything of a batch but its projections: payloads, entries, heads, the store's time, and the notice.

    Args:
        seeds: of the entries' checksums. schema: whose channel is told. notice: what it is told.

    Raises:
        LedgerError: a value does not fit its column.
    """
    *large, payloads = payload_columns(batch)
    heads = sorted((log_id, log, head) for log, (log_id, head) in batch.heads.items())
    ids, names, ends = zip(*heads, strict=True)
    values = [*payloads, *entry_values(batch, seeds), Integers.of(ids), Texts.of(names), Integers.of(ends)]
    statements: list[Statement] = [(script("insert_payloads"), columns) for columns in large]
    return [*statements, (script("append"), [*values, batch.last, schema, notice])]


def payload_columns(batch: Batch) -> list[list[Array]]:
    """The columns of a batch's payloads, in as many parts as their size needs, one at least."""
    parts: list[list[Array]] = []
    part: list[SealedPayload] = []
    size = 0
    for payload in batch.payloads.values():
        part.append(payload)
        size += len(payload.data or b"")
        if size > PAYLOAD_BYTES:
            parts.append(_payloads(part))
            part, size = [], 0
    if part or not parts:
        parts.append(_payloads(part))
    return parts


def _payloads(part: Sequence[SealedPayload]) -> list[Array]:
    """Address, scope, data, crc."""
    raws = [bytes.fromhex(payload.address) for payload in part]
    crcs = [payload_crc(raw, one.scope, one.data or b"") for raw, one in zip(raws, part, strict=True)]
    data = [one.data or b"" for one in part]
    return [Blobs.of(raws), Texts.of([one.scope for one in part]), Blobs.of(data), Integers.of(crcs)]


def delta_statements(deltas: Deltas, tables: dict[str, tuple[str, ...]]) -> list[Statement]:
    """Upserts of changed rows, grouped by the columns they change.

    Raises:
        LedgerError: a value does not fit its column.
    """
    statements: list[Statement] = []
    for table, rows in deltas.items():
        groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Delta]] = {}
        for delta in rows.values():
            groups.setdefault((tuple(delta.set), tuple(delta.add)), []).append(delta)
        for (sets, adds), group in groups.items():
            lines = [(*delta.key, *delta.set.values(), *delta.add.values()) for delta in group]
            columns = (*tables[table], *sets, *adds)
            values = [
                _column(table, column, cells) for column, cells in zip(columns, zip(*lines, strict=True), strict=True)
            ]
            statements.append((upsert_sql(table, tables[table], sets, adds), values))
    return statements


def _column(table: str, column: str, cells: Sequence[Any]) -> Array:
    """The values of one column as its type has them: numbers are exact, and nothing is taken for something else."""
    kind = projection_tables()[table].types[column]
    taken = {float: (int, float), int: (int,)}.get(kind, (kind,))
    values: list[Any] = []
    for cell in cells:
        if isinstance(cell, float) and kind is int and cell.is_integer():
            cell = int(cell)
        if not isinstance(cell, taken):
            raise LedgerError(f"a value does not fit its column: {table}.{column} takes no {type(cell).__name__}")
        values.append(kind(cell))
    return ARRAYS[kind].of(values)


@cache
def upsert_sql(table: str, key: tuple[str, ...], sets: tuple[str, ...], adds: tuple[str, ...]) -> LiteralString:
    """Insert rows of a projection, or change those that are there."""
    types = projection_tables()[table].types
    columns = key + sets + adds
    changes = [f"{column} = excluded.{column}" for column in sets]
    changes += [f"{column} = {table}.{column} + excluded.{column}" for column in adds]
    sql = script("upsert").format(
        table=table,
        columns=", ".join(columns),
        arrays=", ".join(f"%b::{TYPES[types[column]]}[]" for column in columns),
        key=", ".join(key),
        changes=f"UPDATE SET {', '.join(changes)}" if changes else "NOTHING",
    )
    return cast(LiteralString, sql)  # names of the schema, and nothing else


def select_statement(
    name: str, where: Sequence[Condition], order: Sequence[tuple[str, str]], limit: int | None
) -> Statement:
    """A selection from a projection: names are checked against the schema, values are bound.

    Raises:
        KeyError: no such table or column. ValueError: no such operator or direction.
    """
    table = projection_tables()[name]
    parts: list[str] = []
    values: list[Any] = []
    for column, op, value in where:
        check_condition(table, column, op)
        kind = TYPES[table.types[column]]
        if op == "in":
            parts.append(f"{column} = ANY(%s::{kind}[])")
            values.append(list(value))
        else:
            ordered = op in ("<", "<=", ">", ">=") or column in dict(order)  # else the index of that order is no use
            parts.append(f"{_in_order(table, column) if ordered else column} {op} %s::{kind}")
            values.append(value)
    parts += implied(name, where)
    check_order(table, order)
    terms = [f"{_in_order(table, column)} {direction.upper()}" for column, direction in order]
    # the key settles ties, so that all stores answer in the same order every time
    terms += [_in_order(table, column) for column in table.key if column not in dict(order)]
    values.append(limit)
    sql = script("select").format(
        columns=", ".join(table.defaults),
        table=name,
        where=" AND ".join(parts) or "true",
        order=", ".join(terms),
        limit="%s::bigint",
    )
    return cast(LiteralString, sql), values


def _in_order(table: Table, column: str) -> str:
    """A column as it is sorted and compared: texts by their code points, as on the other stores."""
    return f'{column} COLLATE "C"' if table.types[column] is str else column
