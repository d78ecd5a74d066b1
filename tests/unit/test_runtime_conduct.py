"""Nothing crosses from run to run; models are what they were; outputs are looked at by somebody else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

import engine_desk
from engine_desk import simulate, tool

from model_desk import ANSWER, CONFIG, of_kind
from model_desk import Desk as ModelDesk
from tightship.core import kinds
from tightship.core.ports import FREE
from tightship.insight.behaviour import behaviour
from tightship.insight.retention import retention
from tightship.models import Message, ModelReply
from tightship.models.versions import Versions
from tightship.runtime.conduct import Audits, baselines, ended_runs, record_baseline, record_check
from tightship.runtime.drift import compare, observe
from tightship.runtime.leaks import find_leaks, make_canary
from tightship.runtime.simulation import Simulation
from tightship.workflow.models import AuditSpec

Json = Any


def answers(version: str, output: Json = ANSWER) -> ModelReply:
    return ModelReply(Message.assistant(""), FREE, "stop", version, output=output)


# --- stateless ---------------------------------------------------------------------------------------


async def test_an_agent_begins_each_turn_anew(tmp_path: Path) -> None:
    desk = ModelDesk(tmp_path, [[("orders.get", {"order_id": "O-1"})], ANSWER] * 3)
    for ticket in ("secret of the first", "secret of the second"):
        await desk.run(ticket)
    assert len(desk.requests) == 4
    text = "\n".join(content for _, content in desk.said(2))
    assert "secret of the second" in text and "secret of the first" not in text
    assert len(desk.said(2)) == 2  # instructions and task: no conversation is gone on with


def leaky(leak: bool) -> Json:
    """Two runs of an agent; one that keeps what it was given in its module, or one that does not."""

    async def story(sim: Simulation) -> Json:
        desk = engine_desk.Desk(sim, [tool("desk.look", "seen", input_schema={"type": "object"})])
        memory: list[str] = []

        async def work(ctx: Any, given: Any) -> Any:
            memory.append(given["case"])
            await ctx.tool("desk.look", {"about": " ".join(memory) if leak else given["case"]})
            return {"done": True}

        desk.agent("work", work, input={"case": "str"}, output={"done": "bool"})
        desk.workflow("work")
        first = await desk.run(case=f"case {make_canary(desk.ledger)}")
        second = await desk.run(case="case two canary-0123456789abcdef-0123456789abcdef")
        return await find_leaks(desk.ledger), first.id, second.id

    return simulate(story)


def test_a_canary_of_one_run_that_shows_up_in_another_is_found() -> None:
    report, first, second = leaky(leak=True)
    [leak] = report.leaks
    assert (leak.home, leak.run, leak.agent) == (first, second, "work")
    assert leak.key == "work/work/1/tool/1" and list(report.canaries.values()) == [first]


def test_an_agent_that_keeps_nothing_leaks_nothing_and_no_text_passes_for_a_canary() -> None:
    report, first, _ = leaky(leak=False)
    assert report.leaks == () and list(report.canaries.values()) == [first] and report.payloads > 4


def test_whoever_is_erased_from_a_run_is_erased_from_its_audit() -> None:
    async def story(sim: Simulation) -> None:
        desk = engine_desk.Desk(sim)

        async def work(ctx: Any, given: Any) -> Any:
            return {"about": given["case"]}

        async def judge(ctx: Any, given: Any) -> Any:
            return {"ok": True}

        audit = {"by": "look", "every": "1h"}
        desk.agent("work", work, input={"case": "str"}, output={"about": "str"}, tools=[], audit=audit)
        desk.agent("judge", judge, input={"output": "object"}, output={"ok": "bool"}, tools=[])
        desk.workflow("work", subjects=["input.case"])
        desk.workflow("judge", name="look", input={"agent": "str", "run": "str", "given": "object", "output": "object"})
        await desk.run(case="jane roe")
        audits = Audits(desk.ledger, desk.ws.files.agents, desk.ws._starting)
        [id] = await audits.begin("work", due_only=False)
        await desk.resume()
        assert (await desk.ws.result(id)).outcome == "completed"
        addresses = [
            e.body[name] for e in await desk.ledger.run_entries(id) for name in ("input", "out") if name in e.body
        ]
        assert "jane roe" in str(await desk.ledger.values(addresses))
        await desk.ledger.erase("default", "jane roe", "ann")
        assert set((await desk.ledger.values(addresses, "gone")).values()) == {"gone"}
        desk.kill()
        assert await Audits(desk.ledger, desk.ws.files.agents, desk.ws._starting).begin("work", due_only=False) == []

    simulate(story)


async def test_a_canary_in_a_conversation_is_found(tmp_path: Path) -> None:
    desk = ModelDesk(tmp_path, [ANSWER, lambda request: [("orders.get", {"order_id": f"O-{canary}"})], ANSWER])
    canary = make_canary(desk.ledger)
    await desk.run(f"ticket {canary}")
    run = await desk.run("another one")
    [leak] = (await find_leaks(desk.ledger)).leaks
    assert (leak.run, leak.key, leak.agent) == (run.id, "triage/triage/1/model/1", "triage")


def test_what_follows_a_run_is_the_same_work_and_no_leak() -> None:
    async def story(sim: Simulation) -> Json:
        desk = engine_desk.Desk(sim)

        async def work(ctx: Any, given: Any) -> Any:
            return {"done": given["case"]}

        desk.agent("work", work, input={"case": "str"}, output={"done": "str"})
        desk.workflow("work")
        case = f"case {make_canary(desk.ledger)}"
        first = await desk.run(case=case)
        follows = await desk.run(case=case, linked=first.id)
        strange = await desk.run(case=f"{case} again")
        return await find_leaks(desk.ledger), follows.id, strange.id

    report, follows, strange = simulate(story)
    assert [leak.run for leak in report.leaks] == [strange] and follows != strange


# --- models ------------------------------------------------------------------------------------------


async def test_a_silent_change_of_a_model_is_noted_where_it_is_met_and_alerts_until_a_baseline_accepts_it(
    tmp_path: Path,
) -> None:
    script = [answers("small-2026-01-31"), answers("small-2026-01-31"), answers("small-2026-03-01")]
    desk = ModelDesk(tmp_path, script)
    runs = [await desk.run(f"ticket {number}") for number in range(4)]
    noted = [[e.body for e in of_kind(run, kinds.NOTE) if e.body["type"] == "model.changed"] for run in runs]
    assert [len(notes) for notes in noted] == [0, 0, 1, 0]
    assert noted[2][0]["was"] == "small-2026-01-31" and noted[2][0]["model"] == "small-2026-03-01"
    known = await behaviour(desk.ledger)
    [change] = known.open_changes
    assert (change.tier, change.run) == ("cheap", runs[2].id)
    assert known.models == {("cheap", "openai:practice-small"): "small-2026-03-01"}
    await record_baseline(desk.ledger, "agent:triage", [runs[3].id], "ann", 0.0, 1.0)
    assert (await behaviour(desk.ledger)).open_changes == []


async def test_a_change_between_two_processes_is_noticed_and_a_pinned_model_is_held_to_its_date(tmp_path: Path) -> None:
    desk = ModelDesk(tmp_path, [answers("small-2026-01-31")])
    await desk.run()
    other = Versions(desk.ledger)  # another process on the same ledger
    assert await other.saw("cheap", "openai:practice-small", "small-2026-01-31", "r-1") == ""
    assert await other.saw("cheap", "openai:practice-small", "small-2026-02-02", "r-1") == "small-2026-01-31"
    assert await other.saw("new", "openai:gpt-4.1-2025-04-14", "gpt-4.1-2025-04-14", "r-1") == ""
    assert await other.saw("router", "openai:acme/gpt-4.1-2025-04-14", "gpt-4.1-2025-04-14", "r-1") == ""
    assert await other.saw("off", "openai:gpt-4.1-2025-04-14", "gpt-4.1-2025-08-01", "r-1") == "gpt-4.1-2025-04-14"


async def test_a_pinned_tier_in_the_ledger_names_what_was_declared(tmp_path: Path) -> None:
    config = CONFIG.replace("openai:practice-small", "openai:practice-small-2026-01-31")
    desk = ModelDesk(tmp_path, [answers("practice-small-2026-02-20")], config=config)
    run = await desk.run()
    [note] = [e.body for e in of_kind(run, kinds.NOTE) if e.body["type"] == "model.changed"]
    assert note["was"] == "practice-small-2026-01-31"


# --- behaviour ---------------------------------------------------------------------------------------


async def test_behaviour_is_read_from_the_ledger_and_a_drift_is_found_in_it(tmp_path: Path) -> None:
    get = [("orders.get", {"order_id": "O-1"})]
    refund = {"topic": "refund", "note": "no " * 30}
    desk = ModelDesk(tmp_path, [*[ANSWER] * 12, *[one for _ in range(12) for one in (get, refund)]])
    schema = desk.space.files.agents["triage"].output_schema
    for number in range(12):
        await desk.run(f"ticket {number}")
    rows = await ended_runs(desk.ledger)
    base = await observe(desk.ledger, "agent:triage", [row["id"] for row in rows], schema)
    assert base[0].values["output.topic"] == "order" and base[0].values["tools"] == "none"
    recorded = await record_baseline(desk.ledger, "agent:triage", [one.run for one in base], "ann", 0.0, base[-1].at)
    assert (await baselines(desk.ledger))["agent:triage"] == recorded and recorded.by == "ann"
    for number in range(12, 24):
        await desk.run(f"ticket {number}")
    rows = [row["id"] for row in await ended_runs(desk.ledger) if row["id"] not in recorded.runs]
    recent = await observe(desk.ledger, "agent:triage", rows, schema)
    report = compare("agent:triage", base, recent, fewest=8)
    changed = {one.feature: (one.was, one.now) for one in report.changes}
    assert changed["output.topic"] == ("order 100%, refund 0%", "order 0%, refund 100%")
    assert changed["tools"] == ("none 100%, orders.get 0%", "none 0%, orders.get 100%")
    assert changed["length of output.note"] == (str(len(ANSWER["note"])), "90")
    assert set(report.changes[0].runs) <= set(rows)
    await record_check(desk.ledger, recorded, len(recent), recent[-1].at, sorted(changed), 0.01)
    assert (await behaviour(desk.ledger)).drifted == {"agent:triage": sorted(changed)}
    whole = await observe(desk.ledger, "workflow:desk", rows[:2])
    assert whole[0].values["ends"] == "completed" and whole[0].values["calls"] == 3.0


async def test_what_a_long_turn_still_holds_of_the_input_is_measured(tmp_path: Path) -> None:
    script = [*([("orders.get", {"order_id": f"O-{n}" + "9" * 300})] for n in range(12)), ANSWER]
    desk = ModelDesk(tmp_path, script, history={"tokens": 1200, "keep": ["ticket"]})
    run = await desk.run("Where is O-1?")
    kept = await retention(desk.ledger, run.id)
    asked = [one for one in kept if one.what == "asked"]
    assert len(asked) == 13 and all(one.kept == ("ticket",) and not one.lost for one in asked)
    assert [one.lost for one in kept if one.what == "gave"] == [("ticket",)]


# --- audits ------------------------------------------------------------------------------------------


def test_a_sample_of_outputs_is_looked_at_by_another_once_each_and_the_results_are_counted() -> None:
    async def story(sim: Simulation) -> Any:
        desk = engine_desk.Desk(sim)
        seen: list[Json] = []

        async def work(ctx: Any, given: Any) -> Any:
            return {"answer": given["case"]}

        async def look(ctx: Any, given: Any) -> Any:
            seen.append(given)
            return {"ok": given["output"]["answer"] != "3"}

        audit = AuditSpec(by="second-look", every=3600.0, sample=4)
        desk.agent("work", work, input={"case": "str"}, output={"answer": "str"}, audit=audit)
        fields = {"agent": "str", "run": "str", "given": "object", "output": "object"}
        desk.agent("look", look, input=fields, output={"ok": "bool"})
        desk.workflow("work")
        desk.workflow("look", name="second-look", input=fields)
        runs = [(await desk.run(case=str(number))).id for number in range(5)]
        audits = Audits(desk.ledger, desk.ws.files.agents, desk.ws._starting)
        await audits.look()
        await audits.look()  # nothing is due
        await desk.resume()
        first = dict((await behaviour(desk.ledger)).audits["work"])
        again = await (await desk.ws.operator()).audit("work", "ann")
        return runs, seen, first, again

    runs, seen, first, again = simulate(story)
    assert len(seen) == 4 and {one["run"] for one in seen} <= set(runs)
    assert all(one["agent"] == "work" and one["given"]["case"] == one["output"]["answer"] for one in seen)
    wrong = sum(one["output"]["answer"] == "3" for one in seen)
    assert first == {key: count for key, count in (("ok", 4 - wrong), ("not ok", wrong)) if count}
    assert again == []  # nothing has ended since


def test_an_audit_is_erased_with_the_subjects_of_the_run_that_it_looks_at_and_is_no_leak_of_it() -> None:
    async def story(sim: Simulation) -> Any:
        desk = engine_desk.Desk(sim)

        async def work(ctx: Any, given: Any) -> Any:
            return {"answer": given["case"]}

        async def look(ctx: Any, given: Any) -> Any:
            return {"ok": True}

        desk.agent("work", work, input={"case": "str"}, output={"answer": "str"}, audit=AuditSpec(by="second-look"))
        fields = {"agent": "str", "run": "str", "given": "object", "output": "object"}
        desk.agent("look", look, input=fields, output={"ok": "bool"})
        desk.workflow("work", subjects=["input.case"])
        desk.workflow("look", name="second-look", input=fields)  # it declares no subjects
        canary = make_canary(desk.ledger)
        await desk.run(case=canary)
        audits = Audits(desk.ledger, desk.ws.files.agents, desk.ws._starting)
        [run] = await audits.begin("work", due_only=False)
        await desk.resume()
        leaks = (await find_leaks(desk.ledger)).leaks
        [begun] = [e for e in await desk.ledger.run_entries(run) if e.kind == kinds.STARTED]
        before = await desk.ledger.values([begun.body["input"]], "erased")
        await desk.ledger.erase("default", canary, "ann")
        after = await desk.ledger.values([begun.body["input"]], "erased")
        return leaks, list(before.values()), list(after.values())

    leaks, [before], [after] = simulate(story)
    assert leaks == () and before["output"]["answer"].startswith("canary-")
    assert after == "erased"
