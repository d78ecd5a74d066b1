"""How a disagreement ends: no winner without its share, the order of answers counts for nothing, dissent is kept."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from fake_frame import World, frame
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tightship.core.errors import DataMissing, NoConsensus, RunFailed
from tightship.patterns import load_all
from tightship.patterns._settle import Ballot, Settle, alike, settle, tally

load_all()

NAMES = ("a", "b", "c", "d", "e")


def rule(**fields: Any) -> Settle:
    return Settle.model_validate(fields)


def votes(*values: Any) -> list[Ballot]:
    return [Ballot(name, value, f"{name} says so") for name, value in zip(NAMES, values, strict=False)]


@st.composite
def polls(draw: Any) -> tuple[list[Ballot], tuple[str, ...], Settle]:
    """Any rule over up to five voters, some of them absent."""
    entitled = NAMES[: draw(st.integers(1, 5))]
    said = [
        Ballot(name, absent="late") if draw(st.booleans()) and draw(st.booleans()) else Ballot(name, draw(ANSWER))
        for name in entitled
    ]
    weights = {name: draw(st.sampled_from([0.1, 0.2, 0.3, 1.0, 2.5])) for name in entitled}
    quorum = draw(st.integers(1, 5))
    order = draw(st.permutations(entitled))
    chosen = draw(st.sampled_from(["majority", "weighted", "unanimity", "quorum", "priority", "judge"]))
    return said, entitled, rule(rule=chosen, weights=weights, quorum=quorum, order=order)


ANSWER = st.sampled_from([True, False, "Yes", " yes", "no", 1, 1.0, None, {"amount": 3}, {"amount": 3.0}])


@given(polls(), st.randoms(use_true_random=False))
def test_the_order_of_the_ballots_makes_no_difference(poll: Any, chance: Any):
    said, entitled, how = poll
    shuffled = list(said)
    chance.shuffle(shuffled)
    assert tally(said, how, entitled) == tally(shuffled, how, entitled)


@given(polls())
def test_nobody_wins_without_the_stated_share(poll: Any):
    said, entitled, how = poll
    found = tally(said, how, entitled)
    assert set(found.for_) | set(found.against) | set(found.absent) <= set(entitled)
    if not found.decided:
        return
    n, share = len(entitled), len(found.for_)
    if how.rule == "majority":
        assert 2 * share > n
    if how.rule == "weighted":
        assert 2 * sum(how.weights[name] for name in found.for_) > sum(how.weights.values()) - 1e-9
    if how.rule == "unanimity":
        assert share == n and not found.against and not found.absent
    if how.rule == "quorum":
        assert how.quorum is not None and share >= how.quorum
    if how.rule == "judge":
        assert not found.against
    assert {alike(one.value) for one in said if one.by in found.for_} == {alike(found.value)}
    assert set(found.for_) | set(found.against) | set(found.absent) == set(entitled)


@given(polls(), st.integers(0, 4))
def test_one_voice_more_for_the_winner_never_makes_it_lose(poll: Any, index: int):
    said, entitled, how = poll
    found = tally(said, how, entitled)
    if not found.decided or how.rule == "priority":  # there, who is first and was absent, is heard first
        return
    name = entitled[index % len(entitled)]
    more = [Ballot(name, found.value) if one.by == name else one for one in said]
    again = tally(more, how, entitled)
    assert again.decided and alike(again.value) == alike(found.value)


@pytest.mark.parametrize(
    ("how", "values", "winner"),
    [
        ({"rule": "majority"}, (True, True, False), True),
        ({"rule": "majority"}, (True, True, False, False), None),
        ({"rule": "weighted", "weights": {"a": 3, "b": 1, "c": 1}}, ("x", "y", "y"), "x"),
        ({"rule": "weighted", "weights": {"a": 2, "b": 1, "c": 1}}, ("x", "y", "y"), None),
        ({"rule": "weighted", "weights": {"a": 0.1, "b": 0.2, "c": 0.3}}, ("x", "x", "y"), None),
        ({"rule": "unanimity"}, ("x", "x", "x"), "x"),
        ({"rule": "unanimity"}, ("x", "x", "y"), None),
        ({"rule": "quorum", "quorum": 2}, ("x", "x", "y", "z"), "x"),
        ({"rule": "quorum", "quorum": 2}, ("x", "x", "y", "y"), None),
        ({"rule": "quorum", "quorum": 3}, ("x", "x", "y"), None),
        ({"rule": "priority", "order": ["b", "a"]}, ("x", "y", "y"), "y"),
        ({"rule": "judge"}, ("x", "X ", "x"), "x"),
        ({"rule": "judge"}, ("x", "y"), None),
    ],
)
def test_every_rule_counts_as_it_says(how: dict[str, Any], values: tuple[Any, ...], winner: Any):
    found = tally(votes(*values), rule(**how), NAMES[: len(values)])
    assert (found.decided, found.value) == (winner is not None, winner)


def test_who_is_absent_counts_among_all_but_for_nobody():
    said = [Ballot("a", True), Ballot("b", True), Ballot("c", absent="too late")]
    assert tally(said, rule(rule="majority"), NAMES[:3]).decided
    found = tally(said, rule(rule="majority"), NAMES[:4])
    assert not found.decided and found.absent == {"c": "too late", "d": "gave no answer"}
    assert not tally(said, rule(rule="unanimity"), NAMES[:3]).decided


def test_the_first_who_answered_counts_when_the_very_first_is_absent():
    found = tally([Ballot("a", absent="x"), Ballot("b", 1), Ballot("c", 2)], rule(rule="priority", order=NAMES), NAMES)
    assert found.value == 1 and found.for_ == ("b",) and found.against == ("c",)


def test_spelling_makes_no_difference_and_the_common_one_is_given():
    for said in itertools.permutations([("a", "Accept"), ("b", "accept "), ("c", "Accept")]):
        found = tally([Ballot(name, value) for name, value in said], rule(rule="unanimity"), ("a", "b", "c"))
        assert found.value == "Accept"
    assert alike({"b": 1.0, "a": "ﬁne"}) == alike({"a": "FINE", "b": 1})
    assert len({alike(True), alike(1), alike("1"), alike(None), alike([])}) == 5


@pytest.mark.parametrize("said", [votes(1, 2) + votes(1), [Ballot("z", 1)]])
def test_nobody_answers_twice_or_without_being_entitled(said: list[Ballot]):
    with pytest.raises(ValueError, match=r"twice|not entitled"):
        tally(said, rule(rule="majority"), ("a", "b"))


def test_a_bare_word_is_the_rule_and_nonsense_is_refused():
    assert rule(rule="unanimity") == Settle.model_validate("unanimity")
    for wrong in (
        "best",
        {"rule": "quorum", "quorum": 0},
        {"weights": {"a": -1}},
        {"weights": {"a": float("nan")}},
        {"x": 1},
    ):
        with pytest.raises(ValidationError):
            Settle.model_validate(wrong)


async def test_an_agreement_is_noted_with_its_dissent():
    world = World()
    found = await settle(frame(world), votes(True, True, False), rule(rule="majority"))
    assert found.value is True and found.against == ("c",)
    ((_, kind, note),) = world.notes
    assert kind == "settled" and note["against"] == ["c"] and note["reasons"]["c"] == "c says so"


async def test_a_tie_escalates_with_every_answer_its_author_and_its_reason():
    world = World()
    with pytest.raises(NoConsensus, match="more than half") as ended:
        await settle(frame(world), [*votes("buy", "sell"), Ballot("z", absent="late")], rule(rule="majority"))
    evidence = ended.value.evidence
    assert evidence["answers"] == [
        {"by": "a", "answer": "buy", "reason": "a says so"},
        {"by": "b", "answer": "sell", "reason": "b says so"},
    ]
    assert evidence["absent"] == {"z": "late"}
    assert [option["label"] for option in ended.value.options] == ["buy (a)", "sell (b)"]
    assert [note["decided"] for _, _, note in world.notes] == [False]


async def test_a_tie_fails_or_falls_back_on_priority_as_declared():
    with pytest.raises(RunFailed):
        await settle(frame(World()), votes(1, 2), rule(rule="majority", otherwise="fail"))
    found = await settle(frame(World()), votes(1, 2), rule(rule="majority", otherwise="priority", order=["b"]))
    assert found.value == 2 and found.against == ("a",) and found.by == "priority"


@pytest.mark.parametrize("how", [{"rule": "judge"}, {"rule": "unanimity", "otherwise": "judge"}])
async def test_a_judge_is_asked_only_when_they_differ(how: dict[str, Any]):
    world = World(agents={"arbiter": lambda given, at: {"answer": "SELL", "reason": "the price falls"}})
    await settle(frame(world).at("1"), votes("buy", "buy"), rule(judge="arbiter", **how))
    assert not world.turns
    found = await settle(frame(world).at("2"), votes("buy", "sell"), rule(judge="arbiter", **how))
    assert found.value == "sell" and found.by == "judge" and "the price falls" in found.why
    assert len(world.turns) == 1


async def test_a_blind_judge_sees_answers_and_reasons_and_no_names():
    seen = list[Any]()

    def arbiter(given: Any, at: Any) -> Any:
        seen.append(at.scope.names["answers"])
        return "y"

    for blind in (False, True):
        for said in (votes("x", "y"), [Ballot("a", "y", "why"), Ballot("b", "x", "ex")]):
            top = frame(World(agents={"arbiter": arbiter}))
            await settle(top, said, rule(rule="judge", judge="arbiter", blind_judge=blind))
            assert "answers" not in top.scope.names
    assert seen[0][0] == {"answer": "x", "by": ["a"], "reasons": ["a says so"]}
    assert [list(one) for one in seen[2]] == [["answer", "reasons"]] * 2
    assert [one["answer"] for one in seen[2]] == [one["answer"] for one in seen[3]] == ["x", "y"]


async def test_a_judge_that_fails_or_invents_an_answer_decides_nothing():
    def fails(given: Any) -> Any:
        raise DataMissing("no prices")

    for agent, said in ((fails, "no prices"), (lambda given: "hold", "hold")):
        world = World(agents={"arbiter": agent})
        with pytest.raises(NoConsensus, match=said) as ended:
            await settle(frame(world), votes("buy", "sell"), rule(rule="judge", judge="arbiter"))
        assert len(ended.value.evidence["answers"]) == 2
    found = await settle(
        frame(World(agents={"arbiter": fails})),
        votes("buy", "sell"),
        rule(rule="judge", judge="arbiter", otherwise="priority", order=["b"]),
    )
    assert found.value == "sell"


async def test_too_few_answers_settle_nothing_whatever_they_say():
    said = [Ballot("a", 1), Ballot("b", absent="late"), Ballot("c", absent="late")]
    how = rule(rule="priority", order=["a"])
    with pytest.raises(NoConsensus, match="1 answered, 2 have to"):
        await settle(frame(World()), said, how, need=2)
    assert (await settle(frame(World()), said, how, need=1)).value == 1
