"""The in-memory twin of the SQLite store, for tests and simulation. It lives as long as the object does."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from tightship.core.errors import LedgerError, StoreReadOnly
from tightship.core.world import MemoryDisk
from tightship.ledger._schema import Table, check_condition, check_order, projection_tables
from tightship.ledger.backend import FILE_FROM, NOTHING, Asked, Batch, Condition, Opening, Row, Rows
from tightship.ledger.claiming import OPEN, Claiming, due_rows
from tightship.ledger.entries import (
    POSITION_BITS,
    Entry,
    decode,
    entry_crc,
    log_crc,
    payload_crc,
)
from tightship.ledger.keyring import KeyStore
from tightship.ledger.projections import Deltas
from tightship.ledger.snapshot import Snapshot

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, among: value in among,
}


class MemoryBackend:
    """Rows in dicts. A transaction is a batch that is applied at commit, so a rollback has nothing to undo."""

    shared = False
    outdated = False
    read_only = False
    where = "memory"
    file_from = FILE_FROM

    def __init__(self, schema: dict[str, Table]) -> None:
        self._schema = schema
        self._heads: dict[str, tuple[int, int]] = {}
        self._entries: dict[str, list[tuple[str, bytes]]] = {}
        self._by_run: dict[str, list[tuple[int, int, str]]] = {}
        self._payloads: dict[str, tuple[str, bytes | None, int | None]] = {}
        self._tables: dict[str, dict[tuple[object, ...], dict[str, Any]]] = {name: {} for name in schema}
        self._tiles: dict[tuple[int, int, int], bytes] = {}
        self._checkpoints: dict[int, dict[int, str]] = {}
        self.alive: set[str] = set()
        """The owners that live; whoever simulates workers says so."""
        self._draft: tuple[Batch, dict[str, tuple[str, ...]]] | None = None

    # --- the writer's side -----------------------------------------------------------------------

    def begin(self, asked: Asked = NOTHING) -> Opening:
        """The heads."""
        self._draft = None
        return Opening(dict(self._heads))

    def write(self, batch: Batch, tables: dict[str, tuple[str, ...]]) -> None:
        """Remember what commit will apply."""
        for table, rows in batch.deltas.items():
            for delta in rows.values():
                if None in delta.key or None in delta.set.values():
                    raise LedgerError(f"a value does not fit its column: {table} takes no null")
        self._draft = (batch, tables)

    def commit(self) -> None:
        """Apply it."""
        if self._draft is None:
            return
        (batch, tables), self._draft = self._draft, None
        self._heads.update(batch.heads)
        for log_id, n, run, data, log, _ in batch.rows:
            self._entries.setdefault(log, []).append((run, data))
            self._by_run.setdefault(run, []).append((log_id, n, log))
        for address, payload in batch.payloads.items():
            self._payloads.setdefault(address, (payload.scope, payload.data, payload.crc))
        self._apply(batch.deltas, tables)

    def _apply(self, deltas: Deltas, tables: dict[str, tuple[str, ...]]) -> None:
        for table, rows in deltas.items():
            for key, delta in rows.items():
                row = self._tables[table].get(key)
                if row is None:
                    row = self._tables[table][key] = {
                        **self._schema[table].defaults,
                        **dict(zip(tables[table], key, strict=True)),
                    }
                row.update(delta.set)
                for column, amount in delta.add.items():
                    row[column] += amount

    def rollback(self) -> None:
        """Drop the draft."""
        self._draft = None

    def look(self, table: str, where: Sequence[Condition]) -> list[dict[str, Any]]:
        """Rows that fit."""
        return self.select(table, where, (), None)

    def due(self, claiming: Claiming, now: float) -> list[dict[str, Any]]:
        """Runs to claim, in order."""
        return due_rows(self.look("runs", [("state", "in", OPEN)]), claiming, self.alive, now)

    def tail(self, log: str, log_id: int, after: int, upto: int) -> list[Entry]:
        """Entries between two positions."""
        after = max(after, 0)
        rows = self._entries.get(log, [])[after:upto]
        return [decode(log, after + index + 1, data) for index, (_, data) in enumerate(rows)]

    def put_tree(
        self,
        log_id: int,
        before: int,
        size: int,
        note: str,
        tiles: dict[tuple[int, int], bytes],
    ) -> None:
        """Store tiles and the checkpoint over them together."""
        latest = self.checkpoint(log_id)
        if (latest[0] if latest else 0) != before:
            raise LedgerError("the tree has grown meanwhile; nothing was written")
        for (level, position), data in tiles.items():
            self._tiles[log_id, level, position] = data
        self._checkpoints.setdefault(log_id, {})[size] = note

    def replace_projections(self, deltas: Deltas, tables: dict[str, tuple[str, ...]]) -> None:
        """Throw the projections away and write these."""
        for table in tables:
            self._tables[table] = {}
        self._apply(deltas, tables)

    def compact(self, log: str, covered: int) -> int:
        """Memory is not packed."""
        return 0

    def drop_bundles(self, log: str, upto: int, stay: Collection[int]) -> int:
        """Memory has no bundles."""
        return 0

    def drop_payloads(self, addresses: Collection[str], after: dict[str, int], named: set[str]) -> set[str]:
        """Memory lets nothing go."""
        return set()

    def drop_files(self, addresses: Collection[str]) -> None:
        """Memory has no files."""

    def trim(self) -> None:
        """Memory has nothing to give back."""

    def exchange_projections(self, tables: Sequence[str], rows: Rows) -> None:
        """Throw the projections away and write these rows, inside a transaction."""
        for table in tables:
            schema = self._schema[table]
            self._tables[table] = {
                tuple(row[name] for name in schema.key): row
                for row in (dict(zip(schema.defaults, values, strict=True)) for values in rows(table))
            }

    # --- the reader's side -----------------------------------------------------------------------

    def heads(self) -> dict[str, tuple[int, int]]:
        """Log name -> (log id, head)."""
        return dict(self._heads)

    def select(
        self,
        table: str,
        where: Sequence[Condition],
        order: Sequence[tuple[str, str]],
        limit: int | None,
    ) -> list[dict[str, Any]]:
        """Copies of the rows that fit, in order."""
        schema = self._schema[table]
        for column, op, _ in where:
            check_condition(schema, column, op)
        check_order(schema, order)
        found = [
            dict(row)
            for row in self._candidates(table, schema, where)
            if all(_OPERATORS[op](row[column], value) for column, op, value in where)
        ]
        for column, direction in reversed([*order, *((column, "asc") for column in schema.key)]):
            found.sort(key=operator.itemgetter(column), reverse=direction == "desc")
        return found if limit is None else found[:limit]

    def _candidates(self, table: str, schema: Table, where: Sequence[Condition]) -> Iterable[dict[str, Any]]:
        """All rows, or only those that a condition on the key leaves."""
        rows = self._tables[table]
        if len(schema.key) == 1:
            for column, op, value in where:
                if column == schema.key[0] and op in ("=", "in"):
                    keys = [value] if op == "=" else dict.fromkeys(value)
                    return [rows[key,] for key in keys if (key,) in rows]
        return rows.values()

    def entries(self, log: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Position and data of entries after a position."""
        rows = self._entries.get(log, [])[after : after + limit]
        return [(after + index + 1, data) for index, (_, data) in enumerate(rows)]

    def entries_of(self, runs: Sequence[str]) -> list[Entry]:
        """All entries of some runs, in order of the log."""
        places = sorted(place for run in dict.fromkeys(runs) for place in self._by_run.get(run, ()))
        return [decode(log, n, self._entries[log][n - 1][1]) for _, n, log in places]

    def payloads(self, addresses: Sequence[str]) -> dict[str, tuple[str, bytes | None]]:
        """Scope and sealed bytes by address."""
        return {address: self._payloads[address][:2] for address in addresses if address in self._payloads}

    def tile(self, log_id: int, level: int, position: int) -> bytes | None:
        """A Merkle tile."""
        return self._tiles.get((log_id, level, position))

    def checkpoint(self, log_id: int) -> tuple[int, str] | None:
        """The latest checkpoint."""
        notes = self._checkpoints.get(log_id)
        return max(notes.items()) if notes else None

    def is_anything_due(self, claiming: Claiming) -> bool:
        """The claim itself finds out."""
        return True

    def living(self) -> set[str]:
        """The owners that live."""
        return set(self.alive)

    def moved(self) -> bool:
        """Another ledger over the same memory may have appended; looking costs nothing."""
        return True

    def dump(self) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
        """Every table's rows, as the SQLite store would hold them."""
        yield (
            "logs",
            [(log_id, name, head) for name, (log_id, head) in self._heads.items()],
        )
        for log, rows in self._entries.items():
            base, seed = self._heads[log][0] << POSITION_BITS, log_crc(log)
            yield (
                "entries",
                [
                    (base | at, run, data.decode(), entry_crc(seed, run.encode(), data))
                    for at, (run, data) in enumerate(rows, start=1)
                ],
            )
        payloads: list[tuple[Any, ...]] = []
        for at, (address, (scope, data, crc)) in enumerate(self._payloads.items(), start=1):
            raw = bytes.fromhex(address)
            payloads.append((at, raw, scope, data, payload_crc(raw, scope, data or b"") if crc is None else crc))
        yield "payloads", payloads
        yield "tiles", [(*key, data) for key, data in self._tiles.items()]
        yield (
            "checkpoints",
            [(log, size, note) for log, notes in self._checkpoints.items() for size, note in notes.items()],
        )
        for table, projected in self._tables.items():
            yield table, [tuple(row.values()) for row in projected.values()]

    def foreign(self, after: dict[str, int], only: frozenset[str] | None) -> list[Entry]:
        """None: they come with the next append."""
        return []

    def sequences(self) -> bool:
        """There is nobody else."""
        return True

    def public_keys(self) -> dict[str, str]:
        """None: nobody outside verifies what is in memory."""
        return {}

    def publish(self, origin: str, vkey: str) -> None:
        """There is nobody to publish it for."""

    def load(self, tables: Iterable[tuple[str, Iterable[Row]]], last: int) -> None:
        """Nothing is copied into memory.

        Raises:
            StoreReadOnly: always.
        """
        raise StoreReadOnly("a store in memory takes no copy", where=self.where)

    def workers(self) -> list[dict[str, Any]]:
        """None: it is not shared."""
        return []

    def snapshot(self) -> Snapshot:
        """Copies of all rows."""
        return Snapshot.of_rows(self.dump())

    def closing(self) -> None:
        """Nothing here waits for a server."""

    def close(self) -> None:
        """Nothing to close."""


class MemoryState:
    """What survives a simulated crash of a process: the store, the keystore and the disk."""

    def __init__(self) -> None:
        self.backend = MemoryBackend(projection_tables())
        self.keys = KeyStore()
        self.disk = MemoryDisk()
