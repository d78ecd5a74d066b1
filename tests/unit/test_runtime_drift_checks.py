"""Checks for drift are made by themselves, once a slot; a year of them raises a false alarm as rarely as is declared."""

from __future__ import annotations

import random
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from engine_desk import OTHER, PERSON, Desk, simulate

from tightship.core import kinds
from tightship.insight.behaviour import behaviour
from tightship.insight.demand import demand
from tightship.insight.exposition import exposition
from tightship.review.inbox import Decision
from tightship.runtime.conduct import baselines
from tightship.runtime.drift import Observation, compare
from tightship.runtime.drift_checks import CHECK, DriftChecks, share
from tightship.runtime.samples import compare_numbers, exact_categories, exact_numbers
from tightship.runtime.simulation import Simulation
from tightship.workflow.models import DriftSpec

Json = Any
DAY = 86_400.0
SLOT = 600.0
CHECKS = 100
"""Of a year, in place of 365."""
SPEC = DriftSpec(role="operator", every=SLOT, fewest=8, latest=20, baseline=12)


# --- the test --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=8), st.integers(1, 7))
def test_of_all_ways_to_draw_no_more_are_found_different_than_the_level_says(values: list[int], size: int) -> None:
    size = min(size, len(values) - 1)
    numbers, words = list[float](), list[float]()
    for chosen in combinations(range(len(values)), size):
        first = [float(values[at]) for at in chosen]
        second = [float(value) for at, value in enumerate(values) if at not in chosen]
        numbers.append(exact_numbers(first, second).p)
        words.append(exact_categories([str(one) for one in first], [str(one) for one in second]).p)
    for found in (numbers, words):
        assert all(sum(one <= level + 1e-12 for one in found) <= level * len(found) + 1e-9 for level in found)


def test_of_the_seventy_ways_to_take_four_of_eight_one_is_as_low() -> None:
    assert exact_categories(["x"] * 4, ["y"] * 4).p == pytest.approx(2 / 70)
    low = exact_numbers([1, 2, 3, 4], [5, 6, 7, 8])
    assert low.effect == 1.0 and 2 / 70 < low.p < 1
    assert exact_numbers([1.0] * 9, [1.0] * 9).p == 1.0


def test_a_computed_p_is_as_small_as_a_year_of_checks_needs() -> None:
    before, after = ["order"] * 200, ["refund"] * 200
    assert exact_categories(before, after).p < 1e-100
    assert exact_numbers([float(n) for n in range(200)], [float(n + 150) for n in range(200)]).p < 1e-30
    assert compare_numbers([float(n) for n in range(50)], [float(n + 50) for n in range(50)], 999, "s").p > 1e-4


def one_run(chance: random.Random, number: int, drift: float = 0.0) -> Observation:
    topic = chance.choices(["order", "refund", "other"], [6 - 4 * drift, 3 + 4 * drift, 1])[0]
    values = {
        "output.topic": topic,
        "output.amount": chance.lognormvariate(3, 0.5),
        "calls": float(chance.random() < 0.3),
    }
    return Observation(f"r-{number}", float(number), values)


def alarms(years: int, level: float) -> int:
    """In how many years of checks of what has not changed something is told."""
    told = 0
    for seed in range(years):
        chance = random.Random(f"year {seed}")
        base = [one_run(chance, number) for number in range(40)]
        runs = [one_run(chance, number) for number in range(40, 80 + 3 * CHECKS)]
        days = (
            compare("s", base, runs[max(0, end - 40) : end], level=level, effect=0.0, exact=True)
            for end in range(40, 40 + 3 * CHECKS, 3)
        )
        told += any(day.changes for day in days)
    return told


def test_many_checks_share_one_chance_of_a_false_alarm() -> None:
    spec = DriftSpec(role="operator", every=DAY, level=0.05)
    assert share(spec) == pytest.approx(0.05 / 365) and share(spec) * 365 <= spec.level + 1e-12
    assert alarms(6, 0.2 / CHECKS) == 0
    assert alarms(6, 0.2) >= 3  # what the sharing prevents: one chance for each check adds up


def test_a_change_is_found_at_the_share_of_one_check() -> None:
    chance = random.Random("changed")
    base = [one_run(chance, number) for number in range(200)]
    after = [one_run(chance, number, 0.9) for number in range(200, 400)]
    [change] = compare("s", base, after, level=0.05 / 365, exact=True).changes
    assert change.feature == "output.topic"


# --- by themselves ---------------------------------------------------------------------------------


class Watched:
    """An agent that is compared every ten minutes, and that answers as the test says."""

    def __init__(self, sim: Simulation, spec: DriftSpec | None = SPEC) -> None:
        self.sim, self.topic, self.runs = sim, "order", 0
        self.desk = Desk(sim)
        self.desk.ledger.alone = True  # a day passes at once when nobody looks 20 times a second for what others do

        async def work(ctx: Any, given: Any) -> Any:
            return {"topic": self.topic}

        self.desk.agent("work", work, output={"topic": ["order", "refund"]}, drift=spec)
        self.desk.workflow("work")

    async def work(self, count: int) -> None:
        for _ in range(count):
            self.runs += 1
            await self.desk.run(case=str(self.runs))

    def checks(self) -> DriftChecks:
        return DriftChecks(self.desk.ledger, self.desk.ws.files)

    async def next_slot(self, looks: int = 1) -> None:
        now = self.sim.clock.now()
        await self.sim.clock.sleep(SLOT - now % SLOT + 1.0)
        for _ in range(looks):
            await self.checks().look()

    async def made(self) -> list[Json]:
        return [one.body for one in await self.desk.entries(kinds.DRIFT)]

    async def items(self) -> list[Json]:
        return [one for one in await (await self.desk.operator()).items() if one.type == "drift"]


async def drifted(sim: Simulation) -> Watched:
    """Twelve runs for a baseline, then sixteen with another topic, and a check."""
    watched = Watched(sim)
    await watched.work(12)
    await watched.next_slot()
    watched.topic = "refund"
    await watched.work(16)
    await watched.next_slot()
    return watched


def test_a_check_is_made_once_a_slot_however_many_look() -> None:
    async def story(sim: Simulation) -> Json:
        watched = Watched(sim)
        await watched.work(12)
        await watched.next_slot()  # the first twelve are the baseline
        base = (await baselines(watched.desk.ledger))["agent:work"]
        await watched.work(10)
        await watched.checks().look()  # not yet
        before = len(await watched.made())
        await watched.next_slot(looks=3)
        await watched.next_slot()  # nothing new has ended: nothing is spent
        return base, before, await watched.made(), await watched.items()

    base, before, made, items = simulate(story)
    assert (len(base.runs), base.by, before) == (12, "test", 0)
    [one] = made
    assert one["drifted"] == [] and one["runs"] == 10 and one["level"] == pytest.approx(0.05 * SLOT / (365 * DAY))
    assert items == []


def test_a_drift_is_an_entry_a_metric_and_an_item_with_its_evidence_until_somebody_accepts_it() -> None:
    async def story(sim: Simulation) -> Json:
        watched = await drifted(sim)
        [item] = await watched.items()
        operator = await watched.desk.operator()
        _, package = await operator.item(item.item)
        text = exposition(await demand(watched.desk.ledger))
        await watched.work(2)
        await watched.next_slot()  # it is found again, and told once
        again = len(await watched.items())
        await operator.decide(item.item, Decision("approve", PERSON, reason="refunds were asked for"))
        known = (await baselines(watched.desk.ledger))["agent:work"]
        await watched.work(12)
        await watched.next_slot()
        runs = await watched.desk.ledger.select("runs", [("id", "=", "conduct")])
        return item, package, text, again, known, await behaviour(watched.desk.ledger), await watched.items(), runs

    item, package, text, again, known, after, left, runs = simulate(story)
    assert (item.role, item.type) == ("operator", "drift") and again == 1
    [change] = [one for one in package["evidence"]["drifted"] if one["feature"] == "output.topic"]
    assert change["was"].startswith("order 100%") and change["runs"]
    assert 'tightship_drifted_features{subject="agent:work"} 1' in text
    assert known.by == PERSON and len(known.runs) == 16 and known.since < known.until
    assert after.drifted == {"agent:work": []} and left == [] and runs == []


def test_what_is_halted_by_a_drift_goes_on_once_it_is_decided() -> None:
    async def story(sim: Simulation) -> Json:
        watched = Watched(sim, SPEC.model_copy(update={"then": "halt"}))
        await watched.work(12)
        await watched.next_slot()
        watched.topic = "refund"
        await watched.work(16)
        await watched.next_slot()
        operator = await watched.desk.operator()
        halted = await operator.halts()
        stopped = await watched.desk.run(case="while it is halted")
        [item] = await watched.items()
        await operator.decide(item.item, Decision("answer", OTHER, "the prompt is as it was"))
        watched.topic = "order"
        await sim.clock.sleep(1.0)
        await watched.work(12)
        await watched.next_slot()
        base = (await baselines(watched.desk.ledger))["agent:work"]
        return halted, stopped, await operator.halts(), await watched.made(), base

    halted, stopped, after, made, base = simulate(story)
    assert [(row["scope"], row["by_whom"]) for row in halted] == [("agent:work", CHECK)]
    assert stopped.outcome != "completed"
    assert after == [] and base.by == "test"  # the baseline stands
    assert [bool(one["drifted"]) for one in made] == [True, False]  # runs before the answer are not held against it


def test_a_halt_that_a_person_has_set_is_not_lifted_by_the_decision() -> None:
    async def story(sim: Simulation) -> Json:
        watched = await drifted(sim)
        operator = await watched.desk.operator()
        await operator.halt("agent:work", PERSON, "by hand")
        [item] = await watched.items()
        await operator.decide(item.item, Decision("approve", PERSON))
        return await operator.halts()

    assert [row["scope"] for row in simulate(story)] == ["agent:work"]


def test_without_a_baseline_nothing_is_checked_until_somebody_records_one() -> None:
    async def story(sim: Simulation) -> Json:
        watched = Watched(sim, SPEC.model_copy(update={"baseline": None}))
        await watched.work(12)
        await watched.next_slot()
        none = await watched.made()
        base = await watched.checks().record("agent:work", 0.0, float("inf"), PERSON)
        await watched.work(12)
        await watched.next_slot()
        return none, base, await watched.made()

    none, base, made = simulate(story)
    assert none == [] and len(base.runs) == 12 and len(made) == 1


def test_a_check_that_could_never_say_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="30 are needed"):
        DriftSpec(role="lead", latest=20)
    with pytest.raises(ValueError, match="30 are needed"):
        DriftSpec(role="lead", baseline=10)
