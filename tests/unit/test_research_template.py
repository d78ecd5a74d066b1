"""The research team's template keeps what it promises: each practice question ends as it says, and every claim is cited."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

import tightship
from tightship.agents.offline import read_passages, verify_all
from tightship.cli._batch import Line
from tightship.cli._expect import Comparison, Verdict
from tightship.cli._work import record
from tightship.connectors import load_tools
from tightship.core import kinds
from tightship.ledger import Ledger
from tightship.patterns import load_all
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.loader import load_workspace
from tightship.workflow.readiness import check_workspace

TEMPLATE = Path(tightship.__file__).parent / "templates" / "research"
TOOLS = load_tools(TEMPLATE / "tools")
QUESTIONS = [orjson.loads(line) for line in (TEMPLATE / "research.jsonl").read_bytes().splitlines()]


async def ask(sim: Simulation, folder: Path, questions: list[dict[str, Any]]) -> tuple[list[Verdict], dict[str, Any]]:
    """These questions, one after the other: the verdicts, and the runs by their question's id."""
    load_all()
    shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    world = sim.world()
    ws = Workspace.open(folder, world=world, ledger=Ledger.in_memory(world, projections()))
    process, comparison, runs = sim.loop.process("team"), Comparison(), dict[str, Any]()
    for number, question in enumerate(questions, 1):
        given = {name: value for name, value in question.items() if name != "expected"}
        run = runs[question["id"]] = await process.start(ws.run("research", given, reference=question["id"]))
        line = Line(number, question["id"], question, question["expected"])
        comparison.add(record(line, run), question["expected"], run.entries)
    return await comparison.verdicts(await ws.ledger()), runs


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Verdict], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("research") / "workspace"
    return simulate(lambda sim: ask(sim, folder, QUESTIONS))


def of_case(case: str) -> list[str]:
    return [one["id"] for one in QUESTIONS if one["expected"]["case"] == case]


def notes(run: Any) -> Counter[str]:
    return Counter(entry.body["type"] for entry in run.entries if entry.kind == kinds.NOTE)


def test_every_question_ends_as_it_says(played: Any) -> None:
    verdicts, _ = played
    assert [one.as_dict() for one in verdicts if one.differences] == []
    assert len(verdicts) == len(QUESTIONS) >= 16


def test_every_claim_of_a_report_cites_a_passage_that_says_so_and_none_that_is_internal(played: Any) -> None:
    sources = {one.id: one.text for one in read_passages(TEMPLATE / "documents") if "internal" not in one.tags}
    reports = [run.output["text"] for run in played[1].values() if run.outcome == "completed"]
    assert len(reports) >= 12
    for text in reports:
        assert [one for one in verify_all(text, sources) if not one.supported] == []


@pytest.mark.parametrize(
    ("case", "note"),
    [
        ("outdated_figure", "settled"),
        ("poor_plan_goes_back", "plan.rejected"),
        ("source_fails", "manager.replan"),
        ("poor_plan_twice", "manager.replaced"),
        ("manager_is_late", "manager.replaced"),
    ],
)
def test_what_a_question_is_about_really_happened_in_it(played: Any, case: str, note: str) -> None:
    assert of_case(case)
    for id in of_case(case):
        assert notes(played[1][id])[note], id


def test_a_sentence_of_the_writers_own_goes_back_and_is_not_in_the_report(played: Any) -> None:
    for id in of_case("claim_without_source"):
        run = played[1][id]
        turns = [one for one in run.entries if one.kind == kinds.TURN and one.body["agent"] == "writer"]
        assert len(turns) == 2 and "In short" not in run.output["text"]


def test_documents_that_contradict_each_other_go_to_a_person_with_both_sentences(played: Any) -> None:
    for id in of_case("contradiction"):
        assert "PN-5" in str(played[1][id].package) and "SR-4" in str(played[1][id].package)


def test_whoever_verifies_and_checks_is_another_identity_than_who_read_and_wrote() -> None:
    files = load_workspace(TEMPLATE, tools=set(TOOLS)).workspace
    code = {name: agent.python for name, agent in files.agents.items()}
    assert not {code["verify"], code["checker"], code["newer"]} & {code["read"], code["writer"], code["stand_in"]}
    assert {files.agents[name].owner for name in ("verify", "checker", "newer")} == {"research-quality"}


def test_check_has_nothing_to_say_but_advice() -> None:
    found = check_workspace(load_workspace(TEMPLATE, tools=set(TOOLS)), {name: one.spec for name, one in TOOLS.items()})
    assert {(one.rule, one.severity) for one in found} <= {("TS105", "advice"), ("TS106", "advice")}
