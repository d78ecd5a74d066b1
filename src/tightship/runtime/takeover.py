"""Whether and when a run that nobody drives may be taken over here: its build, and how often its process ended.

A run that ends its process (`os.abort()`, memory, a fault of an extension) takes its neighbours down with it, at every
start anew. The ledger tells: such a run was claimed again and again, and nothing was recorded in between. After two
such claims it is a suspect, driven alone and after all others; after `limits.restarts` of them it is driven no more;
where it was being undone, the call that was under way is given up and the rest is undone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from tightship.core import kinds
from tightship.core.errors import TightshipError, TimedOut, Unforeseen
from tightship.effects.journal import Journal
from tightship.ledger import Entry, Ledger

SUSPECT = 2
"""Claims in a row without anything recorded from which a run is driven alone."""
PUT_DOWN = "put_down"
"""The note of a run that its process has let go of in good order."""
RESTARTS = "restarts"
"""The reason of a run that was escalated because its process ended over it."""
Row = Mapping[str, Any]
_BEFORE = frozenset({kinds.STARTED, kinds.CLAIMED, kinds.SIGNAL})
"""What there is of a run of which nothing was done."""


def idle_claims(entries: Sequence[Entry]) -> int:
    """How often a run was claimed in a row with nothing recorded by its owner in between.

    An effect that was begun is no progress: its own call may be what ends the process. A claim after which its owner
    has claimed the run again has ended no process: the store refused what was to be recorded, a full disk say.
    """
    count = 0
    owner = None
    for entry in reversed(entries):
        if entry.kind == kinds.CLAIMED:
            count += entry.body.get("owner") != owner
            owner = entry.body.get("owner")
        elif entry.kind == kinds.SIGNAL and entry.body.get("type") == "child":
            break  # it waited for a child run, which has ended
        elif entry.epoch and entry.kind != kinds.ADMITTED and not entry.body.get("again"):
            break
    return count


async def set_apart(ledger: Ledger, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows that may be driven side by side, and the suspects, the least suspicious and child runs first."""
    doubtful = [row["id"] for row in rows if row["state"] == "running" and row["epoch"] > SUSPECT]
    counts: dict[str, int] = {}
    if doubtful:
        entries = await ledger.runs_entries(doubtful)
        counts = {run: count for run in doubtful if (count := idle_claims(entries[run])) >= SUSPECT}
    suspects = [row for row in rows if row["id"] in counts]
    suspects.sort(key=lambda row: (counts[row["id"]], not row["parent"]))
    return [row for row in rows if row["id"] not in counts], suspects


async def note_put_down(journal: Journal) -> None:
    """Record that the process has let go of a run that it claimed and left as it was: it did not end over it."""
    if idle_claims(journal.entries):
        with contextlib.suppress(TightshipError):  # then it counts as one more claim
            await journal.record(kinds.NOTE, "", {"type": PUT_DOWN})


def restarts_case(journal: Journal, count: int) -> Unforeseen:
    """Why a run ends that was claimed so often and came to nothing."""
    begun = [f"{body['name']} ({key})" for key, body in journal.unfinished()]
    last = next((entry for entry in reversed(journal.entries) if entry.epoch and entry.kind != kinds.CLAIMED), None)
    where = f"at {', '.join(begun)}" if begun else "in the code of an agent"
    after = f" after {last.key}" if last is not None and last.key else ""
    cause = Unforeseen(
        f"the process ended {count} times {where}{after}, with nothing recorded in between",
        needed="find out what ends the process (memory, a fault in a library, `os.abort`), then run it anew",
        evidence={"restarts": count, "under way": list(begun), "last entry": "" if last is None else last.key},
    )
    cause.kind = RESTARTS
    return cause


def late_case(journal: Journal, within: float | None, now: float) -> TimedOut | None:
    """Why a run of which nothing was done yet is not begun any more; None when it may begin.

    Args:
        within: seconds in which it was to begin. now: store time (s).
    """
    entries = journal.entries
    if within is None or any(entry.kind not in _BEFORE for entry in entries):
        return None
    waited = now - entries[0].at
    if waited <= within:
        return None
    return TimedOut(
        f"this run was to begin within {within:g} s and has waited {waited:.0f} s: nothing of it was done",
        needed="say whether it is still wanted; if so, start it again",
        fix="add workers, or raise `begin_within`",
    )


def erased_case() -> Unforeseen:
    """Why a run ends whose data subject was erased."""
    cause = Unforeseen(
        "a data subject of this run was erased, and with it all that the run knew",
        needed="look at what remains outside",
    )
    cause.kind = "erased"
    return cause


async def accepted(ledger: Ledger, parent: str, build: str) -> bool:
    """Whether a run above is in the hands of this code: whoever accepted it there accepted it for its children."""
    while parent:
        row = (await ledger.select("runs", [("id", "=", parent)]))[0]
        if row["build"] == build:
            return True
        parent = row["parent"]
    return False


async def is_cancelled(ledger: Ledger, run: str) -> bool:
    """Whether a run was cancelled: then it is undone by recorded calls of tools, and no code of an agent runs."""
    entries = await ledger.run_entries(run)
    return any(entry.kind == kinds.SIGNAL and entry.body["type"] == "cancel" for entry in entries)


async def is_fork(ledger: Ledger, run: str) -> bool:
    """Whether a run that is not live is a fork whose writes alone are rehearsed."""
    return "forked" in (await ledger.run_entries(run))[0].body
