"""A vote: blind voters side by side, absent ones recorded, one person one voice; and what `check` says about one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fake_frame import World, frame
from sample_workspace import load

from tightship.core.errors import ChecksExhausted, DataMissing, LoadError, NoConsensus, RunFailed
from tightship.patterns import MakerChecker, Vote, load_all
from tightship.workflow.build import Workflow
from tightship.workflow.models import WorkflowSpec
from tightship.workflow.readiness import check_workspace

load_all()


def spec(*steps: Any) -> WorkflowSpec:
    return Workflow("sample", owner="tests", purpose="try a vote", steps=list(steps))


async def run(step: Any, world: World, **names: Any) -> Any:
    top = frame(world, **names)
    return await spec(step).root.execute(top)


def says(ok: Any, reason: str = "") -> Any:
    return lambda given: {"ok": ok, "reason": reason}


def fails(given: Any) -> Any:
    raise DataMissing("no price today")


async def test_voters_run_side_by_side_and_their_majority_counts_with_the_dissent_kept():
    last = asyncio.Event()

    async def waits(given: Any) -> Any:
        await last.wait()
        return {"ok": True}

    def frees(given: Any) -> Any:
        last.set()
        return {"ok": True}

    world = World(agents={"a": waits, "b": says(False, "too dear"), "c": frees})
    found = await run(Vote("a", "b", "c", compare="answer.ok"), world)
    assert found["value"] is True and found["for"] == ["a", "c"] and found["against"] == ["b"]
    assert found["reasons"] == {"b": "too dear"}
    assert found["tally"] == [
        {"answer": True, "by": ["a", "c"], "counts": 2},
        {"answer": False, "by": ["b"], "counts": 1},
    ]


async def test_the_whole_output_is_the_answer_when_nothing_else_is_said():
    world = World(agents={"a": lambda given: "Yes", "b": lambda given: "yes ", "c": lambda given: "no"})
    assert (await run(Vote("a", "b", "c"), world))["for"] == ["a", "b"]


async def test_no_voter_sees_another_one_nor_what_one_said_in_an_earlier_round():
    seen = list[set[str]]()

    async def looks(given: Any, at: Any) -> Any:
        await asyncio.sleep(0)
        seen.append(set(at.scope.names))
        return {"ok": True}

    world = World(agents={"before": says(True), "a": looks, "b": looks, "c": looks})
    vote = {"vote": {"voters": ["a", ["b", "c"]], "compare": "answer.ok"}}
    loop = {"foreach": {"in": "[1, 2]", "as": "one", "steps": [vote], "max": 2}}
    top = frame(world)
    await spec("before", loop).root.execute(top)
    assert len(seen) == 6
    assert all(names & {"a", "b", "c"} <= {"b"} for names in seen)  # c comes after b in one voter, and sees b
    assert sum("b" in names for names in seen) == 2
    assert not {"a", "b", "c"} & set(top.scope.names)


async def test_who_fails_is_late_abstains_or_cannot_be_read_is_absent():
    agents = {"a": says(True), "b": fails, "c": says(True), "d": says(None), "e": lambda given: {"other": 1}}
    world = World(agents=agents, late={"c"})
    found = await run(Vote("a", "b", "c", "d", "e", compare="answer.ok", within="10s", settle="judge"), world)
    assert found["value"] is True and found["for"] == ["a"]
    absent = found["absent"]
    assert absent["b"] == "no price today" and absent["d"] == "abstained"
    assert "10 s" in absent["c"] and "answer.ok" in absent["e"]
    with pytest.raises(NoConsensus):
        await run(Vote("a", "b", "c", "d", "e", compare="answer.ok"), World(agents=agents))


async def test_too_few_answers_settle_nothing():
    world = World(agents={"a": says(True), "b": fails, "c": fails})
    settle = {"rule": "quorum", "quorum": 1}
    with pytest.raises(NoConsensus, match="1 answered, 2 have to"):
        await run(Vote("a", "b", "c", compare="answer.ok", settle=settle, need=2), world)


async def test_a_voter_may_be_any_step():
    world = World(agents={"a": says(True), "b": says(True), "c": says(False), "d": says(True)})
    steps = [["a", "b"], {"when": {"if": "true", "then": "c", "else": "d"}}, "d"]
    found = await run({"vote": {"voters": steps, "compare": "answer.ok"}}, world)
    assert len(found["for"]) == 2 and len(found["against"]) == 1


async def test_a_person_has_one_voice_whatever_the_spelling():
    world = World(agents={"a": says(True)}, people={"1": ["Ann "], "2": ["ann"], "3": ["ben"]})
    vote = Vote("a", "a", "a", compare="answer.ok", settle={"rule": "quorum", "quorum": 2})
    found = await run(vote, World(agents=world.agents, people={f"vote/{k}": v for k, v in world.people.items()}))
    assert found["for"] == ["a", "a-3"] and found["absent"] == {"a-2": "ann had answered already"}


@pytest.mark.parametrize(("order", "accepted"), [(["a", "b"], True), (["b", "a"], False)])
async def test_maker_and_checker_settle_when_their_rounds_run_out(order: list[str], accepted: bool):
    world = World(agents={"a": lambda g: {"text": "draft"}, "b": lambda g: {"ok": False, "objections": ["dull"]}})
    step = MakerChecker(maker="a", checker="b", rounds=2, settle={"rule": "priority", "order": order})
    assert step.then == "settle"
    if accepted:
        assert await run(step, world) == {"text": "draft"}
    else:
        with pytest.raises(ChecksExhausted, match="was not accepted") as ended:
            await run(step, world)
        assert ended.value.evidence["draft"] == {"text": "draft"}


async def test_a_judge_ends_the_disagreement_of_maker_and_checker_and_sees_both():
    def judge(given: Any, at: Any) -> Any:
        names = at.scope.names
        assert names["a"] == {"text": "draft"} and names["answers"][0]["reasons"] == ["dull"]
        return {"answer": True, "reason": "good enough"}

    agents = {"a": lambda g: {"text": "draft"}, "b": lambda g: {"ok": False, "objections": ["dull"]}, "j": judge}
    rule = {"rule": "judge", "judge": "j"}
    assert await run(MakerChecker(maker="a", checker="b", settle=rule), World(agents=agents)) == {"text": "draft"}
    never = {**agents, "j": lambda g: "perhaps"}
    with pytest.raises(NoConsensus):
        await run(MakerChecker(maker="a", checker="b", settle=rule), World(agents=never))
    with pytest.raises(RunFailed):
        await run(MakerChecker(maker="a", checker="b", settle={**rule, "otherwise": "fail"}), World(agents=never))


@pytest.mark.parametrize(
    "fields",
    [{"then": "settle"}, {"then": "fail", "settle": "majority"}, {"settle": {"rule": "best"}}],
)
def test_a_rule_and_the_end_that_uses_it_belong_together(fields: dict[str, Any]):
    with pytest.raises(LoadError):
        MakerChecker(maker="a", checker="b", **fields)


# --- what check says -----------------------------------------------------------------------------------

HEAD = """\
workflow: support
owner: care
purpose: answer a ticket
input: {ticket: str}
budget: {usd: 0.30, seconds: 120, then: escalate}
escalate_to: lead
steps:
"""
OPINION = """\
agent: %s
owner: care
purpose: say what it is about
python: %s
input: {ticket: str}
output: {topic: [refund, order], ok: bool}
within: 30s
"""
PERSON = """\
agent: person
owner: care
purpose: say what it is about
human: lead
input: {ticket: str}
output: {topic: [refund, order], ok: bool}
within: 4h
"""


def found(folder: Path, steps: str, **more: str) -> dict[str, str]:
    files = {f"agents/{name}.yaml": OPINION % (name, f"opinions:{name}") for name in ("one", "two", "three")}
    files |= {
        "agents/twin.yaml": OPINION % ("twin", "opinions:one"),
        "agents/person.yaml": PERSON,
        "agents/opinions.py": "".join(f"def {n}(ctx, ticket):\n    return {{}}\n\n\n" for n in ("one", "two", "three")),
        "workflows/support.yaml": HEAD + steps,
    }
    return {one.rule: one.where for one in check_workspace(load(folder, {**files, **more}))}


def rules_of(folder: Path, vote: str) -> set[str]:
    steps = f"  - vote: {vote}\n"
    return {
        rule
        for rule in found(folder, steps)
        if rule in {f"TS{number}" for number in (*range(523, 530), *range(534, 539))}
    }


@pytest.mark.parametrize(
    ("vote", "rules"),
    [
        ("{voters: [one, two, three], within: 30s}", set()),
        ("{voters: [one, two, three], within: 30s, settle: {rule: quorum, quorum: 2}}", set()),
        ("{voters: [person, person, one], within: 4h, settle: unanimity}", set()),
        ("{voters: [one], within: 30s}", {"TS523"}),
        ("{voters: [one, two], need: 3, within: 30s}", {"TS523"}),
        ("{voters: [one, twin, two], within: 30s}", {"TS525"}),
        ("{voters: [person, person, person], within: 4h}", {"TS526"}),
        ("{voters: [one, two]}", {"TS527"}),
        ("{voters: [one, two], within: 30s, settle: weighted}", {"TS534"}),
        ("{voters: [one, two, three], within: 30s, settle: {rule: weighted, weights: {one: 1, two: 1}}}", {"TS534"}),
        ("{voters: [one, two], within: 30s, settle: quorum}", {"TS534"}),
        ("{voters: [one, two], within: 30s, settle: priority}", {"TS534"}),
        ("{voters: [one, two], within: 30s, settle: judge}", {"TS534"}),
        ("{voters: [one, two], within: 30s, settle: {rule: majority, otherwise: judge}}", {"TS534"}),
        ("{voters: [one, two], within: 30s, settle: {rule: priority, order: [one, too]}}", {"TS535"}),
        ("{voters: [one, two], within: 30s, settle: {rule: quorum, quorum: 3}}", {"TS536"}),
        ("{voters: [one, two], within: 30s, settle: {rule: quorum, quorum: 1}}", {"TS537"}),
        ("{voters: [one, two], within: 30s, settle: {rule: weighted, weights: {one: 3, two: 1}}}", {"TS537"}),
        ("{voters: [one, two], within: 30s, settle: {rule: judge, judge: two}}", {"TS538"}),
        ("{voters: [one, two], within: 30s, settle: {rule: judge, judge: three}}", set()),
    ],
)
def test_check_finds_a_vote_that_cannot_come_about(tmp_path: Path, vote: str, rules: set[str]):
    assert rules_of(tmp_path, vote) == rules


def test_a_finding_names_its_line_and_names_of_voters_mean_nothing_after_the_vote(tmp_path: Path):
    steps = (
        "  - vote:\n      voters: [one, two]\n      within: 30s\n"
        "      settle: {rule: quorum, quorum: 5}\n    name: topic\n"
        '  - checkpoint: one.topic == "refund" && topic.decided && topic.value == "order"\n'
    )
    place = found(tmp_path, steps)
    assert place["TS536"].startswith("workflows/support.yaml:11:")
    assert place["TS400"].startswith("workflows/support.yaml:13:")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{voters: [one, two], settle: best}", "rule"),
        ("{voters: [one, two], settle: {rule: quorum, quorun: 2}}", "quorun"),
        ("{voters: [one, two], settle: {weights: {one: heavy}}}", "weights"),
        ("{voters: [one, two], comparee: answer.ok}", "compare"),
        ("{voters: []}", "no step"),
    ],
)
def test_bad_yaml_is_told_with_its_place(tmp_path: Path, written: str, said: str):
    loaded = load(tmp_path, {"workflows/support.yaml": HEAD + f"  - vote: {written}\n"})
    problem = next(one for one in loaded.problems if said in str(one))
    assert problem.file == "workflows/support.yaml" and problem.line == 8 and problem.column and problem.fix


def test_the_answers_schema_is_known_after_the_vote(tmp_path: Path):
    steps = (
        "  - vote: {voters: [one, two, three], within: 30s, compare: answer.topic}\n    name: topic\n"
        '  - checkpoint: topic.value == "weather" || topic.vlue == "refund"\n'
    )
    place = found(tmp_path, steps)
    assert {"TS402", "TS403"} <= set(place)
