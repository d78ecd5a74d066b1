"""Entries of the log, drafts of entries, and the units in which drafts are committed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from tightship.core.errors import GuardRefused, PayloadTooLarge, TamperError
from tightship.ledger.claiming import Claiming
from tightship.ledger.merkle.tiles import MAX_ENTRY_BYTES

POSITION_BITS = 40
"""Positions per log: 2^40; the row id of an entry is `log << 40 | n`."""
POSITION_MASK = (1 << POSITION_BITS) - 1
_HEAD_BYTES = 64
"""More than `encode_head` ever gives."""


@dataclass(slots=True)
class Entry:
    """An appended entry. `at` is store time in seconds; `data` the exact bytes of its Merkle leaf."""

    n: int
    at: float
    log: str
    run: str
    kind: str
    key: str
    epoch: int
    body: dict[str, Any]
    data: bytes = b""

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON, for export and display."""
        return {
            "n": self.n,
            "at": self.at,
            "log": self.log,
            "run": self.run,
            "kind": self.kind,
            "key": self.key,
            "epoch": self.epoch,
            "body": self.body,
        }


class SealedPayload(NamedTuple):
    """A value ready to be stored: its address (hex), the scope of its keys, its sealed bytes.

    `data` is None once the bytes lie in a file; `crc` is then their row's checksum.
    """

    address: str
    scope: str
    data: bytes | None
    crc: int | None = None


@dataclass(slots=True)
class Draft:
    """An entry that is to be appended. `epoch` 0 means that no ownership is needed (signals, halts)."""

    run: str
    kind: str
    key: str
    body: dict[str, Any]
    epoch: int = 0
    payloads: tuple[SealedPayload, ...] = ()


class Expected(NamedTuple):
    """The head that a key of the shared context must have.

    version: the position of its last write, 0 when there is none. until: store time (s) after which the value is too
    old, 0 for none. alone: no other gated action may be under way on it, or have settled since it was read outside.
    over: its time must have run out.
    """

    scope: str
    key: str
    version: int
    until: float = 0.0
    alone: bool = False
    over: bool = False


class Count(NamedTuple):
    """What a unit adds to a counter of a run and of all runs below it.

    counter: `handoffs`, `messages`, `requests`, or what a budget counts (`usd`, `tokens`, `calls`). more: how many it
    adds. most: what the counter may come to; what people have added to a budget since (`usd_more` …) comes on top.
    """

    run: str
    counter: str
    more: int
    most: int


@dataclass(slots=True)
class Guards:
    """Conditions judged inside the append's transaction; one that fails keeps the whole unit out.

    claim: the business key (hex HMAC) must be free or this effect's own. scopes: none may be halted.
    seen: no signal of the run may be later than this position. fresh: the run must not exist yet.
    takeover: the run must stand at this epoch (the drafts carry the next one).
    open_item: this inbox item must still be open.
    lends: the most that may be lent of the envelope (scope, period, unit, limit) that the drafts add to.
    kept: the schedule (log, workflow) must have been kept up to this slot still (s; 0: it was never seen).
    loan: what this owner holds of this envelope (owner, scope, period) must not have been reconciled.
    delivers: of this delivery (target, item, event) so many attempts were begun, and it is not finished.
    context: these values must still stand.
    counts: none of these counters may pass what it may come to.
    """

    claim: str | None = None
    scopes: tuple[str, ...] = ()
    seen: int | None = None
    fresh: bool = False
    takeover: int | None = None
    open_item: str | None = None
    lends: tuple[tuple[str, str, str, int], ...] = ()
    loan: tuple[str, str, str] | None = None
    kept: tuple[str, str, float] | None = None
    delivers: tuple[str, str, str, int] | None = None
    context: tuple[Expected, ...] = ()
    counts: tuple[Count, ...] = ()


@dataclass(slots=True)
class Line:
    """The units of one run in the order of appending: once one could not be written, none behind it is.

    A refusal by a guard breaks nothing: whoever asked for it goes on otherwise.

    Attributes:
        broken: why the first of them could not be written, which is why none behind it is.
    """

    broken: Exception | None = None


@dataclass(slots=True)
class Unit:
    """Drafts that are appended together or not at all; or a claim, whose drafts are made inside the transaction."""

    log: str
    drafts: tuple[Draft, ...]
    guards: Guards | None = None
    tails: tuple[bytes, ...] = ()
    future: asyncio.Future[list[Entry]] | None = None
    entries: list[Entry] = field(default_factory=list[Entry])
    refusal: Exception | None = None
    claiming: Claiming | None = None
    line: Line | None = None

    def refuse(self, error: Exception | None) -> None:
        """Note why it is kept out, if it is; what comes behind it in its line then is, too."""
        self.refusal = error
        if error is not None and self.line is not None and not isinstance(error, GuardRefused):
            self.line.broken = self.line.broken or error


def encode_tail(draft: Draft, nonce: str) -> bytes:
    """The entry's JSON without its opening brace, position and time, which are known only under the lock.

    Raises:
        PayloadTooLarge: the entry would be longer than a log entry can be (64 KB, by the format of tlog-tiles).
        TypeError: the body is no JSON.
    """
    tail = orjson.dumps(
        {
            "run": draft.run,
            "kind": draft.kind,
            "key": draft.key,
            "epoch": draft.epoch,
            "body": draft.body,
            "nonce": nonce,
        }
    )[1:]
    if len(tail) > MAX_ENTRY_BYTES - _HEAD_BYTES:
        raise PayloadTooLarge(
            f"an entry of kind {draft.kind} has {len(tail):,} bytes, a log takes {MAX_ENTRY_BYTES:,}",
            fix="put what is large into a payload and name its address in the entry",
        )
    return tail


def encode_head(n: int, micros: int) -> bytes:
    """The opening of the entry's JSON: position and store time in microseconds."""
    return b'{"n":%d,"at":%d,' % (n, micros)


def decode(log: str, n: int, data: bytes | str) -> Entry:
    """Read a stored entry.

    Raises:
        TamperError: the bytes are no entry, or an entry of another position.
    """
    try:
        fields = orjson.loads(data)
        entry = Entry(
            fields["n"],
            fields["at"] / 1_000_000,
            log,
            fields["run"],
            fields["kind"],
            fields["key"],
            fields["epoch"],
            fields["body"],
            data.encode() if isinstance(data, str) else data,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise TamperError(
            f"entry {n} of log {log!r} cannot be read: {type(error).__name__}",
            fix="run `tightship audit verify`",
        ) from None
    if entry.n != n:
        raise TamperError(
            f"entry {n} of log {log!r} says that it is entry {entry.n}",
            fix="run `tightship audit verify`",
        )
    return entry


# Checksums of rows. Seals and the Merkle tree show that somebody changed something; these find the byte that a disk
# has flipped also where there is no seal to break: before the first checkpoint, and in what was erased.


def log_crc(log: str) -> int:
    """What the checksums of a log's entries start from: an entry of one log is none of another."""
    return crc32(log.encode())


def entry_crc(log: int, run: bytes, data: bytes) -> int:
    """The checksum of an entry's row; `log` is its log's `log_crc`."""
    return crc32(data, crc32(run, log))


def payload_crc(address: bytes, scope: str, data: bytes) -> int:
    """The checksum of a payload's row, its sealed bytes included where they lie in a file."""
    return crc32(data, crc32(scope.encode(), crc32(address)))
