"""Whether anything of one run has reached another (F6): canaries, and what agents were given across runs.

A canary is a marked value that is put into the input of one run. It carries a keyed hash, so that nobody who reads one
can make others, and no text is taken for one by chance. Wherever it shows up in another run, in a prompt, an output, an
argument or a result of a tool, something has crossed. A child run is the same work as the run that has started it, and
so is a linked one as the run that it follows: the answer to an escalation, an audit of what the other one gave.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from tightship.core import kinds
from tightship.core.errors import Archived
from tightship.core.ports import EntryView, Json
from tightship.ledger import Entry, Ledger
from tightship.ledger.references import addresses_of

_CANARY: Final = re.compile(r"canary-([0-9a-f]{16})-([0-9a-f]{16})")
_PURPOSE: Final = "canary"
PAGE: Final = 200
"""Entries that are read, with their payloads, at a time."""
_GONE: Final = object()


@dataclass(frozen=True, slots=True)
class Leak:
    """A canary where it should not be. `mark` is its public part, by which it can be told from others.

    Attributes:
        home: the run that it was put into. run: the one that it has reached. n, at: the first entry there, and its
            store time (s). kind, key: what that is. agent: whose turn or call, where it is one's.
    """

    mark: str
    home: str
    run: str
    n: int
    at: float
    kind: str
    key: str
    agent: str

    def as_dict(self) -> dict[str, Json]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What was looked through, and what was found: runs, payloads, canaries by their marks with their runs."""

    runs: int
    payloads: int
    canaries: Mapping[str, str]
    leaks: tuple[Leak, ...]

    def as_dict(self) -> dict[str, Json]:
        """As JSON."""
        return {
            "runs": self.runs,
            "payloads": self.payloads,
            "canaries": dict(self.canaries),
            "leaks": [leak.as_dict() for leak in self.leaks],
        }


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a log: what lies after one position, up to and with another."""

    log: str
    after: int
    upto: int


@dataclass(slots=True)
class Seen:
    """What a reading of a part of the ledger has met.

    Attributes:
        first: the first entry of each run in which each canary stands, by mark and run. runs: those that were read.
        entries, payloads: how many. upto: how far each log was read. left: how many entries were not, for want of room.
    """

    first: dict[tuple[str, str], Entry] = field(default_factory=dict[tuple[str, str], Entry])
    runs: set[str] = field(default_factory=set[str])
    entries: int = 0
    payloads: int = 0
    upto: dict[str, int] = field(default_factory=dict[str, int])
    left: int = 0


def make_canary(ledger: Ledger, tenant: str = "default") -> str:
    """A new canary of a tenant."""
    nonce = secrets.token_hex(8)
    return f"canary-{nonce}-{_seal(ledger, tenant, nonce)}"


def _seal(ledger: Ledger, tenant: str, nonce: str) -> str:
    return ledger.mac(tenant, _PURPOSE, nonce.encode())[:16]


def _is_genuine(ledger: Ledger, tenants: Iterable[str], nonce: str, seal: str) -> bool:
    return any(hmac.compare_digest(_seal(ledger, one, nonce), seal) for one in tenants)


async def find_leaks(ledger: Ledger) -> LeakReport:
    """Look through everything that every run was given, gave, asked and got."""
    heads = await ledger.off_loop(ledger.backend.heads)
    seen = await look_through(ledger, [Span(log, 0, head) for log, (_, head) in heads.items()])
    canaries, leaks = await leaks_of(ledger, seen, {})
    return LeakReport(len(seen.runs), seen.payloads, canaries, leaks)


async def look_through(ledger: Ledger, spans: Sequence[Span], most: int | None = None) -> Seen:
    """Read parts of the ledger, a page at a time; nothing of a page is kept but what stands in `Seen`.

    Args:
        most: entries at most, over all parts. What comes first in each is read first.
    """
    seen = Seen()
    for span in spans:
        at, wanted = span.after, span.upto
        while at < wanted and (most is None or seen.entries < most):
            room = PAGE if most is None else min(PAGE, most - seen.entries)
            page = await ledger.entries(at, min(room, wanted - at), span.log)
            page = [entry for entry in page if entry.n <= wanted]  # where some have left, others follow
            if not page:
                at = wanted
                break
            await _take_in(ledger, page, seen)
            at = page[-1].n
        seen.upto[span.log] = at
        seen.left += wanted - at
    return seen


async def _take_in(ledger: Ledger, page: Sequence[Entry], seen: Seen) -> None:
    seen.entries += len(page)
    runs = sorted({entry.run for entry in page if entry.run})
    rows = await ledger.select("runs", [("id", "in", runs)]) if runs else []
    tenants = sorted({str(row["tenant"] or row["log"]) for row in rows} | {"default"})
    known = {row["id"] for row in rows}
    named = [(entry, list(_addresses(entry))) for entry in page if entry.run in known]
    values = await _open(ledger, [address for _, addresses in named for address in addresses])

    def search() -> list[tuple[Entry, str, str]]:
        texts = {address: orjson.dumps(value).decode() for address, value in values.items()}
        return [
            (entry, *match)
            for entry, addresses in named
            for address in addresses
            for match in _CANARY.findall(texts.get(address, ""))
        ]

    for entry, mark, seal in await ledger.off_loop(search):
        if (mark, entry.run) not in seen.first and _is_genuine(ledger, tenants, mark, seal):
            seen.first[mark, entry.run] = entry
    seen.runs |= {entry.run for entry, _ in named}
    seen.payloads += len(values)


async def leaks_of(ledger: Ledger, seen: Seen, homes: Mapping[str, str]) -> tuple[dict[str, str], tuple[Leak, ...]]:
    """What a reading comes to: the run of each canary that it has met, and where those are that do not belong there.

    Args:
        homes: the runs of canaries that earlier readings have met.

    Returns: the runs by mark; leaks in the order in which they came about.
    """
    above: dict[str, str] = {}
    owners: dict[str, str] = {}
    leaks = list[Leak]()
    for (mark, run), entry in sorted(seen.first.items(), key=lambda one: (one[1].at, one[1].n)):
        owner = owners.setdefault(mark, homes.get(mark, run))
        if await _family(ledger, run, above) != await _family(ledger, owner, above):
            agent = str(entry.body.get("agent") or "")
            leaks.append(Leak(mark, owner, run, entry.n, entry.at, entry.kind, entry.key, agent))
    return owners, tuple(leaks)


async def _family(ledger: Ledger, run: str, above: dict[str, str]) -> str:
    """The run at the top of those that started or follow each other; `above` keeps what was looked up."""
    passed = set[str]()
    while run not in passed:
        passed.add(run)
        if run not in above:
            try:
                entries = await ledger.run_entries(run)
            except Archived:  # with all that belong to it
                entries = []
            began = entries[0].body if entries else {}
            above[run] = str(began.get("parent") or began.get("linked") or began.get("forked", {}).get("run", ""))
        if not above[run]:
            return run
        run = above[run]
    return run


def _addresses(entry: EntryView) -> Iterator[str]:
    yield from addresses_of(entry)
    yield from (str(one) for one in entry.body.get("said", ()))
    if entry.kind in (kinds.CONTEXT, kinds.CONFLICT):
        yield str(entry.body["value"])


async def _open(ledger: Ledger, addresses: Sequence[str]) -> dict[str, Json]:
    """What was not erased of them."""
    wanted = list(dict.fromkeys(address for address in addresses if address))
    values = await ledger.values(wanted, _GONE) if wanted else {}
    return {address: value for address, value in values.items() if value is not _GONE}
