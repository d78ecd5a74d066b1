"""An agent that says nearly the same again in other words is stopped; whoever says or learns something new is not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from engine_desk import Desk, simulate, tool, write
from hypothesis import given
from hypothesis import strategies as st

from tightship.controls.near_repeats import WINDOW, NearLimits, NearRepeats, gist, of_call
from tightship.core import kinds
from tightship.core.errors import DataMissing, NearRepeat
from tightship.insight.demand import demand
from tightship.insight.exposition import exposition
from tightship.review.package import Package
from tightship.runtime.result import Run

SAME = "opening year of the old iron bridge over the river"
FILLERS = ("again", "exactly", "kindly", "now", "once", "please tell", "really", "simply", "still", "quickly")


def reworded() -> Iterator[str]:
    """The same question in ever other words."""
    for first, second in itertools.permutations(FILLERS, 2):
        yield f"{first} the {SAME} {second}"


async def asks(ctx: Any, texts: Sequence[str], name: str = "search.web", **more: Any) -> int:
    """Ask for each of these; how many were answered."""
    for text in texts:
        try:
            await ctx.tool(name, {"text": text, **more})
        except DataMissing:
            continue
    return len(texts)


def searching(texts: Sequence[str], *tools: Any, config: str = "", **fields: Any) -> tuple[Run, Desk]:
    """A run in which an agent searches for these texts, one after the other, and finds nothing."""

    async def play(sim: Any) -> tuple[Run, Desk]:
        desk = Desk(sim, tools or [tool("search.web", [])], config)

        async def agent(ctx: Any, given: Any) -> Any:
            return {"asked": await asks(ctx, texts, next(iter(desk.tools)))}

        desk.agent("seeker", agent, **fields)
        desk.workflow("seeker")
        return await desk.run(), desk

    return simulate(play)


WORDINGS = list(itertools.islice(reworded(), 12))


# --- what is stopped -----------------------------------------------------------------------------------


def test_the_same_question_in_ever_other_words_is_stopped_and_says_what_was_repeated():
    run, desk = searching(WORDINGS)
    assert (run.outcome, run.reason) == ("escalated", "NearRepeat")
    assert len(desk.tools["search.web"].calls) == 3
    [note] = [entry for entry in run.entries if entry.kind == kinds.NOTE and entry.body["type"] == "near_repeat"]
    assert note.key == "seeker/seeker/1/tool/4/near"
    assert note.body["agent"] == "seeker" and note.body["tool"] == "search.web"
    assert note.body["like"] == [f"seeker/seeker/1/tool/{number}" for number in range(1, 4)]
    assert 0.7 <= note.body["similarity"] < 1
    assert SAME not in str(note.body)  # what was said stays sealed


def test_the_person_sees_what_was_repeated_and_how_alike_it_was():
    async def play(sim: Any) -> Any:
        desk = Desk(sim, [tool("search.web", [])])

        async def agent(ctx: Any, given: Any) -> Any:
            return {"asked": await asks(ctx, WORDINGS)}

        desk.agent("seeker", agent)
        desk.workflow("seeker")
        await desk.run()
        operator = await desk.operator()
        [item] = await operator.items()
        return Package.from_json((await operator.item(item.item))[1]), exposition(await demand(desk.ledger))

    package, metrics = simulate(play)
    assert package.title == "flow: an agent repeats itself in other words"
    assert package.evidence["times"] == 3
    assert 0.7 <= package.evidence["similarity"] < 1
    assert package.evidence["repeated"][0]["step"] == "seeker/seeker/1/tool/1"
    assert SAME in package.evidence["repeated"][0]["said"]
    assert 'tightship_inbox_near_repeat_items{tenant="default",workflow="flow"} 1' in metrics
    assert 'tightship_inbox_loop_items{tenant="default",workflow="flow"} 1' in metrics


def test_a_write_in_ever_other_words_is_stopped_too():
    run, desk = searching(WORDINGS, write("desk.note", "done"))
    assert run.reason == "NearRepeat"
    assert len(desk.tools["desk.note"].calls) == 3


def test_a_turn_that_is_given_and_gives_nearly_the_same_is_stopped_before_it_is_taken():
    async def play(sim: Any) -> tuple[Run, list[str]]:
        desk, taken = Desk(sim), list[str]()
        words, objections = reworded(), reworded()

        async def maker(ctx: Any, given: Any) -> Any:
            taken.append("maker")
            return {"text": f"I could not find the {next(words)}"}

        async def checker(ctx: Any, given: Any) -> Any:
            return {"ok": False, "objections": [f"it does not say the {next(objections)}"]}

        desk.agent("maker", maker)
        desk.agent("checker", checker, output={"ok": "bool", "objections": "list[str]"})
        desk.workflow({"maker_checker": {"maker": "maker", "checker": "checker", "rounds": 15}})
        return await desk.run(), taken

    run, taken = simulate(play)
    assert run.reason == "NearRepeat"
    assert 3 <= len(taken) <= 5
    denied = [entry for entry in run.entries if entry.kind == kinds.TURN and entry.body.get("denied")]
    assert [entry.body["error"]["error"] for entry in denied] == ["NearRepeat"]


# --- what is not ---------------------------------------------------------------------------------------

NUMBERS = [f"how high is the water level at the gauge of the town, reading {number}" for number in range(12)]
NAMES = [
    f"has anybody signed the large contract with {name} in the last month" for name in ("Ada", "Bo", "Cy", "Di", "Flo")
]
SUBJECTS = [
    "how high is the tower",
    "who built this large bridge",
    "when does the museum open today",
    "what is a ticket",
]


@pytest.mark.parametrize("texts", [NUMBERS, NAMES, SUBJECTS], ids=["numbers", "names", "subjects"])
def test_whoever_asks_for_other_things_is_not_stopped_though_the_answers_are_the_same(texts: list[str]):
    run, _ = searching(texts)
    assert run.outcome == "completed"


def test_whoever_finds_something_new_each_time_is_not_stopped():
    run, _ = searching(WORDINGS, tool("search.web", *([number] for number in range(20))))
    assert run.outcome == "completed"


def test_the_same_text_for_other_people_is_not_stopped():
    async def play(sim: Any) -> Run:
        desk = Desk(sim, [write("mail.send", "sent")])

        async def agent(ctx: Any, given: Any) -> Any:
            for number, text in enumerate(WORDINGS):
                await ctx.tool("mail.send", {"to": f"{'abcdefghijkl'[number]}@example.org", "text": text})
            return {}

        desk.agent("sender", agent)
        desk.workflow("sender")
        return await desk.run()

    assert simulate(play).outcome == "completed"


def test_each_item_of_a_list_is_a_line_of_its_own():
    async def play(sim: Any) -> Run:
        desk, words = Desk(sim, [tool("search.web", [])]), reworded()

        async def agent(ctx: Any, given: Any) -> Any:
            return {"asked": await asks(ctx, [next(words), next(words)])}

        desk.agent("seeker", agent, input={"one": "str"})
        desk.workflow({"foreach": {"in": '["a", "b", "c", "d", "e"]', "as": "one", "steps": ["seeker"]}})
        return await desk.run()

    assert simulate(play).outcome == "completed"


def test_short_outputs_that_are_alike_for_other_inputs_are_not_stopped():
    async def play(sim: Any) -> Run:
        desk = Desk(sim)

        async def sorter(ctx: Any, given: Any) -> Any:
            return {"label": "billing", "why": "the customer asks about an invoice that was paid"}

        desk.agent("sorter", sorter, input={"text": "str"})
        texts = [
            "my invoice was charged on the wrong card",
            "why do I pay for two seats",
            "send me last month's bill again",
        ]
        texts += ["the discount is missing from what you sent", "can you split the payment for our two offices"]
        desk.workflow(*({"agent": "sorter", "with": {"text": f'"{text}"'}} for text in texts))
        return await desk.run()

    assert simulate(play).outcome == "completed"


@pytest.mark.parametrize("between", ["write", "person"])
def test_what_happens_in_between_makes_a_new_beginning(between: str):
    async def play(sim: Any) -> Run:
        desk, words = Desk(sim, [tool("search.web", []), write("desk.note", "done")]), reworded()

        async def agent(ctx: Any, given: Any) -> Any:
            if between == "write":
                await ctx.tool("desk.note", {"number": next(numbers)})
            return {"asked": await asks(ctx, [next(words), next(words)])}

        numbers = itertools.count()
        desk.agent("seeker", agent)
        review = {"review": {"when": "true", "by": "operator", "within": "1h", "otherwise": "escalate"}}
        step: list[Any] = ["seeker"] if between == "write" else ["seeker", review]
        desk.workflow(*(one for _ in range(4) for one in step))
        begun = desk.begin()
        for _ in range(4 if between == "person" else 0):
            run = await begun
            assert run.state == "parked", run.reason
            await desk.answer("approve")
            begun = desk.process.start(desk.ws.resume([run.id]))
            await begun
            begun = desk.process.start(desk.ws.result(run.id))
        return await begun

    assert simulate(play).outcome == "completed"


def test_a_declared_bound_counts_for_the_run_and_an_agents_own_for_that_agent():
    assert len(searching(WORDINGS, config="limits: {similar: 6}")[1].tools["search.web"].calls) == 6
    assert searching(WORDINGS, config="limits: {similarity: 1.0}")[0].outcome == "completed"
    run, desk = searching(WORDINGS, limits={"similar": 2})
    assert (run.reason, len(desk.tools["search.web"].calls)) == ("NearRepeat", 2)


# --- over a crash --------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed_at", range(1, 4))
def test_no_restart_begins_the_count_anew(killed_at: int):
    async def play(sim: Any) -> tuple[Run, int, int]:
        desk, reached, lives = Desk(sim, [tool("search.web", [])]), asyncio.Event(), [0]

        async def agent(ctx: Any, given: Any) -> Any:
            lives[0] += 1
            for number, text in enumerate(WORDINGS, 1):
                if lives[0] == 1 and number > killed_at:
                    reached.set()
                    await asyncio.get_running_loop().create_future()
                await asks(ctx, [text])
            return {}

        desk.agent("seeker", agent, within="1h")
        desk.workflow("seeker")
        begun = desk.begin()
        await reached.wait()
        await asyncio.sleep(1)
        desk.kill()
        assert begun
        await desk.resume()
        return await desk.only(), len(desk.tools["search.web"].calls), lives[0]

    run, calls, lives = simulate(play)
    assert (run.reason, lives) == ("NearRepeat", 2)
    assert calls == 3


# --- what is compared ----------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from([f"word{'abcdefghij'[n]}{'klmnopqrst'[n]}" for n in range(10)]), min_size=3, max_size=30
)


@given(WORDS, st.randoms(use_true_random=False))
def test_order_case_and_repetition_of_words_change_nothing(said: list[str], chance: Any):
    other = [word.upper() for word in said] + said[:2]
    chance.shuffle(other)
    assert gist({"text": " ".join(said)}).likeness(gist({"text": ", ".join(other)})) == 1.0


@given(WORDS, WORDS)
def test_likeness_is_symmetric_and_the_share_of_words_in_common(one: list[str], other: list[str]):
    first, second = gist([" ".join(one)]), gist([" ".join(other)])
    assert first.likeness(second) == second.likeness(first)
    assert first.likeness(second) == pytest.approx(len({*one} & {*other}) / len({*one} | {*other}))


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({"to": "ann", "text": SAME}, {"to": "ben", "text": SAME}, False),
        ({"text": SAME, "limit": 5}, {"text": SAME, "limit": 6}, False),
        ({"text": f"{SAME} in 1886"}, {"text": f"{SAME} in 1887"}, False),
        ({"text": f"{SAME} of Porto"}, {"text": f"{SAME} of Lyon"}, True),
        ({"text": SAME}, {"text": SAME, "page": None}, False),
    ],
    ids=["short", "number", "number-inside", "name", "structure"],
)
def test_what_identifies_has_to_be_equal(one: Mapping[str, Any], other: Mapping[str, Any], names: bool):
    assert gist(dict(one), names).likeness(gist(dict(other), names)) == 0.0


def test_the_cost_of_a_state_does_not_grow_with_the_run():
    near, key = NearRepeats(NearLimits(similar=2)), "a/tool/{}"
    for number in range(10_000):
        body = {"cls": "read", "agent": "a", "name": "t", "args": f"args{number}", "out": "known"}
        near.observe(kinds.SETTLED, key.format(number), body)
    earlier = near.earlier("a", of_call("a", "t", "a/tool/1"))
    assert [one.given for one in earlier] == [f"args{number}" for number in range(10_000 - WINDOW, 10_000)]


def test_the_error_keeps_its_evidence_over_the_ledger():
    from tightship.effects.outcomes import describe, restore

    error = NearRepeat("so", evidence={"times": 3, "similarity": 0.8, "repeated": [{"said": "x"}]})
    head, detail = describe(error)
    again = restore(head, detail)
    assert isinstance(again, NearRepeat) and again.evidence == error.evidence
    assert "said" not in str(head)
