"""What a store must be able to do: the primitive operations under the one store algorithm, and reading beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tightship.core.ports import Delta
from tightship.ledger.claiming import Claiming
from tightship.ledger.entries import Entry, SealedPayload
from tightship.ledger.projections import Deltas

Condition = tuple[str, str, Any]
"""Column, operator (= != < <= > >= in), value."""
Look = tuple[str, tuple[Condition, ...]]
"""Rows of a projection: table and conditions."""
Row = tuple[Any, ...]
Rows = Callable[[str], Iterable[Row]]
"""Rows of a table, in the schema's order of columns."""

FILE_FROM: Final = 256 * 1024
"""Sealed payloads above this many bytes go to files, where the store has files."""


@dataclass(slots=True)
class Batch:
    """What one transaction writes."""

    rows: list[tuple[int, int, str, bytes, str, str]] = field(
        default_factory=list[tuple[int, int, str, bytes, str, str]]
    )
    """log id, position, run, data, log, kind"""
    payloads: dict[str, SealedPayload] = field(default_factory=dict[str, SealedPayload])
    deltas: Deltas = field(default_factory=dict[str, dict[tuple[object, ...], Delta]])
    heads: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """log -> (log id, its new last position)"""
    last: int = 0
    """store time of the last entry, microseconds"""


HALTED: Final[Look] = ("halts", (("state", "=", "on"),))
"""The scopes that are halted."""


FACTS: Final[dict[str, tuple[str, ...]]] = {
    "halts": ("scope",),
    "runs": ("id", "state", "epoch", "last_signal"),
    "claims": ("key", "run", "effect", "state"),
    "inbox": ("item", "state"),
    "context": ("scope", "key", "version", "busy", "used", "since", "as_of", "used_at", "ends"),
    "counters": (
        *("run", "handoffs", "messages"),
        *("usd", "tokens", "calls", "requests", "usd_more", "tokens_more", "calls_more"),
    ),
}
"""What guards look at of each table."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the guards of a batch look at, by their keys: runs, business keys, inbox items, shared values, counters."""

    runs: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    context: tuple[tuple[str, str], ...] = ()
    """scope and key"""
    counters: tuple[str, ...] = ()
    """the runs that they are of"""

    def looks(self) -> list[Look]:
        """The same as selections from projections."""
        keyed = (
            ("runs", "id", self.runs),
            ("claims", "key", self.claims),
            ("inbox", "item", self.items),
            ("counters", "run", self.counters),
        )
        looks: list[Look] = [HALTED, *((table, ((column, "in", keys),)) for table, column, keys in keyed if keys)]
        if self.context:
            scopes, keys = (tuple(sorted(set(part))) for part in zip(*self.context, strict=True))
            looks.append(("context", (("scope", "in", scopes), ("key", "in", keys))))
        return looks


NOTHING: Final = Asked()
"""No guard looks at anything."""


@dataclass(slots=True)
class Opening:
    """What stands when a transaction begins, read under its lock.

    Attributes:
        heads: log name -> (log id, head).
        now: the store's own time (s); None where the machine's clock is the store's.
        last: store time of the last entry of any log (µs); None where the entries themselves have to tell.
    """

    heads: dict[str, tuple[int, int]]
    now: float | None = None
    last: int | None = None


class Backend(Protocol):
    """A store's primitive operations. `begin` to `commit` run on the writer alone; reading may run beside it."""

    @property
    def shared(self) -> bool:
        """Whether many processes append all the time.

        Then every batch reads what its guards look at anew, and others' entries come through a follower. Else what is
        known stays known until somebody else has appended, and their entries come with the next batch.
        """
        ...

    def begin(self, asked: Asked = NOTHING) -> Opening:
        """Lock the heads and read them; `asked` may be read in the same round trip, for `look` to answer from."""
        ...

    def write(self, batch: Batch, tables: dict[str, tuple[str, ...]]) -> None:
        """Write a batch inside the transaction; `tables` names the key columns of each projection.

        Raises:
            LedgerError: a value does not fit its column. StoreError: the disk.
        """
        ...

    def commit(self) -> None:
        """Make it durable.

        Raises:
            StoreError: nothing was written. CommitUnknown: nobody can tell, and the store is being closed.
        """
        ...

    def rollback(self) -> None:
        """Leave no trace of it."""
        ...

    def look(self, table: str, where: Sequence[Condition]) -> list[dict[str, Any]]:
        """Rows of a projection, read inside the transaction; of what `begin` was asked for, at least `FACTS`."""
        ...

    def due(self, claiming: Claiming, now: float) -> list[dict[str, Any]]:
        """Runs to claim, in order (see `claiming`), read inside the transaction; `now` is store time (s)."""
        ...

    def tail(self, log: str, log_id: int, after: int, upto: int) -> list[Entry]:
        """Entries read inside the transaction."""
        ...

    def heads(self) -> dict[str, tuple[int, int]]:
        """Log name -> (log id, head), read outside of any transaction."""
        ...


class Moment(Protocol):
    """A store's rows as they lie there at one moment, for an audit: nothing is decoded, nothing is trusted."""

    name: str
    """The store's name, for findings."""

    def close(self) -> None:
        """End it."""
        ...

    def structure(self) -> list[str]:
        """What is wrong with the store's structure, and how its schema differs from the one that we make."""
        ...

    def counts(self) -> dict[str, int]:
        """About how many rows the large tables have."""
        ...

    def logs(self) -> list[Row]:
        """Id, name and head of each log."""
        ...

    def log_ids(self) -> list[int]:
        """The logs that entries and bundles say they are of."""
        ...

    def bundles(self, log_id: int) -> Iterator[Row]:
        """Row id, data and checksum of a log's bundles, in order."""
        ...

    def entries(self, log_id: int) -> Iterator[list[Row]]:
        """Row id, run, data and checksum of a log's entries that are not in bundles, in order, a page at a time."""
        ...

    def kept(self, log_id: int) -> Iterator[list[Row]]:
        """The same of the entries that have stayed where their bundles have left for an archive."""
        ...

    def payloads(self) -> Iterator[list[Row]]:
        """Row id, address, scope, sealed bytes and checksum of each payload, a page at a time."""
        ...

    def latest_payloads(self) -> dict[str, int]:
        """The row ids of the payloads that were stored last, by address."""
        ...

    def stored(self, addresses: Sequence[str]) -> set[str]:
        """Which of these addresses have a row."""
        ...

    def tile(self, log_id: int, level: int, position: int) -> Any:
        """A tile's bytes, or None."""
        ...

    def tile_sizes(self, log_id: int) -> Iterator[Row]:
        """Level, position and length in bytes of a log's tiles, in order; the length is None where it is no blob."""
        ...

    def checkpoints(self, log_id: int, latest_first: bool = False) -> Iterator[Row]:
        """Size and note of a log's checkpoints, in order."""
        ...

    def logs_of(self, table: str) -> list[Any]:
        """The logs that the rows of a table say they are of."""
        ...

    def projection(self, table: str) -> Iterator[Row]:
        """A projection's rows in order of their key."""
        ...


class Store(Backend, Protocol):
    """A backend with what is read beside the writer, and what the sequencer and an audit do."""

    @property
    def where(self) -> str:
        """The store's place, as errors name it; never a password."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether nothing may be written."""
        ...

    @property
    def outdated(self) -> bool:
        """Whether an earlier version has folded the tables, which knew less of what stands in them now."""
        ...

    @property
    def file_from(self) -> int | None:
        """Sealed payloads above this many bytes go to files; None where all of them lie in the table."""
        ...

    def select(
        self, table: str, where: Sequence[Condition], order: Sequence[tuple[str, str]], limit: int | None
    ) -> list[dict[str, Any]]:
        """Rows of a projection that fit, in order."""
        ...

    def entries(self, log: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Position and data of entries after a position.

        Raises:
            TamperError: an entry is not what was written.
        """
        ...

    def entries_of(self, runs: Sequence[str]) -> list[Entry]:
        """All entries of some runs, in order of the log.

        Raises:
            TamperError: an entry is not what was written.
        """
        ...

    def payloads(self, addresses: Sequence[str]) -> dict[str, tuple[str, bytes | None]]:
        """Scope and sealed bytes by address."""
        ...

    def is_anything_due(self, claiming: Claiming) -> bool:
        """Whether a claim may give something: an idle worker takes no lock."""
        ...

    def living(self) -> set[str]:
        """The owners that live, where many execute; none where one process does."""
        ...

    def moved(self) -> bool:
        """Whether anybody else may have committed since the last call."""
        ...

    def foreign(self, after: dict[str, int], only: frozenset[str] | None) -> list[Entry]:
        """Others' entries of a shared store behind these positions, which go forward; of these kinds, or of all."""
        ...

    def sequences(self) -> bool:
        """Whether this process is the one that integrates entries; it becomes that where nobody is."""
        ...

    def tile(self, log_id: int, level: int, position: int) -> bytes | None:
        """A Merkle tile."""
        ...

    def checkpoint(self, log_id: int) -> tuple[int, str] | None:
        """The latest checkpoint: its size and note."""
        ...

    def put_tree(self, log_id: int, before: int, size: int, note: str, tiles: dict[tuple[int, int], bytes]) -> None:
        """Store tiles and the checkpoint over them in one transaction.

        Raises:
            LedgerError: the latest checkpoint is not the one over `before` entries any more; nothing was written.
        """
        ...

    def public_keys(self) -> dict[str, str]:
        """Published public keys by origin."""
        ...

    def publish(self, origin: str, vkey: str) -> None:
        """Publish a log's public key, unless one of that origin is published already."""
        ...

    def compact(self, log: str, covered: int) -> int:
        """Pack a few full bundles of entries that a checkpoint covers; returns how many entries moved.

        Raises:
            TamperError: an entry is missing or damaged; nothing was moved.
        """
        ...

    def trim(self) -> None:
        """Give space that packing or archiving has freed back to the disk."""
        ...

    def drop_bundles(self, log: str, upto: int, stay: Collection[int]) -> int:
        """Drop the first few bundles of a log that end at a position or before, in one transaction.

        Args:
            stay: positions of entries that are kept as rows.

        Returns: of how many entries they were; 0 when there is no such bundle.

        Raises:
            TamperError: one is damaged; nothing was dropped.
        """
        ...

    def drop_payloads(self, addresses: Collection[str], after: dict[str, int], named: set[str]) -> set[str]:
        """Drop payloads in one transaction under the heads' lock, but none that a later entry names.

        Args:
            after: behind which position of each log entries may name them; it goes forward to what was read.
            named: what later entries name, as far as they were read; what is read now is put to it.

        Returns: those that no later entry names; they are gone.
        """
        ...

    def drop_files(self, addresses: Collection[str]) -> None:
        """Drop the files of values that are not stored any more, under the heads' lock.

        What a crash leaves of them, `audit verify` names as notes.
        """
        ...

    def exchange_projections(self, tables: Sequence[str], rows: Rows) -> None:
        """Throw the projections away and write these rows, inside a transaction."""
        ...

    def load(self, tables: Iterable[tuple[str, Iterable[Row]]], last: int) -> None:
        """Fill an empty store with another's rows in one transaction; `last` is its last entry's store time (µs)."""
        ...

    def workers(self) -> list[dict[str, Any]]:
        """Everybody who is registered to execute on a shared store, and whether each is `alive`."""
        ...

    def snapshot(self) -> Moment:
        """Everything as it lies there at this moment. Others may go on writing meanwhile."""
        ...

    def closing(self) -> None:
        """It is about to be closed: whatever waits for a server gives up within some seconds."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...
