"""Units of one line: once one could not be written, none behind it is, whatever the store says by then."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import KINDS, begin, note
from store_desk import ledger_of_store, store_of
from tightship.core import kinds
from tightship.core.errors import GuardRefused, LedgerError, StoreFull
from tightship.ledger import Draft, Guards, Ledger, Line

store = store_of(*KINDS)
ledger = ledger_of_store()


async def test_a_unit_behind_one_that_the_disk_refused_is_not_written(ledger: Ledger) -> None:
    commit, failing = ledger.backend.commit, [True]

    def full() -> None:
        if failing:
            failing.pop()
            raise StoreFull("the disk is full")
        commit()

    ledger.backend.commit = full  # type: ignore[method-assign]
    line, other = Line(), Line()
    with pytest.raises(StoreFull):
        await ledger.append(note(n=1), line=line)
    with pytest.raises(StoreFull):  # the disk takes writes again, and this is why it is not written
        await ledger.append(note(n=2), line=line)
    await ledger.append(note(n=3), line=other)
    assert [entry.body["n"] for entry in await ledger.entries()] == [3]


async def test_a_unit_behind_one_that_is_no_entry_is_not_written_with_the_same_batch(ledger: Ledger) -> None:
    line = Line()
    wrong = Draft("", kinds.HALT, "", {})  # it lacks what the readings need
    outcomes = await asyncio.gather(
        ledger.append(note(n=1), line=line),
        ledger.append(wrong, line=line),
        ledger.append(note(n=2), line=line),
        ledger.append(note(n=3)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [list, LedgerError, LedgerError, list]
    assert [entry.body["n"] for entry in await ledger.entries()] == [1, 3]


async def test_a_refusal_by_a_guard_breaks_no_line(ledger: Ledger) -> None:
    line = Line()
    await begin(ledger, "r-1")
    with pytest.raises(GuardRefused):
        await ledger.append(note("r-1", n=1), guards=Guards(fresh=True), line=line)
    await ledger.append(note("r-1", 1, n=2), line=line)
