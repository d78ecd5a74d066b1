"""A log that has lost its end is read, never written: new entries would take the places of signed ones."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import Store, note
from store_desk import store_of
from tightship.core.errors import StoreCorrupt
from tightship.ledger import Ledger
from tightship.ledger.audit import verify
from tightship.ledger.sequencer import Sequencer

store = store_of("sqlite")


async def written(store: Store, signed: int = 5, unsigned: int = 0) -> None:
    """A store whose process has ended: so many entries under a checkpoint, so many behind it."""
    ledger = await store.open()
    for n in range(signed):
        await ledger.append(note(n=n))
    await Sequencer(ledger).run_once()
    for n in range(unsigned):
        await ledger.append(note(n=n))
    await ledger.close()


def change(store: Store, *statements: str) -> None:
    with closing(sqlite3.connect(store.folder / "store" / "ledger.db")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


LAST = "DELETE FROM entries WHERE id = (SELECT max(id) FROM entries)"
HEAD = "UPDATE logs SET head = head - 1"


@pytest.mark.parametrize(
    ("unsigned", "damage", "missing"),
    [(0, (LAST,), 5), (0, (LAST, HEAD), 5), (2, (LAST,), 7), (2, (LAST, LAST, LAST, HEAD, HEAD, HEAD), 5)],
)
async def test_a_log_without_its_end_is_not_appended_to(
    store: Store, unsigned: int, damage: tuple[str, ...], missing: int
) -> None:
    await written(store, unsigned=unsigned)
    change(store, *damage)
    ledger = await store.open()
    with pytest.raises(StoreCorrupt, match=f"entry {missing} of log 'default' is not there") as caught:
        await ledger.append(note(n=9))
    assert "audit verify" in (caught.value.fix or "") and "restore" in (caught.value.fix or "")
    with pytest.raises(StoreCorrupt):
        await ledger.append(note(n=9))
    found = await verify(ledger)
    assert not found.ok
    assert len(await ledger.entries()) < 5 + unsigned, "and it is read all the same"


async def with_values(store: Store, unsigned: int) -> None:
    """As `written`, and each entry has a value."""
    ledger = await store.open()
    scope = ledger.vault.scope(["tenant:a"])
    for n in range(3 + unsigned):
        value = ledger.seal(scope, f"value {n}")
        draft = note(out=value.address)
        draft.payloads = (value,)
        await ledger.append(draft)
        if n == 2:
            await Sequencer(ledger).run_once()
    await ledger.close()


@pytest.mark.parametrize("cut", [0, 1, 2])
async def test_an_unsigned_end_that_was_cut_off_with_its_head_has_left_its_values(store: Store, cut: int) -> None:
    await with_values(store, unsigned=2)
    change(store, *[LAST, HEAD] * cut)
    found = await verify(await store.open())
    told = [(finding.place, finding.message) for finding in found.findings]
    assert found.ok == (cut == 0)
    for place, message in told:
        assert "named by no entry: the end of a log was cut off" in message
        assert place == f"payloads, from row {6 - cut} on"
    assert len(told) == min(cut, 1)


async def test_whole_logs_are_appended_to_by_several_processes(store: Store) -> None:
    await written(store, unsigned=2)
    first, second = await store.open(), await store.open()
    await first.append(note(n=1), log="other")
    await Sequencer(first).run_once()
    await second.append(note(n=2), log="other")
    await second.append(note(n=3))
    assert (await second.head("other"), await second.head()) == (2, 8)


async def test_a_new_store_is_whole() -> None:
    ledger = Ledger.in_memory()
    ledger.check_whole()
    await ledger.append(note(n=1))
    assert await ledger.head() == 1
