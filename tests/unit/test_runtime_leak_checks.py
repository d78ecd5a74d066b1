"""Leaks between runs are looked for by themselves, once a slot; each entry is read once, and never more than is declared."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from engine_desk import PERSON, Desk, simulate

from tightship.core import kinds
from tightship.insight.behaviour import behaviour
from tightship.insight.demand import demand
from tightship.insight.exposition import exposition
from tightship.review.inbox import Decision
from tightship.review.package import Package
from tightship.runtime import leaks
from tightship.runtime.leak_checks import LeakChecks
from tightship.runtime.leaks import Span, find_leaks, look_through, make_canary
from tightship.runtime.simulation import Simulation
from tightship.workflow.conduct import LeakSpec

Json = Any
SLOT = 600.0
CONFIG = "leaks: {role: operator, every: 10m, window: 1h, entries: 5000}\n"


class Watched:
    """A workspace in which leaks are looked for every ten minutes, with an agent that remembers, or does not."""

    def __init__(self, sim: Simulation, config: str = CONFIG) -> None:
        self.sim, self.memory, self.leaks = sim, list[str](), False
        self.desk = Desk(sim, config=config)
        self.desk.ledger.alone = True  # time passes at once when nobody looks 20 times a second for what others do

        async def work(ctx: Any, given: Any) -> Any:
            self.memory.append(given["case"])
            return {"about": " ".join(self.memory) if self.leaks else given["case"]}

        self.desk.agent("work", work, input={"case": "str"}, output={"about": "str"})
        self.desk.workflow("work")

    async def next_slot(self, looks: int = 1, slots: int = 1) -> None:
        now = self.sim.clock.now()
        await self.sim.clock.sleep(slots * SLOT - now % SLOT + 1.0)
        for _ in range(looks):
            await LeakChecks(self.desk.ledger, self.desk.ws.files).look()

    async def made(self) -> list[Json]:
        return [one.body for one in await self.desk.entries(kinds.LEAKS)]

    async def items(self) -> list[Json]:
        return [one for one in await (await self.desk.operator()).items() if one.type == "leak"]


def test_a_check_is_made_once_a_slot_however_many_look_and_reads_only_what_is_new() -> None:
    async def story(sim: Simulation) -> Json:
        watched = Watched(sim)
        await watched.desk.run(case="first")
        await watched.next_slot(looks=3)
        await watched.next_slot()  # no run has done anything since: it is not worth an entry
        await watched.desk.run(case="second")
        await watched.next_slot()
        return await watched.made(), await watched.items()

    made, items = simulate(story)
    assert [(one["runs"], one["leaks"], one["left"]) for one in made] == [(1, [], 0)] * 2 and items == []
    assert made[1]["since"] == made[0]["upto"]


def test_a_leak_is_an_entry_a_figure_and_an_item_until_somebody_decides() -> None:
    async def story(sim: Simulation) -> Json:
        watched = Watched(sim)
        canary = make_canary(watched.desk.ledger)
        home = await watched.desk.run(case=f"case {canary}")
        await watched.next_slot()  # the run that it was put into is known from here on
        clean = exposition(await demand(watched.desk.ledger))
        watched.leaks = True
        reached = await watched.desk.run(case="another")
        await watched.next_slot()
        [item] = await watched.items()
        operator = await watched.desk.operator()
        package = Package.from_json((await operator.item(item.item))[1])
        text = exposition(await demand(watched.desk.ledger))
        await watched.desk.run(case="a third")
        await watched.next_slot()  # it waits with the first one
        waiting, more = await watched.items(), exposition(await demand(watched.desk.ledger))
        await operator.decide(item.item, Decision("answer", PERSON, "the cache is gone"))
        watched.leaks = False
        await watched.desk.run(case="a fourth")
        await watched.next_slot()  # what no item tells of yet is told now
        after = await watched.items()
        await operator.decide(after[0].item, Decision("approve", PERSON))
        done = await behaviour(watched.desk.ledger)
        return canary, home.id, reached.id, item, package, clean, text, waiting, more, after, done, await watched.made()

    canary, home, reached, item, package, clean, text, waiting, more, after, done, made = simulate(story)
    assert (item.role, item.type, item.title) == (
        "operator",
        "leak",
        "something has crossed from run to run; runs reached: 1",
    )
    [leak] = package.evidence["leaks"]
    assert (leak["home"], leak["run"], leak["agent"]) == (home, reached, "work")
    assert canary not in str(package) and canary not in str(made)
    assert "tightship_open_leaks 0" in clean and "tightship_open_leaks 1" in text and "tightship_open_leaks 2" in more
    assert [one.item for one in waiting] == [item.item]
    assert len(after) == 1 and after[0].item != item.item
    assert done.leaks is not None and done.leaks.total() == 0
    assert [len(one["leaks"]) for one in made] == [0, 1, 1, 0]


def test_a_process_that_dies_at_the_check_makes_it_whole_or_not_at_all_and_the_next_one_makes_it() -> None:
    async def story(sim: Simulation) -> Json:
        watched = Watched(sim)
        await watched.desk.run(case=f"case {make_canary(watched.desk.ledger)}")
        watched.leaks = True
        await watched.desk.run(case="another")
        now = sim.clock.now()
        await sim.clock.sleep(SLOT - now % SLOT + 1.0)
        dying = watched.desk.process.start(LeakChecks(watched.desk.ledger, watched.desk.ws.files).look())
        await sim.clock.sleep(0.0)
        watched.desk.kill()
        assert not dying.done() or dying.cancelled()
        for _ in range(2):
            await LeakChecks(watched.desk.ledger, watched.desk.ws.files).look()
        return await watched.made(), await watched.items()

    made, items = simulate(story)
    assert [len(one["leaks"]) for one in made] == [1] and len(items) == 1


def test_whoever_serves_makes_it_without_being_asked() -> None:
    async def story(sim: Simulation) -> Json:
        watched = Watched(sim)
        watched.leaks = True
        for case in (f"case {make_canary(watched.desk.ledger)}", "another"):
            await watched.desk.run(case=case)
        stop = asyncio.Event()
        serving = watched.desk.process.start(watched.desk.ws.serve(stop))
        for _ in range(15):
            await sim.clock.sleep(30.0)
            if await watched.made():
                break
        stop.set()
        await serving
        return await watched.made(), await watched.items()

    [made], [item] = simulate(story)
    assert len(made["leaks"]) == 1 and made["item"] == item.item


def test_a_check_reads_no_further_back_than_its_window() -> None:
    async def story(sim: Simulation) -> Json:
        watched = Watched(sim, "leaks: {role: operator, every: 10m, window: 10m}\n")
        watched.leaks = True
        await watched.desk.run(case=f"early {make_canary(watched.desk.ledger)}")
        await watched.desk.run(case="early as well")
        early = await watched.desk.ledger.head()
        await watched.next_slot(slots=3)  # half an hour later
        none = await watched.made()
        await watched.desk.run(case="now")
        await watched.next_slot()
        return early, none, await watched.made()

    early, none, [made] = simulate(story)
    assert none == [] and made["runs"] == 1 and made["leaks"] == [] and made["since"]["default"] >= early


def test_what_a_check_has_no_room_for_is_read_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PAGE", 3)

    async def story(sim: Simulation) -> Json:
        watched = Watched(sim)
        spec = LeakSpec(role="operator", every=SLOT, window=86_400.0)
        object.__setattr__(watched.desk.ws.files.config, "leaks", spec.model_copy(update={"entries": 8}))
        watched.leaks = True
        await watched.desk.run(case=f"case {make_canary(watched.desk.ledger)}")
        for number in range(5):
            await watched.desk.run(case=f"case {number}")
        for _ in range(10):
            await watched.next_slot()
        return await watched.made(), await find_leaks(watched.desk.ledger)

    made, report = simulate(story)
    assert all(one["entries"] <= 8 for one in made) and made[0]["left"] > 0 and made[-1]["left"] == 0
    assert [b["since"] == a["upto"] for a, b in zip(made, made[1:], strict=False)] == [True] * (len(made) - 1)
    found = {(leak["mark"], leak["run"]) for one in made for leak in one["leaks"]}
    assert found == {(leak.mark, leak.run) for leak in report.leaks} and len(found) == 5


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_in_whatever_parts_the_ledger_is_read_the_same_is_found(page: int, parts: list[int]) -> None:
    async def story(sim: Simulation) -> Json:
        watched = Watched(sim)
        watched.leaks = True
        for number in range(3):
            await watched.desk.run(case=f"case {number} {make_canary(watched.desk.ledger)}")
        ledger, before = watched.desk.ledger, leaks.PAGE
        head, whole = await ledger.head(), await find_leaks(ledger)
        asked, read, at = list[int](), set[tuple[str, str]](), 0
        inner = ledger.entries

        async def counted(after: int = 0, limit: int = 1000, log: str = "default") -> Json:
            asked.append(limit)
            return await inner(after, limit, log)

        ledger.entries = counted  # type: ignore[method-assign]
        leaks.PAGE = page  # type: ignore[misc]
        try:
            while at < head:
                size = parts[len(asked) % len(parts)]
                seen = await look_through(ledger, [Span("default", at, head)], size)
                assert seen.entries <= size and seen.left == head - seen.upto["default"]
                read, at = read | set(seen.first), seen.upto["default"]
        finally:
            leaks.PAGE = before  # type: ignore[misc]
        return read, whole, max(asked)

    read, whole, most = simulate(story)
    homes = {(mark, run) for mark, run in whole.canaries.items()}
    assert read == homes | {(leak.mark, leak.run) for leak in whole.leaks} and most <= page


def test_a_window_that_leaves_something_out_is_refused() -> None:
    with pytest.raises(ValueError, match="would not be read"):
        LeakSpec(role="lead", every=86_400.0, window=3600.0)
