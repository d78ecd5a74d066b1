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
from dataclasses import dataclass
from typing import Final

import orjson

from tightship.core import kinds
from tightship.core.ports import EntryView, Json
from tightship.insight._reading import ERASED
from tightship.ledger import Ledger
from tightship.ledger.references import addresses_of

_CANARY: Final = re.compile(r"canary-([0-9a-f]{16})-([0-9a-f]{16})")
_PURPOSE: Final = "canary"
_BATCH: Final = 100


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


def make_canary(ledger: Ledger, tenant: str = "default") -> str:
    """A new canary of a tenant."""
    nonce = secrets.token_hex(8)
    return f"canary-{nonce}-{_seal(ledger, tenant, nonce)}"


def _seal(ledger: Ledger, tenant: str, nonce: str) -> str:
    return ledger.mac(tenant, _PURPOSE, nonce.encode())[:16]


def canaries_in(ledger: Ledger, tenants: Iterable[str], value: Json) -> set[str]:
    """The marks of the genuine canaries in a value."""
    found = set[str]()
    for nonce, seal in _CANARY.findall(orjson.dumps(value).decode()):
        if nonce not in found and any(hmac.compare_digest(_seal(ledger, one, nonce), seal) for one in tenants):
            found.add(nonce)
    return found


async def find_leaks(ledger: Ledger) -> LeakReport:
    """Look through everything that every run was given, gave, asked and got."""
    rows = {row["id"]: row for row in await ledger.select("runs", order=[("started_at", "asc"), ("id", "asc")])}
    tenants = sorted({row["tenant"] or row["log"] for row in rows.values()} | {"default"})
    homes: dict[str, tuple[str, str]] = {}
    leaks: dict[tuple[str, str], Leak] = {}
    payloads = 0
    above = {run: str(row["parent"] or "") for run, row in rows.items()}
    runs = list(rows)
    for start in range(0, len(runs), _BATCH):
        grouped = await ledger.runs_entries(runs[start : start + _BATCH])
        for run, entries in grouped.items():  # in the order in which they began: what is followed is known
            began = entries[0].body if entries else {}
            above[run] = above[run] or str(began.get("linked") or began.get("forked", {}).get("run", ""))
            named = [(entry, list(_addresses(entry))) for entry in entries]
            values = await _open(ledger, [address for _, addresses in named for address in addresses])
            payloads += len(values)
            for entry, addresses in named:
                for mark in canaries_in(ledger, tenants, [values[one] for one in addresses if one in values]):
                    family = _family(run, above)
                    home, owner = homes.setdefault(mark, (family, run))
                    if family != home and (mark, run) not in leaks:
                        agent = str(entry.body.get("agent") or "")
                        leaks[mark, run] = Leak(mark, owner, run, entry.n, entry.at, entry.kind, entry.key, agent)
    found = tuple(sorted(leaks.values(), key=lambda leak: (leak.at, leak.n)))
    return LeakReport(len(runs), payloads, {mark: run for mark, (_, run) in homes.items()}, found)


def _family(run: str, above: Mapping[str, str]) -> str:
    """The run at the top of those that started or follow each other."""
    seen = set[str]()
    while above.get(run) and run not in seen:
        seen.add(run)
        run = above[run]
    return run


def _addresses(entry: EntryView) -> Iterator[str]:
    yield from addresses_of(entry)
    yield from (str(one) for one in entry.body.get("said", ()))
    if entry.kind in (kinds.CONTEXT, kinds.CONFLICT):
        yield str(entry.body["value"])


async def _open(ledger: Ledger, addresses: Sequence[str]) -> dict[str, Json]:
    wanted = list(dict.fromkeys(address for address in addresses if address))
    return {} if not wanted else await ledger.values(wanted, ERASED)
