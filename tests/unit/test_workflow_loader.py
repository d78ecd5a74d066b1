"""Loading a workspace: everything that is wrong is found at once, with file, line, column and fix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from sample_workspace import FILES, changed, load, write

from tightship.core.errors import LoadError, UnknownName, WorkspaceMissing
from tightship.workflow.build import Agent, Workflow
from tightship.workflow.loader import load_workspace

SUPPORT, TRIAGE, CONFIG = "workflows/support.yaml", "agents/triage.yaml", "tightship.yaml"


def only(root: Path, files: dict[str, Any]) -> LoadError:
    problems = load(root, files).problems
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def test_a_healthy_workspace_has_no_problem(tmp_path: Path):
    loaded = load(tmp_path)
    assert loaded.problems == []
    files = loaded.raise_first()
    assert set(files.agents) == {"triage", "respond", "quality"} and set(files.workflows) == {"support"}
    assert files.workflow("support").budget.usd == 300_000_000
    assert files.agent("triage").within == 30.0
    assert "agents/desk.py" in files.hashes


def test_the_sample_of_the_design_loads_as_it_stands(tmp_path: Path):
    sample = """\
workflow: support
owner: customer-care
purpose: answer a customer's ticket
input: {ticket: str, customer_id: str}
budget: {usd: 0.30, tokens: 60000, seconds: 120, then: escalate}
steps:
  - triage
  - checkpoint: triage.urgency in ["low", "normal", "high", "urgent"] && triage.topic != ""
  - concurrent: [knowledge, account]
  - maker_checker: {maker: respond, checker: quality, rounds: 2}
  - review: {when: quality.confidence < threshold || refund.amount > 100.0, by: support_lead, within: 4h, \
otherwise: escalate}
  - action: helpdesk.reply
    undo: helpdesk.retract
"""
    agents = {
        f"agents/{name}.yaml": f"agent: {name}\nowner: o\npurpose: p\npython: all:{name}\n"
        for name in ("triage", "knowledge", "account", "respond", "quality")
    }
    code = "".join(
        f"async def {name}(ctx, input): ...\n" for name in ("triage", "knowledge", "account", "respond", "quality")
    )
    config = "name: d\nroles: {support_lead: [ann]}\nconnectors: {helpdesk: {openapi: h.json}}\n"
    for name, text in {SUPPORT: sample, CONFIG: config, "agents/all.py": code, **agents}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    workflow = load_workspace(tmp_path).raise_first().workflow("support")
    assert [step.part for step in workflow.steps] == [
        "triage",
        "checkpoint",
        "concurrent",
        "maker_checker",
        "review",
        "action",
    ]
    assert workflow.agents() == ["triage", "knowledge", "account", "respond", "quality"]


PROBLEMS = [
    (changed(SUPPORT, "  - triage\n", "  - triag\n"), SUPPORT, 20, 5, "did you mean 'triage'"),
    (changed(SUPPORT, "checkpoint:", "chekpoint:"), SUPPORT, 21, 5, "did you mean 'checkpoint'"),
    (changed(SUPPORT, 'in ["refund", "order"]', "in ["), SUPPORT, 21, None, "ends too early"),
    (changed(SUPPORT, "by: lead", "by: led"), SUPPORT, 23, None, "did you mean 'lead'"),
    (changed(SUPPORT, "within: 4h", "within: 4 hours"), SUPPORT, 23, None, "is no duration"),
    (changed(SUPPORT, "rounds: 2", "rounds: two"), SUPPORT, 22, 63, "whole number"),
    (changed(SUPPORT, "rounds: 2", "round: 2"), SUPPORT, 22, 55, "did you mean 'rounds'"),
    (changed(SUPPORT, "    undo: desk.retract", "    und: desk.retract"), SUPPORT, 27, 5, "did you mean 'undo'"),
    (changed(SUPPORT, "usd: 0.30", "usd: much"), SUPPORT, 11, 15, "no amount of money"),
    (changed(SUPPORT, "usd: 0.30", "usd: -1"), SUPPORT, 11, 15, "not negative"),
    (changed(SUPPORT, "owner: care\n", ""), SUPPORT, 1, 1, "owner of the workflow is missing"),
    (changed(SUPPORT, "purpose: answer", "purpos: answer"), SUPPORT, 3, 1, "did you mean 'purpose'"),
    (changed(SUPPORT, "ticket: str}", "ticket: string}"), SUPPORT, 10, 18, "write 'str'"),
    (changed(SUPPORT, "data_missing: ask", "data_mising: ask"), SUPPORT, 14, 3, "did you mean 'data_missing'"),
    (changed(SUPPORT, "data_missing: ask", "data_missing: shout"), SUPPORT, 14, 17, "not one of"),
    (
        changed(SUPPORT, "data_missing: ask", "data_missing: {use: nobody}"),
        SUPPORT,
        None,
        None,
        "names the agent 'nobody'",
    ),
    (changed(SUPPORT, "  - triage\n", "  - 3\n"), SUPPORT, 20, 5, "agent's name or a mapping"),
    (changed(SUPPORT, "  - triage\n", "  - support\n"), SUPPORT, 20, 5, "write `workflow: support`"),
    (changed(SUPPORT, "  - triage\n", "  - {workflow: other}\n"), SUPPORT, 20, None, "starts the workflow 'other'"),
    (changed(SUPPORT, "workflow: support", "workflow: Support!"), SUPPORT, 1, 11, "lower-case letters"),
    (changed(TRIAGE, "agent: triage", "agent: checkpoint"), TRIAGE, None, None, "word for a pattern"),
    (changed(TRIAGE, "agent: triage", "agent: in"), TRIAGE, 1, 8, "meaning of its own"),
    (changed(TRIAGE, "python: desk:triage", "python: desk:triag"), TRIAGE, 4, 9, "did you mean 'triage'"),
    (changed(TRIAGE, "python: desk:triage", "python: dsk:triage"), TRIAGE, 4, 9, "no file agents/dsk.py"),
    (changed(TRIAGE, "python: desk:triage", "python: triage"), TRIAGE, 4, 9, "pattern"),
    (changed(TRIAGE, "python: desk:triage", "human: led"), TRIAGE, 4, 8, "role 'led'"),
    (changed(TRIAGE, "python: desk:triage", "model: strong"), TRIAGE, 4, 8, "tier 'strong'"),
    (changed(TRIAGE, "python: desk:triage", "python: desk:triage\nmodel: cheap"), TRIAGE, None, None, "exactly one of"),
    (changed(TRIAGE, "python: desk:triage\n", ""), TRIAGE, None, None, "exactly one of"),
    (changed(TRIAGE, "within: 30s", "tools: [desk.get, desk.get]"), TRIAGE, 8, 8, "twice"),
    (changed(CONFIG, "price: {input", "prize: {input"), CONFIG, 8, 5, "did you mean 'price'"),
    (changed(CONFIG, "model: openai:gpt", "model: gpt"), CONFIG, 7, 12, "pattern"),
    (changed(CONFIG, "as_of: 2025-04-14", "as_of: 2025-13-14"), CONFIG, None, None, "no date"),
    (changed(CONFIG, "bearer:", "beerer:"), CONFIG, 4, None, "did you mean 'bearer'"),
    (changed(CONFIG, "store: sqlite:.tightship", "store: mysql://x"), CONFIG, 2, 8, "write `sqlite:FOLDER`"),
    ({"agents/desk.py": FILES["agents/desk.py"] + "def broken(:\n"}, "agents/desk.py", 8, None, "no Python"),
    (changed("agents/desk.py", "async def quality", "def quality"), "agents/quality.yaml", 4, 9, "is not async"),
    ({"workflows/more.yaml": FILES[SUPPORT]}, SUPPORT, 1, 11, "two workflows"),
    ({"agents/broken.yaml": "agent: [\n"}, "agents/broken.yaml", None, None, "no YAML"),
    ({"agents/listed.yaml": "- a\n"}, "agents/listed.yaml", 1, 1, "is a mapping"),
    ({"agents/tabs.yaml": "agent: x\n\towner: y\n"}, "agents/tabs.yaml", 2, 1, "tab"),
    ({"agents/big.yaml": b"# " + b"x" * 1_000_001}, "agents/big.yaml", 1, 1, "larger than"),
    ({"tools/rates.py": "import (\n"}, "tools/rates.py", 1, None, "no Python"),
]


@pytest.mark.parametrize(
    ("files", "file", "line", "column", "said"), PROBLEMS, ids=[str(i) for i in range(len(PROBLEMS))]
)
def test_what_is_wrong_is_named_with_its_place_and_fix(
    tmp_path: Path, files: dict[str, Any], file: str, line: int | None, column: int | None, said: str
):
    problems = load(tmp_path, files).problems
    assert problems
    problem = next((one for one in problems if said in str(one)), None)
    assert problem is not None, [str(one) for one in problems]
    assert problem.file == file
    assert problem.line is not None and (line is None or problem.line == line), str(problem)
    assert column is None or problem.column == column, str(problem)
    assert problem.fix


def test_all_problems_of_all_files_are_found_at_once(tmp_path: Path):
    files = {
        **changed(SUPPORT, "rounds: 2", "rounds: two"),
        **changed(TRIAGE, "python: desk:triage", "python: desk:triag"),
        **changed(CONFIG, "as_of: 2025-04-14", "as_of: x"),
    }
    loaded = load(tmp_path, files)
    assert {problem.file for problem in loaded.problems} == {SUPPORT, TRIAGE, CONFIG}
    assert loaded.problems[0].file == CONFIG
    with pytest.raises(LoadError, match="and 2 more problems"):
        loaded.raise_first()


def test_several_wrong_steps_of_one_workflow_are_all_found(tmp_path: Path):
    steps = FILES[SUPPORT].replace("rounds: 2", "rounds: two").replace("within: 4h", "within: soon")
    problems = load(tmp_path, {SUPPORT: steps}).problems
    assert [problem.line for problem in problems] == [22, 23]


def test_one_broken_agent_file_does_not_accuse_its_users(tmp_path: Path):
    assert only(tmp_path, {TRIAGE: "agent: triage\n  owner: [\n"}).file == TRIAGE


def test_a_broken_configuration_does_not_accuse_everybody(tmp_path: Path):
    assert only(tmp_path, {CONFIG: "name: [\n"}).file == CONFIG


def test_workflows_that_start_each_other_are_a_cycle(tmp_path: Path):
    one = "workflow: {0}\nowner: o\npurpose: p\nsteps:\n  - workflow: {1}\n"
    files = {f"workflows/{a}.yaml": one.format(a, b) for a, b in (("a", "b"), ("b", "c"), ("c", "a"))}
    problem = only(tmp_path, files)
    assert "a -> b -> c -> a" in problem.message and problem.line == 5


def test_a_tool_needs_a_connector_or_a_function(tmp_path: Path):
    config = FILES[CONFIG].split("connectors:")[0] + "tiers:" + FILES[CONFIG].split("tiers:")[1]
    problems = load(tmp_path, {CONFIG: config}).problems
    assert {problem.file for problem in problems} == {SUPPORT, "agents/quality.yaml"}
    loaded = load(tmp_path, {CONFIG: config, "tools/desk.py": "async def get(): ...\n"})
    assert loaded.problems == []


def test_a_link_out_of_the_workspace_is_not_followed(tmp_path: Path):
    outside = tmp_path / "outside.yaml"
    outside.write_text("agent: x\nowner: o\npurpose: p\nhuman: lead\n")
    root = write(tmp_path / "ws")
    os.symlink(outside, root / "agents" / "x.yaml")
    problems = load_workspace(root).problems
    assert [problem.message for problem in problems] == ["the file is a link that leaves the workspace"]


def test_a_folder_without_a_configuration_is_no_workspace(tmp_path: Path):
    with pytest.raises(WorkspaceMissing, match=r"tightship\.yaml"):
        load_workspace(tmp_path)


def test_unknown_names_are_answered_with_near_ones(tmp_path: Path):
    files = load(tmp_path).raise_first()
    with pytest.raises(UnknownName, match="did you mean 'support'"):
        files.workflow("suport")


def test_what_is_built_in_python_is_added_when_it_fits(tmp_path: Path):
    files = load(tmp_path).raise_first()
    files.add(Agent("greet", owner="o", purpose="say hello", human="lead"))
    files.add(Workflow("hello", owner="o", purpose="say hello", steps=["greet"]))
    assert files.workflow("hello").agents() == ["greet"]
    with pytest.raises(LoadError, match="nobody"):
        files.add(Workflow("other", owner="o", purpose="p", steps=["nobody"]))
    assert "other" not in files.workflows


def test_hashes_change_with_what_they_stand_for(tmp_path: Path):
    before = load(tmp_path).workspace
    (tmp_path / "agents/desk.py").write_text(FILES["agents/desk.py"] + "# a word\n")
    after = load_workspace(tmp_path).workspace
    assert before.code_hash != after.code_hash
    (tmp_path / TRIAGE).write_text(FILES[TRIAGE] + "# a word\n")
    last = load_workspace(tmp_path).workspace
    assert last.code_hash == after.code_hash and last.hashes != after.hashes


def test_settings_and_limits_are_documented():
    from tightship.workflow.config import Settings
    from tightship.workflow.models import Limits

    for model in (Settings, Limits):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} says not what it is"


def test_a_workflows_limits_override_the_workspaces(tmp_path: Path):
    files = {
        **changed(CONFIG, "roles:\n", "limits: {turns: 10, calls: 20}\nroles:\n"),
        **changed(SUPPORT, "escalate_to: lead\n", "escalate_to: lead\nlimits: {turns: 5}\n"),
    }
    loaded = load(tmp_path, files).raise_first()
    limits = loaded.workflow("support").limits.over(loaded.config.limits)
    assert (limits.turns, limits.calls, limits.retries) == (5, 20, 20)


def test_a_schedule_that_is_wrong_is_found_where_it_stands(tmp_path: Path):
    wrong = changed(SUPPORT, "steps:\n", 'schedule: {cron: "61 7 * * *", timezone: Europe/Berlin}\nsteps:\n')
    problem = only(tmp_path, wrong)
    line = wrong[SUPPORT][: wrong[SUPPORT].index("schedule:")].count("\n") + 1
    assert (problem.file, problem.line, problem.column) == (SUPPORT, line, len("schedule: {cron: ") + 1)
    assert "names no time" in str(problem)
