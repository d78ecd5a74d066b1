"""The in-memory twin of the SQLite store, for tests and simulation. It lives as long as the object does."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from tightship.ledger.entries import Entry, decode
from tightship.ledger.store import Batch, Condition

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

    def __init__(self, columns: dict[str, dict[str, Any]]) -> None:
        self._columns = columns
        self._heads: dict[str, tuple[int, int]] = {}
        self._entries: dict[str, list[tuple[str, bytes]]] = {}
        self._payloads: dict[str, tuple[str, bytes | None]] = {}
        self._tables: dict[str, dict[tuple[object, ...], dict[str, Any]]] = {name: {} for name in columns}
        self._tiles: dict[tuple[int, int, int], bytes] = {}
        self._checkpoints: dict[int, dict[int, str]] = {}
        self._draft: tuple[Batch, dict[str, tuple[str, ...]]] | None = None

    def begin(self) -> dict[str, tuple[int, int]]:
        """The heads."""
        self._draft = None
        return dict(self._heads)

    def write(self, batch: Batch, tables: dict[str, tuple[str, ...]]) -> None:
        """Remember what commit will apply."""
        self._draft = (batch, tables)

    def commit(self) -> None:
        """Apply it."""
        if self._draft is None:
            return
        (batch, tables), self._draft = self._draft, None
        names = {log_id: name for name, (log_id, _) in self._heads.items()}
        for log, head in batch.heads.items():
            log_id = self._heads.get(log, (len(self._heads) + 1, 0))[0]
            self._heads[log] = (log_id, head)
            names[log_id] = log
        for log_id, _, run, data in batch.rows:
            self._entries.setdefault(names[log_id], []).append((run, data))
        for payload in batch.payloads.values():
            self._payloads.setdefault(payload.address, (payload.scope, payload.data))
        for table, rows in batch.deltas.items():
            for key, delta in rows.items():
                self.apply(table, tables[table], key, delta.set, delta.add)

    def apply(
        self,
        table: str,
        key_columns: Sequence[str],
        key: tuple[object, ...],
        changes: dict[str, Any],
        additions: dict[str, int],
    ) -> None:
        """Change one row of a projection, made with its defaults when it is new."""
        row = self._tables[table].get(key)
        if row is None:
            row = self._tables[table][key] = {
                **self._columns[table],
                **dict(zip(key_columns, key, strict=True)),
            }
        row.update(changes)
        for column, amount in additions.items():
            row[column] += amount

    def rollback(self) -> None:
        """Drop the draft."""
        self._draft = None

    def look(self, table: str, where: Sequence[Condition]) -> list[dict[str, Any]]:
        """Rows that fit."""
        return self.select(table, where, (), None)

    def select(
        self,
        table: str,
        where: Sequence[Condition],
        order: Sequence[tuple[str, str]],
        limit: int | None,
    ) -> list[dict[str, Any]]:
        """Copies of the rows that fit, in order."""
        rows = [
            dict(row)
            for row in self._tables[table].values()
            if all(_OPERATORS[op](row[column], value) for column, op, value in where)
        ]
        for column, direction in reversed(order):
            rows.sort(key=lambda row: row[column], reverse=direction == "desc")
        return rows if limit is None else rows[:limit]

    def tail(self, log: str, log_id: int, after: int, upto: int) -> list[Entry]:
        """Entries between two positions."""
        rows = self._entries.get(log, [])[after:upto]
        return [decode(log, after + index + 1, data) for index, (_, data) in enumerate(rows)]

    def heads(self) -> dict[str, tuple[int, int]]:
        """Log name -> (log id, head)."""
        return dict(self._heads)

    def entries(self, log: str, after: int, limit: int) -> list[tuple[int, str, bytes]]:
        """Position, run column and data of entries after a position."""
        rows = self._entries.get(log, [])[after : after + limit]
        return [(after + index + 1, run, data) for index, (run, data) in enumerate(rows)]

    def entries_of(self, runs: Sequence[str]) -> list[Entry]:
        """All entries of some runs, in order of the log."""
        wanted = set(runs)
        found: list[Entry] = []
        for log, rows in self._entries.items():
            found.extend(decode(log, i + 1, data) for i, (run, data) in enumerate(rows) if run in wanted)
        return found

    def payloads(self, addresses: Sequence[str]) -> dict[str, tuple[str, bytes | None]]:
        """Scope and sealed bytes by address."""
        return {address: self._payloads[address] for address in addresses if address in self._payloads}

    def all_payloads(self, after: int, limit: int) -> list[tuple[int, str, str, bytes | None]]:
        """Row number, address, scope and sealed bytes, a page at a time."""
        rows = list(self._payloads.items())[after : after + limit]
        return [(after + i + 1, address, scope, data) for i, (address, (scope, data)) in enumerate(rows)]

    def tile(self, log_id: int, level: int, position: int) -> bytes | None:
        """A Merkle tile."""
        return self._tiles.get((log_id, level, position))

    def put_tree(self, log_id: int, tiles: dict[tuple[int, int], bytes], size: int, note: str) -> None:
        """Store tiles and the checkpoint over them together."""
        for (level, position), data in tiles.items():
            self._tiles[log_id, level, position] = data
        self._checkpoints.setdefault(log_id, {})[size] = note

    def compact(self, log_id: int, covered: int) -> int:
        """Memory is not packed."""
        return 0

    def trim(self) -> None:
        """Memory has nothing to give back."""

    def checkpoints(self, log_id: int) -> list[tuple[int, str]]:
        """All checkpoints, by size."""
        return sorted(self._checkpoints.get(log_id, {}).items())

    def checkpoint(self, log_id: int) -> tuple[int, str] | None:
        """The latest checkpoint."""
        notes = self._checkpoints.get(log_id)
        return max(notes.items()) if notes else None

    def replace_projections(self, deltas: Any, tables: dict[str, tuple[str, ...]]) -> None:
        """Throw the projections away and write these."""
        for table, key_columns in tables.items():
            self._tables[table].clear()
            for key, delta in deltas.get(table, {}).items():
                self.apply(table, key_columns, key, delta.set, delta.add)

    def moved(self) -> bool:
        """Nobody else writes to this memory."""
        return False

    def check(self) -> list[str]:
        """Memory has no structure that could be damaged."""
        return []

    def close(self) -> None:
        """Nothing to close."""
