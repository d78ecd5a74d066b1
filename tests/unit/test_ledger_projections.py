"""Projections are readings: whatever is appended, in whatever batches, they are what the log alone gives."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import NOON, Store, note
from tightship.core import kinds
from tightship.core.errors import LedgerError, StoreFull
from tightship.ledger import Draft, Entry, Guards, Ledger
from tightship.ledger.audit import rebuild, verify
from tightship.ledger.projections import Folder, RunsProjection
from tightship.ledger.scratch import Scratch

RUNS = [f"r-{n}" for n in range(4)]
LOGS = ["default", "tenant b"]
money = st.integers(0, 10**12)
epochs = st.integers(1, 3)
runs = st.sampled_from(RUNS)
keys = st.sampled_from(["a/1", "b/2"])
claims = st.sampled_from(["k-1", "k-2", "k-3"])
text = st.text(max_size=8)


def entry(kind: str, run: Any, key: Any, epoch: Any, **fields: Any) -> st.SearchStrategy[Draft]:
    required = {name: field for name, field in fields.items() if not name.startswith("o_")}
    optional = {name[2:]: field for name, field in fields.items() if name.startswith("o_")}
    body = st.fixed_dictionaries(required, optional=optional)
    return st.builds(Draft, run=run, kind=st.just(kind), key=key, body=body, epoch=epoch)


effect = {
    "name": st.sampled_from(["shop.pay", "shop.look"]),
    "cls": st.sampled_from(["write", "read"]),
    "agent": st.sampled_from(["a", "b"]),
    "o_workflow": st.sampled_from(["w", "v"]),
}
empty = st.just("")
drafts = st.one_of(
    entry(kinds.STARTED, runs, empty, st.just(1), workflow=text, o_owner=text, o_priority=st.integers(-5, 5)),
    entry(kinds.CLAIMED, runs, empty, epochs, owner=text, o_build=text),
    entry(kinds.PARKED, runs, empty, epochs, wake_at=st.floats(0, 2 * NOON), o_seen=st.integers(0, 50)),
    entry(kinds.ENDED, runs, empty, epochs, outcome=st.sampled_from(kinds.OUTCOMES), o_usd=money, o_reason=text),
    entry(kinds.SIGNAL, runs, empty, st.just(0), type=st.just("wake"), by=text),
    entry(
        kinds.OPENED, runs, keys, epochs, item=st.sampled_from(["i-1", "i-2"]), o_title=text, o_due=st.floats(0, 1e9)
    ),
    entry(kinds.CLOSED, runs, empty, st.just(0), item=st.sampled_from(["i-1", "i-2"]), o_decision=text, o_by=text),
    entry(kinds.HALT, empty, empty, st.just(0), scope=st.sampled_from(["all", "run:r-1"]), o_by=text, o_reason=text),
    entry(kinds.UNHALT, empty, empty, st.just(0), scope=st.sampled_from(["all", "run:r-1"])),
    entry(kinds.ADMITTED, runs, keys, epochs, **effect, o_claim=claims),
    entry(
        kinds.SETTLED,
        runs,
        keys,
        epochs,
        **effect,
        o_claim=claims,
        o_usd=money,
        o_ms=st.floats(0, 1e6),
        o_tokens_in=st.integers(0, 10**6),
        o_cached=st.booleans(),
        o_releases=claims,
        o_error=st.fixed_dictionaries({"error": st.sampled_from(["WriteFailed", "OutcomeUnknown"])}),
        o_refused=st.just({"signal": "Denied"}),
    ),
    entry(
        kinds.ENVELOPE,
        empty,
        empty,
        st.just(0),
        scope=text,
        period=text,
        o_usd=st.integers(-(10**12), 10**12),
        o_calls=money,
    ),
    entry(kinds.EXTENDED, runs, empty, st.just(0), scope=text, o_period=text, o_usd=money),
    entry(kinds.ERASED, empty, empty, st.just(0), subject=st.sampled_from(["subject:1", "subject:2"]), o_by=text),
)
guards = st.one_of(
    st.none(),
    st.builds(
        Guards,
        claim=st.none() | claims,
        scopes=st.sampled_from([(), ("all",), ("run:r-1", "x")]),
        seen=st.none() | st.integers(0, 60),
        fresh=st.booleans(),
        takeover=st.none() | epochs,
        open_item=st.none() | st.sampled_from(["i-1", "i-2"]),
    ),
)
units = st.tuples(st.lists(drafts, min_size=1, max_size=3), guards, st.sampled_from(LOGS))
histories = st.lists(st.lists(units, min_size=1, max_size=6), min_size=1, max_size=8)


async def tell(ledger: Ledger, history: list[list[tuple[list[Draft], Guards | None, str]]]) -> list[Any]:
    """Append a history, one batch after the other; returns each unit's outcome."""
    outcomes: list[Any] = []
    for batch in history:
        appends = [ledger.append(*unit, guards=guard, log=log) for unit, guard, log in batch]
        for done in await asyncio.gather(*appends, return_exceptions=True):
            if isinstance(done, BaseException):
                assert isinstance(done, LedgerError), done
                outcomes.append((type(done).__name__, str(done)))
            else:
                outcomes.append([(found.n, found.log, found.kind, found.body) for found in done])
    return outcomes


async def tables(ledger: Ledger) -> dict[str, list[Any]]:
    return {table: await ledger.select(table) for table in ledger.folder.tables}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories)
def test_both_stores_judge_alike_and_every_projection_is_what_the_log_gives(history: Any) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as folder:
            told: list[Any] = []
            for kind in ("memory", "sqlite"):
                store = Store(kind, Path(folder))
                ledger = await store.open()
                outcomes = await tell(ledger, history)
                kept = await tables(ledger)
                report = await verify(ledger, integrate=False)
                # the erasures here are entries alone: no key was made or destroyed
                assert [found for found in report.findings if found.file != "keys/keys.db"] == []
                counts = await ledger.rebuild()
                assert await tables(ledger) == kept
                assert counts == {table: len(rows) for table, rows in kept.items()}
                again = await tell(ledger, history[:1])
                told.append((outcomes, kept, again))
                await store.close()
            assert told[0] == told[1], "the twin tells another story than SQLite"

    asyncio.run(check())


async def test_a_rebuild_makes_good_what_was_damaged(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    for number in range(5):
        await ledger.append(Draft(f"r-{number}", kinds.STARTED, "", {"workflow": "w"}, 1))
    kept = await tables(ledger)

    def damage() -> None:
        ledger.backend._db.execute("UPDATE runs SET state = 'ended' WHERE id = 'r-3'")  # type: ignore[union-attr]
        ledger.backend._db.execute("DELETE FROM runs WHERE id = 'r-1'")  # type: ignore[union-attr]
        ledger.backend._db.execute("INSERT INTO runs (id) VALUES ('r-9')")  # type: ignore[union-attr]

    await ledger.job(damage)
    report = await verify(ledger)
    places = [f"{found.place} {found.message}" for found in report.findings]
    assert [place.partition(";")[0] for place in places] == [
        "runs, row ['r-1'] is missing",
        "runs, row ['r-3'], column state holds 'ended', the log gives 'queued'",
        "runs, row ['r-9'] is not in the log",
    ]
    done: list[tuple[str, int, int]] = []
    assert (await rebuild(ledger, lambda *step: done.append(step))).tables["runs"] == 5
    assert done == [("entries", 5, 5)]
    assert await tables(ledger) == kept
    assert (await verify(ledger)).ok
    await ledger.append(Draft("r-3", kinds.ENDED, "", {"outcome": "completed"}, 1))
    await store.close()


async def test_a_rebuild_takes_in_what_is_appended_meanwhile(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger, other = await store.open(), await store.open()
    await asyncio.gather(*(ledger.append(note(n=n)) for n in range(3000)))
    rebuilding = asyncio.ensure_future(ledger.rebuild())
    for number in range(50):
        await ledger.append(Draft(f"r-{number}", kinds.STARTED, "", {"workflow": "w"}, 1))
        await other.append(Draft("", kinds.HALT, "", {"scope": f"run:{number}"}))
    counts = await rebuilding
    assert counts["runs"] <= 50
    report = await verify(ledger)
    assert report.ok, report.findings
    assert len(await ledger.select("runs")) == len(await ledger.select("halts")) == 50
    await store.close()


def test_a_full_disk_for_temporary_files_is_named_with_the_way_out() -> None:
    scratch = Scratch(Folder([RunsProjection()]))
    scratch._db.execute("PRAGMA max_page_count=60")
    entries = [
        Entry(n, float(n), "default", f"r-{n}", kinds.STARTED, "", 1, {"workflow": "w", "input": "i" * 200})
        for n in range(1, 2000)
    ]
    with pytest.raises(StoreFull, match="temporary files") as caught:
        scratch.fold(entries)
    assert "SQLITE_TMPDIR" in (caught.value.fix or "")
    scratch.close()
