"""What releases a result in a run: calibrated confidence above a threshold, and a threshold that people's decisions teach."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any

import orjson
import pytest
from engine_desk import PERSON, Desk, simulate

from tightship.core import kinds
from tightship.core.errors import BoundaryError, InputRejected, UnknownName
from tightship.core.ports import Json
from tightship.review.inbox import Decision
from tightship.runtime.reviewers import Reviewers
from tightship.runtime.simulation import Simulation
from tightship.workflow.build import Agent, Workflow
from tightship.workflow.config import WorkspaceConfig

LEARN = {"error": 0.1, "audit": 0.2}
STATED = {"output": {"answer": "str", "amount": "float", "confidence": "float"}}


def simulated(test: Any) -> Any:
    """The test in virtual time; its other parameters stay parameters of the test."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        simulate(lambda sim: test(sim, **given))

    names = inspect.signature(test)
    run.__signature__ = names.replace(parameters=list(names.parameters.values())[1:])  # type: ignore[attr-defined]
    return run


def outcomes(folder: Path, name: str = "outcomes.jsonl") -> None:
    """Recorded outcomes of a confidence that is right as often as it says."""
    lines = [
        {"confidence": said / 100, "correct": at * 100 < said * 20} for said in range(5, 100, 5) for at in range(20)
    ]
    (folder / name).write_bytes(b"\n".join(orjson.dumps(one) for one in lines))


def desk_of(
    sim: Simulation, *, calibrated: bool = True, learn: Json = None, when: str = "", source: str = "classifier"
) -> Desk:
    """A desk with one agent, `triage`, whose confidence and amount stand in the case, and a review of what it gave."""
    config = "roles: {operator: [ann, bob], other: [cy]}\n"
    desk = Desk(sim)
    (desk.folder / "tightship.yaml").write_text(f"name: desk\n{config}")
    outcomes(desk.folder)
    desk.open()

    async def triage(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        said, _, amount = given["case"].partition(" ")
        return {"answer": "yes", "amount": float(amount or 0), "confidence": float(said)}

    stated = {"source": source, **({"calibrated_on": "outcomes.jsonl"} if calibrated else {})}
    desk.agent("triage", triage, input={"case": "str"}, confidence=stated, **STATED)
    review: dict[str, Any] = {"when": when or "triage.confidence < threshold || triage.amount > 100.0"}
    review |= {"by": "operator", "within": "4h", "otherwise": "escalate", **({"learn": learn} if learn else {})}
    desk.workflow("triage", {"review": review})
    return desk


async def reviewers(desk: Desk) -> Reviewers:
    return Reviewers(desk.ledger, desk.ws.files, desk.world)


async def decide(desk: Desk, kind: str = "approve", by: str = PERSON) -> None:
    """Somebody decides the one item that is open."""
    operator = await desk.operator()
    [item] = [one for one in await operator.items() if one.type == "review"]
    await operator.decide(item.item, Decision(kind, by))  # type: ignore[arg-type]
    await desk.resume()


async def case(desk: Desk, said: str, decision: str = "approve") -> str:
    """One case: `released`, or `asked` and decided."""
    run = await desk.run(case=said)
    if run.outcome == "completed":
        return "released"
    await decide(desk, decision)
    return "asked"


@pytest.mark.parametrize(("calibrated", "outcome"), [(True, "completed"), (False, "")])
@simulated
async def test_only_a_calibrated_confidence_releases(sim: Simulation, calibrated: bool, outcome: str) -> None:
    desk = desk_of(sim, calibrated=calibrated)
    assert (await desk.run(case="0.99")).outcome == outcome
    if not calibrated:
        [item] = await (await desk.operator()).items()
        package = (await (await desk.operator()).item(item.item))[1]
        assert "triage.confidence is not calibrated, so it releases nothing" in str(package["what_happened"])
        [given] = [one.body["value"] for one in await desk.entries(kinds.DECIDED) if "/given/" in one.key]
        assert given["threshold"] > 1 and given["uncalibrated"] == ["triage.confidence"]
    else:
        assert (await desk.run(case="0.79")).outcome == ""


@simulated
async def test_outcomes_that_support_nothing_are_no_calibration(sim: Simulation) -> None:
    desk = desk_of(sim, source="checker")
    (desk.folder / "outcomes.jsonl").write_text('{"confidence": 0.9, "correct": true}\n' * 200)
    assert (await desk.run(case="0.99")).outcome == ""


@simulated
async def test_a_checker_s_score_is_mapped_to_what_it_is_worth(sim: Simulation) -> None:
    desk = desk_of(sim, source="checker")
    lines = [
        {"confidence": said / 100, "correct": at * 100 < said * 10} for said in range(5, 100, 5) for at in range(20)
    ]
    (desk.folder / "outcomes.jsonl").write_bytes(b"\n".join(orjson.dumps(one) for one in lines))  # right half as often
    assert (await desk.run(case="0.95")).outcome == ""
    [told] = [one.body["value"] for one in await desk.entries(kinds.DECIDED) if one.key.endswith("/confidence")]
    assert told["raw"] == 0.95 and told["confidence"] < 0.7 and told["source"] == "checker"


@simulated
async def test_samples_that_agree_are_turns_and_their_share_is_the_confidence(sim: Simulation) -> None:
    desk, told = Desk(sim), iter(["Yes", " yes ", "no", "YES", "maybe"])
    outcomes(desk.folder)

    async def answer(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"answer": next(told)}

    stated = {"source": "agreement", "of": "answer", "samples": 5, "calibrated_on": "outcomes.jsonl"}
    desk.agent("answer", answer, confidence=stated, output={"answer": "str", "confidence": "float"})
    desk.workflow("answer", output={"answer": "answer.answer", "confidence": "answer.confidence"}, limits={"turns": 5})
    run = await desk.run()
    assert run.outcome == "completed", run
    assert run.output["answer"] == "Yes" and 0.45 < run.output["confidence"] < 0.75  # 3 of 5, as outcomes map it
    desk.workflow("answer", name="tight", limits={"turns": 4})
    assert (await desk.run("tight")).outcome == "escalated"  # five samples are five turns


@simulated
async def test_samples_count_on_when_the_run_is_taken_over(sim: Simulation) -> None:
    desk, asked = Desk(sim), sim.loop.create_future()
    outcomes(desk.folder)

    async def answer(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"answer": "yes"}

    async def hangs(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        if not asked.done():
            asked.set_result(None)
            await sim.loop.create_future()
        return {"ok": True}

    stated = {"source": "agreement", "of": "answer", "samples": 5, "calibrated_on": "outcomes.jsonl"}
    desk.agent("answer", answer, tools=[], confidence=stated, output={"answer": "str", "confidence": "float"})
    desk.agent("hangs", hangs, tools=[])
    desk.workflow("answer", "hangs", "answer", limits={"turns": 10})
    desk.begin()
    await asked
    await sim.world().clock.sleep(1.0)
    desk.kill()
    await desk.resume()
    assert (await desk.only()).reason == "LimitReached"  # five, one, and five more


@simulated
async def test_a_class_learns_from_decisions_and_then_asks_less(sim: Simulation) -> None:
    desk = desk_of(sim, learn=LEARN)
    assert [await case(desk, "0.95") for _ in range(50)] == ["asked"] * 50  # until it has learned everybody is seen
    said = [await case(desk, "0.95") for _ in range(40)]
    assert "released" in said
    [set_] = (await desk.entries(kinds.THRESHOLD))[:1]
    assert set_.body["class"] == "flow/triage" and set_.body["state"] == "learned" and set_.body["by"] == "learning"
    assert set_.body["wrong"] == 0 and set_.body["cases"] >= 40 and set_.body["error"] == 0.1
    given = [one.body["value"] for one in await desk.entries(kinds.DECIDED) if "class" in (one.body["value"] or {})]
    assert given[-1]["version"] >= set_.n and given[-1]["state"] == "learned"
    desk.kill()  # another process learns on from the same ledger
    assert (await (await reviewers(desk)).thresholds())[0].threshold is not None
    # whatever was learned, stakes decide
    assert await case(desk, "0.99 500") == "asked"
    assert await case(desk, "0.99 500") == "asked"


@simulated
async def test_errors_of_released_cases_are_noticed_and_unlearned(sim: Simulation) -> None:
    desk = desk_of(sim, learn={"error": 0.1, "audit": 1.0})
    for _ in range(60):
        await case(desk, "0.95")
    [standing] = await (await reviewers(desk)).thresholds()
    assert standing.state == "learned"
    for _ in range(30):
        await case(desk, "0.95", "reject")
        [standing] = await (await reviewers(desk)).thresholds()
        if standing.state == "drift":
            break
    assert (standing.state, standing.threshold) == ("drift", None)
    assert standing.wrong >= 3
    assert await case(desk, "0.95") == "asked"  # everybody is seen again


@simulated
async def test_a_case_that_is_still_open_holds_back_those_behind_it(sim: Simulation) -> None:
    desk = desk_of(sim, learn=LEARN)
    await desk.run(case="0.95")
    [first] = await (await desk.operator()).items()
    for number in range(60):
        await desk.run(case="0.95", reference=f"n{number}")
    operator = await desk.operator()
    for item in await operator.items():
        if item.item != first.item:
            await operator.decide(item.item, Decision("approve", PERSON))
    await desk.resume()
    assert not await desk.entries(kinds.THRESHOLD)
    await operator.decide(first.item, Decision("approve", PERSON))
    await desk.resume()
    assert await desk.entries(kinds.THRESHOLD)


@simulated
async def test_people_freeze_and_reset_with_a_reason(sim: Simulation) -> None:
    desk = desk_of(sim, learn=LEARN)
    await desk.run(case="0.1")
    hands = await reviewers(desk)
    with pytest.raises(UnknownName):
        await hands.set("flow/nothing", "frozen", PERSON, "why", 0.9)
    with pytest.raises(BoundaryError):
        await hands.set("flow/triage", "frozen", "cy", "why", 0.9)
    with pytest.raises(InputRejected):
        await hands.set("flow/triage", "frozen", PERSON, " ", 0.9)
    with pytest.raises(InputRejected):
        await hands.set("flow/triage", "frozen", PERSON, "why")
    assert (await hands.set("flow/triage", "frozen", PERSON, "the auditor asks", 0.9)).frozen == 0.9
    await decide(desk)
    for _ in range(60):
        await case(desk, "0.95")
    [standing] = await hands.thresholds()
    assert (standing.state, standing.frozen, standing.threshold) == ("frozen", 0.9, None)
    assert (await hands.set("flow/triage", "thawed", PERSON, "the audit is over")).frozen is None
    reset = await hands.set("flow/triage", "reset", PERSON, "another supplier")
    assert (reset.threshold, reset.since) == (None, round(reset.at * 1_000_000))


@pytest.mark.parametrize("tenants", [("acme",), ("acme", "default", "zeta")])
@simulated
async def test_what_was_decided_before_a_reset_counts_no_more_in_whatever_tenant_s_log(
    sim: Simulation, tenants: tuple[str, ...]
) -> None:
    desk = desk_of(sim, learn=LEARN)

    async def cases(number: int) -> None:
        for at in range(number):
            await desk.run(case="0.95", tenant=tenants[at % len(tenants)])
            operator = await desk.operator()
            for item in await operator.items():
                await operator.decide(item.item, Decision("approve", PERSON))
            await desk.resume()

    await cases(60)
    hands = await reviewers(desk)
    [learned] = await hands.thresholds()
    assert learned.threshold is not None and 40 <= learned.cases <= 60  # of all of them, whatever tenant's
    await hands.set("flow/triage", "reset", PERSON, "another supplier")
    await cases(10)
    [standing] = await hands.thresholds()
    assert (standing.state, standing.threshold) == ("reset", None)
    await cases(50)
    [again] = await hands.thresholds()
    assert again.threshold is not None and again.cases <= 60


@simulated
async def test_who_made_it_may_not_check_it_whatever_roles_they_hold(sim: Simulation) -> None:
    desk = desk_of(sim)
    writer = Agent("writer", owner="t", purpose="writes", human="operator", output={"text": "str"})
    reader = Agent(
        "reader", owner="t", purpose="reads", human="operator", input={"writer": "object"},
        output={"ok": "bool", "objections": "list[str]"},
    )  # fmt: skip
    flow = Workflow(
        "letters", owner="t", purpose="letters", input={"case": "str?"}, escalate_to="operator",
        steps=[
            {"maker_checker": {"maker": "writer", "checker": "reader", "rounds": 1}},
            {"review": {"by": "operator", "within": "4h", "otherwise": "escalate", "of": "writer"}},
        ],
    )  # fmt: skip
    desk.ws.add(writer, reader, flow)
    await desk.run("letters")
    operator = await desk.operator()
    [made] = await operator.items()
    await operator.decide(made.item, Decision("answer", "ann", {"text": "dear"}))
    await desk.resume()
    for value, kind in (({"ok": True, "objections": []}, "answer"), (None, "approve")):
        [check] = await operator.items()
        assert check.made_by == ("ann",)
        with pytest.raises(BoundaryError, match="Ann made what"):
            await operator.decide(check.item, Decision(kind, "Ann", value))  # type: ignore[arg-type]
        await operator.decide(check.item, Decision(kind, "bob", value))  # type: ignore[arg-type]
        await desk.resume()
    assert (await desk.only()).outcome == "completed"


def with_config(desk: Desk, text: str) -> None:
    """The same desk, opened again with more of tightship.yaml."""
    path = desk.folder / "tightship.yaml"
    path.write_text(path.read_text() + text)
    desk.open()


@simulated
async def test_an_item_goes_to_another_role_and_only_its_people_decide_it(sim: Simulation) -> None:
    desk = desk_of(sim)
    await desk.run(case="0.1")
    hands, operator = await reviewers(desk), await desk.operator()
    [item] = await operator.items()
    with pytest.raises(BoundaryError):
        await hands.reassign(item.item, "other", "cy")
    with pytest.raises(UnknownName):
        await hands.reassign(item.item, "nobody", PERSON)
    assert (await hands.reassign(item.item, "other", PERSON, "holiday")).role == "other"
    with pytest.raises(BoundaryError):
        await operator.decide(item.item, Decision("approve", PERSON))
    await operator.decide(item.item, Decision("approve", "cy"))
    await desk.resume()
    assert (await desk.only()).outcome == "completed"
    roles, people = await hands.load()
    assert [(one.role, one.open) for one in roles] == [("operator", 0), ("other", 0)]
    assert [(one.person, one.decided, one.approved) for one in people] == [("cy", 1, 1)]


@simulated
async def test_nobody_without_a_name_reassigns_or_freezes_even_where_anybody_may(sim: Simulation) -> None:
    desk = desk_of(sim, learn=LEARN)
    path = desk.folder / "tightship.yaml"
    path.write_text(path.read_text().replace("operator: [ann, bob]", "operator: ['*']"))
    desk.open()
    await desk.run(case="0.1")
    hands = await reviewers(desk)
    [item] = await (await desk.operator()).items()
    with pytest.raises(InputRejected):
        await hands.reassign(item.item, "other", " ")
    with pytest.raises(InputRejected):
        await hands.set("flow/triage", "frozen", "", "why", 0.1)
    assert not await desk.entries(kinds.ASSIGNED) and not await desk.entries(kinds.THRESHOLD)


@pytest.mark.parametrize(
    ("then", "roles", "outcome"),
    [("reassign:other", ["operator", "operator", "other"], "parked"), ("hold", ["operator"] * 3, "parked"),
     ("escalate", ["operator", "operator"], "escalated")],
)  # fmt: skip
@simulated
async def test_too_much_follows_the_declared_rule_and_approves_nothing(
    sim: Simulation, then: str, roles: list[str], outcome: str
) -> None:
    desk = desk_of(sim)
    with_config(desk, f"overload: {{operator: {{open: 2, then: '{then}'}}}}\n")
    for number in range(3):
        await desk.run(case="0.1", reference=f"n{number}")
    roles_, _ = await (await reviewers(desk)).load()
    assert roles_[0].overloaded == "3 are open, and 2 may be"
    await desk.world.clock.sleep(30)
    await desk.resume()
    items = await (await desk.operator()).items()
    assert sorted(item.role for item in items if item.type == "review") == roles
    rows = await desk.ledger.select("runs", [("outcome", "=", "completed")])
    assert rows == []
    last = await desk.ledger.select("runs", [("reference", "=", "n2")])
    assert (last[0]["outcome"] or last[0]["state"]) == outcome


@pytest.mark.parametrize(
    ("rules", "way"),
    [({"operator": "operator"}, "operator -> operator"), ({"operator": "other", "other": "operator"}, "operator -> other -> operator")],
)  # fmt: skip
def test_roles_that_hand_too_much_to_each_other_are_refused(rules: dict[str, str], way: str) -> None:
    overload = {role: {"age": "10s", "then": f"reassign:{to}"} for role, to in rules.items()}
    roles = {"operator": ["ann"], "other": ["cy"]}
    with pytest.raises(ValueError, match=way):
        WorkspaceConfig.model_validate({"name": "desk", "roles": roles, "overload": overload})


@simulated
async def test_reviewers_are_reminded_once_before_the_time_is_over(sim: Simulation) -> None:
    desk = desk_of(sim)
    desk.workflow(
        "triage", {"review": {"by": "operator", "within": "3m", "remind": "1m", "otherwise": "escalate"}}, name="soon"
    )
    await desk.run("soon", case="0.9")
    await desk.world.clock.sleep(110)
    assert not await desk.entries(kinds.REMINDED)
    await desk.world.clock.sleep(20)
    [told] = await desk.entries(kinds.REMINDED)
    assert told.body["role"] == "operator" and told.body["due"] > 0
    await desk.world.clock.sleep(30)
    assert len(await desk.entries(kinds.REMINDED)) == 1
