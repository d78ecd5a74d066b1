"""What people and workers look at reads what it shows, however much more is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from engine_desk import Desk, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.context import listing
from tightship.core import kinds
from tightship.insight import halting
from tightship.insight.halting import preview
from tightship.ledger import Draft, Guards, Ledger
from tightship.runtime.reconcile import Lost, Reconciler
from tightship.runtime.simulation import Simulation
from tightship.runtime.workspace import projections

DAY = "2026-01-01"


def watched(ledger: Ledger) -> list[tuple[str, int]]:
    """Table and rows of each selection from now on."""
    read, select = list[tuple[str, int]](), ledger.select

    async def selecting(table: str, *args: Any, **more: Any) -> Any:
        rows = await select(table, *args, **more)
        read.append((table, len(rows)))
        return rows

    ledger.select = selecting  # type: ignore[method-assign]
    return read


async def write(ledger: Ledger, places: Sequence[tuple[str, str]]) -> None:
    """Values without anything in them, by key and scope."""
    payload = ledger.seal(ledger.vault.scope({"tenant:default"}), 1)
    for key, scope in places:
        body = {"scope": scope, "key": key, "value": payload.address, "writer": "ann"}
        await ledger.append(Draft("", kinds.CONTEXT, "", body, 0, (payload,)))


@settings(deadline=None, max_examples=30)
@given(
    st.sets(
        st.tuples(st.sampled_from(["a", "a/b", "a/c", "b/b", "a-b/b"]), st.sampled_from(["run:1", "run:2", "t:x"]))
    ),
    st.integers(1, 5),
    st.sampled_from(["", "a/*", "*/b", "a/b"]),
)
def test_pages_together_hold_every_value_once_and_in_order(
    places: set[tuple[str, str]], limit: int, pattern: str
) -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        await desk.ledger.own_keys("tenant:default")
        await write(desk.ledger, sorted(places, reverse=True))
        found, after = list[tuple[str, str]](), None
        while True:
            page = await desk.ws.context.page(pattern, limit=limit, after=after)
            assert len(page.values) <= limit
            found += [(value.key, scope) for scope, value in page.values]
            if page.next is None:
                break
            after = page.next
        fits = {"": lambda _: True, "a/*": lambda k: k[:2] == "a/", "*/b": lambda k: k[-2:] == "/b"}
        assert found == sorted(one for one in places if fits.get(pattern, lambda k: k == "a/b")(one[0]))
        assert [(value.key, scope) for scope, value in await desk.ws.context.list(pattern)] == found

    simulate(story)


def test_a_listing_reads_a_row_more_than_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LOOKED", 20)

    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        await desk.ledger.own_keys("tenant:default")
        await write(desk.ledger, [(f"stock/{n:03d}", "tenant:default") for n in range(200)])
        await write(desk.ledger, [("x/rare", "tenant:default")])
        read = watched(desk.ledger)
        page = await desk.ws.context.page("stock/*", limit=7, after=("stock/100", "tenant:default"))
        assert [value.key for _, value in page.values] == [f"stock/{n:03d}" for n in range(101, 108)]
        assert sum(rows for _, rows in read) == 8
        read.clear()
        rare = await desk.ws.context.page("*/rare", limit=7)
        assert (rare.values, rare.next is None) == ([], False), "it looks at so many, and says where it has stopped"
        assert sum(rows for _, rows in read) <= 20 + 8

    simulate(story)


def test_what_is_counted_of_keys_is_read_for_those_that_are_shown() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        await desk.ledger.own_keys("tenant:default")
        places = [(f"stock/{n:03d}", scope) for n in range(100) for scope in ("run:1", "tenant:default")]
        await write(desk.ledger, [*places, ("x/rare", "tenant:default")])
        context = desk.ws.context
        read = watched(desk.ledger)
        part = await context.counted("stock/*", limit=7, after=("stock/050", "tenant:default"))
        assert [(one.key, one.scope) for one in part.stats] == places[102:109]
        assert part.next == places[108]
        assert sum(rows for _, rows in read) == 8
        found, after = list[tuple[str, str]](), None
        while page := await context.counted("stock/*", limit=30, after=after):
            found += [(one.key, one.scope) for one in page.stats]
            if (after := page.next) is None:
                break
        assert found == [(one.key, one.scope) for one in await context.stats("stock/*")] == places

    simulate(story)


def waiting(sim: Simulation) -> Desk:
    """Two workflows whose runs wait for a person; one of them has a run below it."""
    desk = Desk(sim)
    ask = {"review": {"when": "true", "by": "operator"}}
    desk.workflow(ask, name="below")
    desk.workflow({"workflow": "below"}, name="above")
    desk.workflow(ask)
    return desk


def test_the_preview_of_a_halt_says_when_it_is_a_part_and_reads_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halting, "PASSED", 2)

    async def story(sim: Simulation) -> None:
        desk = waiting(sim)
        for _ in range(9):
            await desk.run()
        await desk.run("above")
        read = watched(desk.ledger)
        part = await preview(desk.ledger, "all", limit=3)
        assert part.partial and part.as_dict()["partial"] and len(part.runs) == 3 and len(part.items) == 3
        assert "at least 3 parked" in part.render() and "this is a part" in part.render()
        assert sum(rows for table, rows in read if table == "runs") <= 4
        read.clear()
        await preview(desk.ledger, "workflow:above", limit=1)
        assert sum(rows for table, rows in read if table == "runs") <= 2 * 1 + 2 + 2
        whole = await preview(desk.ledger, "all", limit=11)
        assert not whole.partial and len(whole.runs) == 11
        assert (await preview(desk.ledger, "all", limit=10)).partial
        above = await preview(desk.ledger, "workflow:above", limit=20)
        assert not above.partial and above.by_workflow() == {"above": {"parked": 1}, "below": {"parked": 1}}
        cut = await preview(desk.ledger, "workflow:above", limit=1)
        assert cut.partial and len(cut.runs) <= 1

    simulate(story)


def test_looking_for_lost_loans_reads_those_of_lost_workers() -> None:
    async def story(sim: Simulation) -> None:
        ledger = Ledger.in_memory(sim.world(), projections())
        for worker in range(50):
            body = {"scope": "tenant:default", "period": DAY, "owner": f"w-{worker}", "usd": 5}
            await ledger.append(Draft("", kinds.ENVELOPE, "", body), guards=Guards())
        lost: list[Lost] = []

        async def gone() -> Sequence[Lost]:
            return lost

        reconciler, read = Reconciler(ledger, gone), watched(ledger)
        await reconciler.look()
        assert sum(rows for _, rows in read) == 0
        lost.append(Lost("w-7", 0.0))
        await reconciler.look()
        assert sum(rows for table, rows in read if table == "loans") == 1
        [row] = await ledger.select("loans", [("owner", "=", "w-7")])
        assert (row["closed"], row["usd"]) == (1, 0)

    simulate(story)
