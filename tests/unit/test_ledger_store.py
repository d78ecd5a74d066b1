"""One store algorithm: what an append promises, on SQLite, in memory and on Postgres alike."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import KINDS, NOON, Store, begin, note, started
from store_desk import ledger_of_store, store_of
from tightship.core import kinds
from tightship.core.errors import GuardRefused, LedgerError, PayloadTooLarge, StaleOwner
from tightship.ledger import Draft, Entry, Guards, Ledger

store = store_of(*KINDS)
ledger = ledger_of_store()


async def row(ledger: Ledger, run: str) -> dict[str, Any]:
    return (await ledger.select("runs", [("id", "=", run)]))[0]


# --- appending ---------------------------------------------------------------------------------------


async def test_an_appended_entry_reads_back_as_it_was_given(ledger: Ledger) -> None:
    body = {
        "type": "test",
        "text": "Grüße, 世界 🚢 \u0000",
        "numbers": [1, 2.5, -3, 2**53],
        "none": None,
        "deep": {"a": [{}]},
    }
    [entry] = await ledger.append(Draft("r-1", kinds.NOTE, "a/b", body))
    assert (entry.n, entry.run, entry.kind, entry.key, entry.epoch, entry.log) == (
        1,
        "r-1",
        kinds.NOTE,
        "a/b",
        0,
        "default",
    )
    assert await ledger.entries() == [entry]
    assert await ledger.run_entries("r-1") == [entry]
    assert entry.as_dict()["body"] == body


async def test_positions_are_gap_free_whoever_appends_at_once(ledger: Ledger) -> None:
    async def many(name: str) -> list[Entry]:
        appended: list[Entry] = []
        for number in range(20):
            appended += await ledger.append(note(name, n=number), note(name, n=-number))
        return appended

    lists = await asyncio.gather(*(many(f"r-{n}") for n in range(10)))
    entries = await ledger.entries(limit=10_000)
    assert [entry.n for entry in entries] == list(range(1, 401))
    for mine in lists:
        assert [entry.n for entry in mine] == sorted(entry.n for entry in mine), "one caller's entries keep their order"
        assert all(b.n == a.n + 1 for a, b in zip(mine[::2], mine[1::2], strict=True)), "a unit is not torn apart"
    assert await ledger.head() == 400


async def test_each_log_counts_for_itself(ledger: Ledger) -> None:
    units = [ledger.append(note(n=n), log=log) for n in range(3) for log in ("b", "a", "c d")]
    await asyncio.gather(*units)
    await ledger.append(note(n=3), log="a")
    for log, count in (("a", 4), ("b", 3), ("c d", 3)):
        entries = await ledger.entries(log=log)
        assert [(entry.n, entry.body["n"], entry.log) for entry in entries] == [(n + 1, n, log) for n in range(count)]
    assert await ledger.entries(log="none") == []
    assert await ledger.head("none") == 0


async def test_reading_goes_on_from_a_position(ledger: Ledger) -> None:
    await asyncio.gather(*(ledger.append(note(n=n)) for n in range(10)))
    assert [entry.n for entry in await ledger.entries(after=3, limit=4)] == [4, 5, 6, 7]
    assert await ledger.entries(after=10) == []


async def test_the_entries_of_runs_come_in_order_of_the_log(ledger: Ledger) -> None:
    for n in range(6):
        await ledger.append(note(f"r-{n % 3}", n=n))
    assert [entry.body["n"] for entry in await ledger.run_entries("r-1")] == [1, 4]
    grouped = await ledger.runs_entries(["r-2", "r-0", "r-9"])
    assert {run: [entry.body["n"] for entry in entries] for run, entries in grouped.items()} == {
        "r-0": [0, 3],
        "r-2": [2, 5],
        "r-9": [],
    }


async def test_store_time_goes_forward_even_when_the_machines_clock_goes_back(store: Store) -> None:
    ledger = await store.open()
    await ledger.append(note())
    store.clock.time -= 3600
    await ledger.append(note())
    await store.close()
    store.clock.time -= 3600
    again = await store.open()
    await again.append(note())
    times = [entry.at for entry in await again.entries()]
    assert times[0] < times[1] < times[2]
    if store.kind == "postgres":  # the server's clock counts, not this machine's
        assert abs(times[0] - time.time()) < 60
    else:
        assert NOON <= times[0] < times[2] < NOON + 1


async def test_a_unit_of_which_one_entry_is_refused_leaves_nothing(ledger: Ledger) -> None:
    await begin(ledger, "r-1")
    payload = ledger.seal(ledger.vault.new_scope("r-2"), {"a": 1})
    good = Draft("", kinds.HALT, "", {"scope": "all"}, 0, (payload,))
    with pytest.raises(StaleOwner):
        await ledger.append(good, note("r-1", epoch=7))
    assert await ledger.head() == 1
    assert await ledger.select("halts") == []
    assert await ledger.read_sealed([payload.address]) == {}


async def test_a_refused_unit_does_not_touch_the_others_of_its_batch(ledger: Ledger) -> None:
    await begin(ledger, "r-1")
    outcomes = await asyncio.gather(
        ledger.append(note("r-1", epoch=1, n=0)),
        ledger.append(note("r-1", epoch=2, n=1)),
        ledger.append(note("r-1", epoch=1, n=2)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], StaleOwner)
    assert [entry.body["n"] for entry in (await ledger.entries())[1:]] == [0, 2]


async def test_a_body_that_lacks_what_its_kind_has_is_refused_alone(ledger: Ledger) -> None:
    await begin(ledger, "r-1")
    outcomes = await asyncio.gather(
        ledger.append(note(n=0)),
        ledger.append(Draft("r-1", kinds.ENDED, "", {}, 1)),
        ledger.append(Draft("r-1", kinds.PARKED, "", {"wake_at": None}, 1)),
        ledger.append(note(n=1)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes[1:3]] == [LedgerError, LedgerError]
    assert [entry.body.get("n") for entry in await ledger.entries()] == [None, 0, 1]
    assert (await row(ledger, "r-1"))["state"] == "running"


async def test_an_entry_longer_than_a_log_can_hold_is_refused_at_once(ledger: Ledger) -> None:
    with pytest.raises(PayloadTooLarge):
        await ledger.append(note(text="x" * 65_536))
    [entry] = await ledger.append(note(text="x" * 65_000))
    assert len(entry.data) < 65_536


async def test_what_is_no_json_is_refused_at_once(ledger: Ledger) -> None:
    with pytest.raises(TypeError):
        await ledger.append(note(bad=object()))
    with pytest.raises(TypeError):
        await ledger.append(note(bad="\ud800"))
    assert await ledger.head() == 0


# --- guards ------------------------------------------------------------------------------------------


async def test_a_fresh_run_starts_once(ledger: Ledger) -> None:
    starts = [ledger.append(started("r-1", n=n), guards=Guards(fresh=True)) for n in range(3)]
    outcomes = await asyncio.gather(*starts, return_exceptions=True)
    assert [isinstance(outcome, GuardRefused) for outcome in outcomes] == [False, True, True]
    with pytest.raises(GuardRefused) as refused:
        await begin(ledger, "r-1")
    assert (refused.value.reason, refused.value.holder) == ("exists", "r-1")


async def test_a_signal_alone_is_no_run_yet(store: Store, ledger: Ledger) -> None:
    await ledger.append(Draft("r-1", kinds.SIGNAL, "", {"type": "wake"}))
    with pytest.raises(StaleOwner):
        await ledger.append(note("r-1", epoch=1))
    other = await store.open()
    await begin(other, "r-1")
    with pytest.raises(GuardRefused, match="unread signal"):
        await other.append(Draft("r-1", kinds.PARKED, "", {"seen": 0}, 1), guards=Guards(seen=0))


async def test_only_the_owner_of_the_epoch_writes(ledger: Ledger) -> None:
    await begin(ledger, "r-1")
    await ledger.append(note("r-1", epoch=1))
    claimed = Draft("r-1", kinds.CLAIMED, "", {"owner": "there"}, 2)
    await ledger.append(claimed, guards=Guards(takeover=1))
    with pytest.raises(StaleOwner):
        await ledger.append(note("r-1", epoch=1))
    await ledger.append(note("r-1", epoch=2))
    await ledger.append(Draft("r-1", kinds.SIGNAL, "", {"type": "wake"}))
    assert (await row(ledger, "r-1"))["epoch"] == 2


async def test_of_two_takeovers_one_succeeds_also_in_one_batch(ledger: Ledger) -> None:
    await begin(ledger, "r-1")
    claims = [Draft("r-1", kinds.CLAIMED, "", {"owner": f"worker {n}"}, 2) for n in range(3)]
    outcomes = await asyncio.gather(
        *(ledger.append(claim, guards=Guards(takeover=1)) for claim in claims), return_exceptions=True
    )
    assert [isinstance(outcome, StaleOwner) for outcome in outcomes] == [False, True, True]
    assert (await row(ledger, "r-1"))["owner"] == "worker 0"


async def test_a_run_that_is_not_there_or_has_ended_is_not_taken_over(ledger: Ledger) -> None:
    claim = Draft("r-1", kinds.CLAIMED, "", {"owner": "x"}, 2)
    with pytest.raises(StaleOwner):
        await ledger.append(claim, guards=Guards(takeover=1))
    await begin(ledger, "r-1")
    await ledger.append(Draft("r-1", kinds.ENDED, "", {"outcome": "completed"}, 1))
    with pytest.raises(StaleOwner):
        await ledger.append(claim, guards=Guards(takeover=1))


async def test_a_run_that_was_parked_in_this_batch_can_be_taken_over_in_it(ledger: Ledger) -> None:
    await begin(ledger, "r-1")
    parked = ledger.append(Draft("r-1", kinds.PARKED, "", {"wake_at": 1.0}, 1))
    taken = ledger.append(Draft("r-1", kinds.CLAIMED, "", {"owner": "x"}, 2), guards=Guards(takeover=1))
    await asyncio.gather(parked, taken)
    assert (await row(ledger, "r-1"))["state"] == "running"


@pytest.mark.parametrize("together", [True, False])
async def test_a_run_ends_once(ledger: Ledger, together: bool) -> None:
    await begin(ledger, "r-1")
    end = Draft("r-1", kinds.ENDED, "", {"outcome": "completed"}, 1)
    first = ledger.append(end)
    if not together:
        await first
    late = [ledger.append(end), ledger.append(note("r-1", epoch=1))]
    assert all(isinstance(outcome, StaleOwner) for outcome in await asyncio.gather(*late, return_exceptions=True))
    await first
    assert [entry.kind for entry in await ledger.run_entries("r-1")] == [kinds.STARTED, kinds.ENDED]


async def test_a_run_may_start_and_go_on_in_one_unit(ledger: Ledger) -> None:
    await ledger.append(started("r-1"), note("r-1", epoch=1), guards=Guards(fresh=True))
    with pytest.raises(StaleOwner):
        await ledger.append(started("r-2"), note("r-2", epoch=2), guards=Guards(fresh=True))


@pytest.mark.parametrize("together", [True, False])
async def test_a_run_does_not_park_over_an_unread_signal(ledger: Ledger, together: bool) -> None:
    await begin(ledger, "r-1")
    signal = ledger.append(Draft("r-1", kinds.SIGNAL, "", {"type": "wake"}))
    if not together:
        await signal
    parked = Draft("r-1", kinds.PARKED, "", {"wake_at": 0.0, "seen": 0}, 1)
    with pytest.raises(GuardRefused) as refused:
        await ledger.append(parked, guards=Guards(seen=0))
    assert refused.value.reason == "signal"
    [seen] = await signal
    await ledger.append(parked, guards=Guards(seen=seen.n))
    assert (await row(ledger, "r-1"))["state"] == "parked"


@pytest.mark.parametrize("together", [True, False])
async def test_nothing_starts_in_a_halted_scope(ledger: Ledger, together: bool) -> None:
    halt = ledger.append(Draft("", kinds.HALT, "", {"scope": "workflow:w", "by": "ann"}))
    if not together:
        await halt
    with pytest.raises(GuardRefused) as refused:
        await ledger.append(started("r-1"), guards=Guards(scopes=("all", "workflow:w")))
    assert (refused.value.reason, refused.value.holder) == ("halted", "workflow:w")
    await ledger.append(started("r-2"), guards=Guards(scopes=("all", "workflow:v")))
    await ledger.append(Draft("", kinds.UNHALT, "", {"scope": "workflow:w"}))
    await ledger.append(started("r-1"), guards=Guards(scopes=("all", "workflow:w")))


def admit(run: str, key: str = "a/1") -> Draft:
    return Draft(run, kinds.ADMITTED, key, {"name": "t", "cls": "write", "agent": "a", "claim": "c-1"}, 1)


def settle(run: str, key: str = "a/1", **body: Any) -> Draft:
    return Draft(run, kinds.SETTLED, key, {"name": "t", "cls": "write", "agent": "a", "claim": "c-1", **body}, 1)


async def test_a_business_key_is_claimed_once(ledger: Ledger) -> None:
    await asyncio.gather(begin(ledger, "r-1"), begin(ledger, "r-2"))
    claim = Guards(claim="c-1")
    outcomes = await asyncio.gather(
        ledger.append(admit("r-1"), guards=claim), ledger.append(admit("r-2"), guards=claim), return_exceptions=True
    )
    assert isinstance(outcomes[1], GuardRefused)
    assert (outcomes[1].reason, outcomes[1].holder) == ("claim", "r-1")
    await ledger.append(admit("r-1"), guards=claim)  # the holder itself may try again
    with pytest.raises(GuardRefused):
        await ledger.append(admit("r-1", "a/2"), guards=claim)
    await ledger.append(settle("r-1", out="x"))
    with pytest.raises(GuardRefused):
        await ledger.append(admit("r-2"), guards=claim)


@pytest.mark.parametrize("together", [True, False])
async def test_a_claim_that_failed_for_certain_is_free_again(ledger: Ledger, together: bool) -> None:
    await asyncio.gather(begin(ledger, "r-1"), begin(ledger, "r-2"))
    claim = Guards(claim="c-1")
    await ledger.append(admit("r-1"), guards=claim)
    failed = ledger.append(settle("r-1", error={"error": "WriteFailed"}))
    if not together:
        await failed
    await ledger.append(admit("r-2"), guards=claim)
    await failed
    assert (await ledger.select("claims"))[0]["run"] == "r-2"


async def test_an_inbox_item_is_decided_once(ledger: Ledger) -> None:
    await begin(ledger, "r-1")
    opened = ledger.append(Draft("r-1", kinds.OPENED, "review", {"item": "i-1", "type": "review"}, 1))
    decide = Draft("r-1", kinds.CLOSED, "", {"item": "i-1", "decision": "approve", "by": "ann"})
    guard = Guards(open_item="i-1")
    outcomes = await asyncio.gather(
        opened, ledger.append(decide, guards=guard), ledger.append(decide, guards=guard), return_exceptions=True
    )
    assert [isinstance(outcome, GuardRefused) for outcome in outcomes] == [False, False, True]
    with pytest.raises(GuardRefused, match="not open"):
        await ledger.append(decide, guards=guard)
    with pytest.raises(GuardRefused):
        await ledger.append(decide, guards=Guards(open_item="i-2"))


# --- others ------------------------------------------------------------------------------------------


async def test_listeners_hear_what_was_appended_and_whether_another_process_did(store: Store) -> None:
    ours, theirs = await store.open(), await store.open()
    heard: list[tuple[list[Any], bool]] = []
    stop = ours.listen(lambda entries, foreign: heard.append(([entry.body["n"] for entry in entries], foreign)))
    await theirs.append(note(n=1))
    await theirs.append(note(n=2), log="another")
    if store.kind == "postgres":  # an append does not carry the work of all others: they are asked for
        await ours.poll()
    await ours.append(note(n=3))
    assert heard == [([1, 2], True), ([3], False)]
    heard.clear()
    await theirs.append(note(n=4))
    await ours.poll()
    assert heard == [([4], True)]
    heard.clear()
    await ours.poll()
    stop()
    stop()
    await ours.append(note(n=5))
    assert heard == []


async def test_what_another_process_appends_is_known_to_the_guards(store: Store) -> None:
    ours, theirs = await store.open(), await store.open()
    await begin(ours, "r-1")
    await ours.append(note("r-1", epoch=1))
    await theirs.append(Draft("r-1", kinds.CLAIMED, "", {"owner": "them"}, 2), guards=Guards(takeover=1))
    with pytest.raises(StaleOwner):
        await ours.append(note("r-1", epoch=1))
    await theirs.append(Draft("", kinds.HALT, "", {"scope": "all"}))
    with pytest.raises(GuardRefused):
        await ours.append(note(), guards=Guards(scopes=("all",)))
    await theirs.append(note("r-1", epoch=2))
    entries = await ours.entries()
    assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))


async def test_a_second_process_may_be_the_first_to_write_a_log(store: Store) -> None:
    ours, theirs = await store.open(), await store.open()
    await ours.poll()
    await theirs.append(note(n=1), log="tenant")
    await ours.append(note(n=2))
    await theirs.append(note(n=3))
    assert [entry.body["n"] for entry in await ours.entries(log="tenant")] == [1]
    assert [entry.body["n"] for entry in await theirs.entries()] == [2, 3]


async def test_a_new_opening_knows_all_that_was(store: Store) -> None:
    first = await store.open()
    await begin(first, "r-1")
    await first.append(Draft("", kinds.HALT, "", {"scope": "all"}))
    await first.close()
    again = await store.open()
    with pytest.raises(GuardRefused):
        await begin(again, "r-1")
    with pytest.raises(GuardRefused):
        await again.append(note("r-1", epoch=1), guards=Guards(scopes=("all",)))
    await again.append(note("r-1", epoch=1))
    assert await again.head() == 3


# --- selecting ---------------------------------------------------------------------------------------


async def test_select_compares_orders_and_limits(ledger: Ledger) -> None:
    for number, owner in enumerate(["b", "a", "b", "c"]):
        await begin(ledger, f"r-{number}", owner=owner, priority=number * 10)

    async def ids(*where: Any, order: Any = (), limit: int | None = None) -> list[str]:
        return [found["id"][2:] for found in await ledger.select("runs", where, order, limit)]

    assert await ids() == ["0", "1", "2", "3"], "in order of the key where nothing else is said"
    assert await ids(("owner", "=", "b")) == ["0", "2"]
    assert await ids(("owner", "!=", "b")) == ["1", "3"]
    assert await ids(("priority", "<", 20)) == ["0", "1"]
    assert await ids(("priority", "<=", 20)) == ["0", "1", "2"]
    assert await ids(("priority", ">", 10), ("owner", "=", "b")) == ["2"]
    assert await ids(("priority", ">=", 10), limit=2) == ["1", "2"]
    assert await ids(("owner", "in", ["a", "c", "nobody"])) == ["1", "3"]
    assert await ids(("id", "in", ["r-3", "r-0", "r-0"])) == ["0", "3"]
    assert await ids(("id", "=", "r-2"), ("owner", "=", "a")) == []
    assert await ids(("owner", "in", [])) == []
    assert await ids(order=[("owner", "asc"), ("priority", "desc")]) == ["1", "2", "0", "3"]
    assert await ids(order=[("priority", "desc")], limit=1) == ["3"]
    assert await ids(limit=0) == []


@pytest.mark.parametrize(
    ("table", "where", "order", "error"),
    [
        ("entries", [], [], KeyError),
        ("sqlite_master", [], [], KeyError),
        ("runs", [("nothing", "=", 1)], [], KeyError),
        ("runs", [("id", "LIKE", "%")], [], ValueError),
        ("runs", [], [("id; DROP TABLE runs", "asc")], KeyError),
        ("runs", [], [("id", "asc; DROP TABLE runs")], ValueError),
    ],
)
async def test_select_takes_no_name_that_is_not_there(
    ledger: Ledger, table: str, where: Any, order: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await ledger.select(table, where, order)


async def test_values_cannot_break_out_of_a_condition(ledger: Ledger) -> None:
    await begin(ledger, "r-1", workflow="x' OR '1'='1")
    assert await ledger.select("runs", [("workflow", "=", "' OR '1'='1")]) == []
    assert len(await ledger.select("runs", [("workflow", "in", ["x' OR '1'='1", '"]'])])) == 1
