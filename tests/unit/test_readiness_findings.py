"""What the readiness check says: the place, the cause and the way out, once; and nothing where all is well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from readiness_samples import (
    CODE,
    CONFIG,
    CONTINUE,
    HEAD,
    LOOPED,
    OPTIONAL,
    PINGED,
    PLANNED,
    REVIEWED,
    ROUTED,
    SUPPORT,
    TRIAGE,
    agents,
    found,
    more,
    needing,
)
from sample_workspace import FILES, TOOLS, changed, load

from tightship.connectors import load_tools
from tightship.core.errors import LoadError
from tightship.workflow.readiness import check_workspace


def test_problems_of_loading_are_findings_with_their_place(tmp_path: Path):
    findings = found(tmp_path, changed(SUPPORT, "rounds: 2", "rounds: two"))
    first = findings[0]
    assert (first.rule, first.severity, first.file, first.line) == ("TS001", "error", SUPPORT, 22)
    assert first.as_dict()["column"] == 63


def test_errors_come_first_and_nothing_is_said_twice(tmp_path: Path):
    findings = found(
        tmp_path, {**changed(SUPPORT, "seconds: 120, ", ""), **changed(CONFIG, "lead: [ann, ben]", "lead: [ann]")}
    )
    severities = [one.severity for one in findings]
    assert severities == sorted(severities, key=["error", "warning", "advice"].index)
    assert len(findings) == len(set(findings))


def test_without_contracts_the_rules_about_tools_are_silent(tmp_path: Path):
    files = changed(SUPPORT, "body: respond.text", "text: respond.text")
    assert "TS503" not in {one.rule for one in found(tmp_path, files, None)}


def test_a_text_without_its_own_quotes_is_explained(tmp_path: Path):
    finding = next(
        one for one in found(tmp_path, changed(SUPPORT, "body: respond.text", "body: solved")) if one.rule == "TS400"
    )
    assert "'\"solved\"'" in finding.fix and (finding.file, finding.line) == (SUPPORT, 25)


def test_a_name_bound_only_later_is_told_from_one_bound_nowhere(tmp_path: Path):
    files = changed(SUPPORT, 'checkpoint: triage.topic in ["refund", "order"]', "checkpoint: respond.amount > 1.0")
    finding = next(one for one in found(tmp_path, files) if one.rule == "TS400")
    assert "does not run before" in finding.message


QUIET = [
    (
        "TS405",
        more(
            "  - when: {if: 'input.id == \"x\"', then: triage}\n  - checkpoint: has(triage.urgent) && triage.urgent\n"
        ),
    ),
    ("TS405", more("  - when: {if: 'input.id == \"x\"', then: triage, else: triage}\n  - checkpoint: triage.urgent\n")),
    ("TS104", changed(SUPPORT, "escalate_to: lead\n", "")),
    ("TS120", needing("{order: free}", ROUTED)),
    ("TS120", needing("{order: fixed}", "  - n0\n  - n1\n")),
    ("TS121", needing("{order: free}", ROUTED)),
    ("TS121", needing("{}", "  - n0\n  - n1\n")),
    ("TS122", needing("{independent: true}", "  - concurrent: [n0, n1]\n")),
    ("TS123", needing("{complexity: high}", PLANNED)),
    ("TS124", needing("{complexity: high}", PLANNED)),
    ("TS125", needing("{regulated: true}", "  - review: {by: lead, within: 1h, otherwise: escalate}\n" + PINGED)),
    ("TS125", needing("{regulated: false}", PINGED)),
    ("TS128", more(REVIEWED, HEAD.replace("steps:", "four_eyes: true\nneed: {regulated: true}\nsteps:")) | agents(3)),
    ("TS128", needing("{regulated: true}", PINGED)),
    ("TS129", more(REVIEWED) | agents(3)),
    ("TS126", needing("{sovereignty: true}", "  - workflow: support\n")),
    ("TS573", needing("{}", "  - workflow: support\n")),
    ("TS573", needing("{sovereignty: true}", "  - workflow: support\n    escalated: {x: '1'}\n")),
    ("TS127", needing("{volume: high, complexity: high}", "  - vote: {voters: [n0, n1], within: 1m}\n")),
    (
        "TS127",
        needing(
            "{volume: high}", "  - when: {if: 'input.id == \"x\"', then: {vote: {voters: [n0, n1], within: 1m}}}\n"
        ),
    ),
    ("TS304", changed(CONFIG, "https://desk.example", "http://127.0.0.1:8000")),
    ("TS304", changed(CONFIG, "https://desk.example", "http://[::1]:8000")),
    (
        "TS218",
        {CODE: "import desk_rulebook, json\nfrom tightship import tool\n" + FILES[CODE], "agents/desk_rulebook.py": ""},
    ),
    ("TS218", {CODE: OPTIONAL + FILES[CODE], "agents/unused.py": "import nowhere_to_be_found\n"}),
    ("TS218", {"tools/till.py": OPTIONAL + "import json\nfrom tightship import tool\n"}),
    ("TS218", {"tools/_drawer.py": "import nowhere_to_be_found\n", "tools/old/till.py": "from . import nothing\n"}),
    ("TS301", changed(CONFIG, "openai:gpt-4.1-mini-2025-04-14", "anthropic:claude-haiku-4-5-20251001")),
    ("TS301", changed(CONFIG, "model: openai:gpt-4.1-mini-2025-04-14", "model: ollama:qwen3\n    undated: true")),
    ("TS303", changed(CONFIG, "auth: {bearer: {secret: DESK_TOKEN}}", "auth: none")),
    ("TS305", changed(SUPPORT, "a ticket comes in", "the password reset form is sent")),
    ("TS115", changed(SUPPORT, "within: 4h", "within: 2d")),
    ("TS408", {**more("  - n0\n  - n1: {with: {ticket: n0.x}}\n"), **agents(2)}),
    (
        "TS552",
        more(LOOPED.format("'\"r:\" + item'")),
    ),
    ("TS500", changed(SUPPORT, "undo: desk.retract", "undo: none")),
    ("TS606", changed(SUPPORT, "  - triage\n", f"  - triage: {{on: {{data_missing: {CONTINUE}}}}}\n")),
    ("TS403", changed(SUPPORT, 'triage.topic in ["refund", "order"]', 'triage.topic != ""')),
    (
        "TS202",
        {
            TRIAGE: FILES[TRIAGE] + "on: {unavailable: {use: spare}}\n",
            "agents/spare.yaml": FILES[TRIAGE].replace("agent: triage", "agent: spare"),
        },
    ),
]


@pytest.mark.parametrize(("rule", "files"), QUIET, ids=[f"{rule}-{i}" for i, (rule, _) in enumerate(QUIET)])
def test_the_rule_is_silent_where_all_is_well(tmp_path: Path, rule: str, files: dict[str, Any]):
    findings = found(tmp_path, files)
    assert [str(one) for one in findings if one.rule in (rule, "TS001")] == []


@pytest.mark.parametrize(
    "files",
    [
        changed(SUPPORT, "  - triage\n", "  - triagee\n"),
        changed(SUPPORT, "rounds: 2", "rounds: two"),
        changed(CONFIG, "store: sqlite:.tightship", "store: sqlite:.tightship\nlimits: soon"),
    ],
    ids=["agent", "rounds", "config"],
)
def test_one_mistake_is_one_error_and_what_follows_from_it_is_not_said(tmp_path: Path, files: dict[str, Any]):
    findings = found(tmp_path, files)
    assert [one.rule for one in findings if one.severity != "advice"] == ["TS001"], [str(one) for one in findings]


def test_a_tool_that_nothing_else_uses_is_what_is_meant(tmp_path: Path):
    files = changed(SUPPORT, "action: desk.reply", "action: desk.replyy")
    findings = check_workspace(load(tmp_path, files), {"desk.get": TOOLS["desk.get"]}, {"desk.get", "desk.reply"})
    assert next(one for one in findings if one.rule == "TS206").fix == "did you mean 'desk.reply'?"


def test_a_bad_time_of_a_review_is_named_as_it_is_written(tmp_path: Path):
    finding = found(tmp_path, changed(SUPPORT, "within: 4h", "within: soon"))[0]
    text = FILES[SUPPORT].splitlines()
    assert finding.message.startswith("within of the step 'review'")
    assert "within: 4h" in text[(finding.line or 0) - 1]


def test_functions_of_the_module_alone_are_not_suggested(tmp_path: Path):
    code = FILES[CODE] + "async def _helper(ctx, input): ...\n"
    finding = found(tmp_path, changed(TRIAGE, "desk:triage", "desk:zzz") | {CODE: code})[0]
    assert "_helper" not in finding.fix
    assert "triage" in finding.fix


def test_roles_are_not_called_unused_where_workflows_are_written_in_python(tmp_path: Path):
    files: dict[str, Any] = {name: None for name in FILES if name.startswith(("workflows/", "evals/"))}
    assert "TS310" not in {one.rule for one in found(tmp_path, files)}


def test_a_role_that_is_told_of_leaks_is_used(tmp_path: Path):
    idle = "lead: [ann, ben]\n  idle: [cleo, dan]"
    files = changed(CONFIG, "lead: [ann, ben]", idle)
    assert "TS310" in {one.rule for one in found(tmp_path / "unused", files)}
    files = {name: f"leaks: {{role: idle}}\n{text}" for name, text in files.items()}
    assert "TS310" not in {one.rule for one in found(tmp_path / "used", files)}


def test_a_missing_import_is_named_with_its_line_also_below_what_is_imported(tmp_path: Path):
    files = {
        CODE: "import desk_rulebook\n" + FILES[CODE],
        "agents/desk_rulebook.py": "X = 1\nimport desk_rulebook_more\n",
    }
    finding = found(tmp_path, files)[0]
    assert (finding.rule, finding.file, finding.line) == ("TS218", "agents/desk_rulebook.py", 2)
    assert "agents/desk_rulebook_more.py" in finding.message


def test_a_missing_import_of_a_tool_is_named_with_its_line_and_nothing_is_run(tmp_path: Path):
    finding = found(tmp_path, {"tools/till.py": "raise SystemExit\nfrom nowhere_to_be_found import x\n"})[0]
    assert (finding.rule, finding.file, finding.line) == ("TS218", "tools/till.py", 2)
    assert "no such package is installed" in finding.message


def test_a_file_of_tools_that_imports_another_is_told_that_it_finds_none(tmp_path: Path):
    (tmp_path / "tools").mkdir()
    for name, text in (("_drawer", "coins = 1\n"), ("till", "import _drawer\n")):
        (tmp_path / "tools" / f"{name}.py").write_text(text, "utf-8")
    with pytest.raises(LoadError, match="_drawer"):  # so it is, when a run begins
        load_tools(tmp_path / "tools")
    [finding] = [one for one in found(tmp_path, {}) if one.rule == "TS218"]
    assert "imported on its own" in finding.message
    assert "same file" in finding.fix


def test_an_imported_file_that_is_no_python_is_said_once(tmp_path: Path):
    findings = found(tmp_path, {CODE: "import desk_rulebook\n" + FILES[CODE], "agents/desk_rulebook.py": "def f(:\n"})
    assert [(one.rule, one.file, one.line) for one in findings] == [("TS001", "agents/desk_rulebook.py", 1)]
