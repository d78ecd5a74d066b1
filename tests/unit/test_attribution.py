"""Evidence for where a failure comes from, from messages and from a run's ledger; ranked, and never called a finding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.attribution import constant, interval, measure, read_cases
from click.testing import CliRunner
from entry_samples import Log

from tightship.cli._root import root
from tightship.core import kinds
from tightship.core.errors import InputRejected
from tightship.insight import attribute, attribute_run

TASK = {"role": "human", "content": "Which year was the bridge opened?"}
ASKED = [
    TASK,
    {"role": "boss (-> clerk)", "content": "Open the archive of the harbour."},
    {"role": "clerk", "content": "Traceback (most recent call last): the archive could not be opened"},
    {"role": "boss (-> surfer)", "content": "Look into the town's chronicle."},
    {"role": "surfer", "content": "It names the year 1887 and the engineer."},
]


def test_whoever_speaks_of_a_failure_is_looked_at_first() -> None:
    found = attribute(ASKED)
    assert (found.agents[0].name, found.steps[0].name, found.steps[0].agent) == ("clerk", "2", "clerk")
    assert "speaks of a failure" in found.steps[0].reasons
    assert sum(one.share for one in found.steps) == pytest.approx(1)
    assert found.as_dict()["caveat"].startswith("a ranking of evidence, and no finding")


def test_an_instruction_without_an_answer_speaks_against_the_agent_that_was_asked() -> None:
    silent = [*ASKED[:2], {"role": "boss (-> clerk)", "content": "Please open it."}, ASKED[4]]
    assert attribute(silent).agents[0].name == "clerk"
    assert "was asked and gave no answer" in attribute(silent).steps[0].reasons


def test_a_run_is_judged_by_its_ledger() -> None:
    log = Log()
    log.add(kinds.SETTLED, "a/tool/1", agent="a", name="orders.get", cls="read", error={"error": "TimedOut"})
    log.add(kinds.TURN, "a", agent="a", hash="h", out="o")
    log.add(kinds.TURN, "b", agent="b", hash="h", error={"error": "LoopFound"})
    found = attribute_run(log.entries)
    assert [(one.name, one.agent) for one in found.steps] == [("b", "b"), ("a/tool/1", "a")]
    assert found.steps[0].reasons == ("its turn ended with LoopFound",)
    assert attribute_run([]).agents == ()


def test_what_patterns_have_noted_speaks_against_whom_it_is_about() -> None:
    log = Log()
    for name in ("maker", "checker"):
        log.add(kinds.TURN, f"mc/1/{name}/1", agent=name, hash="h", out="o")
    log.add(kinds.NOTE, "mc/1/note:maker_checker.round/1", type="maker_checker.round", round=1, passed=False)
    for name in ("maker", "checker"):
        log.add(kinds.TURN, f"mc/2/{name}/1", agent=name, hash="h", out="o")
    log.add(kinds.NOTE, "mc/2/note:maker_checker.round/1", type="maker_checker.round", round=2, passed=True)
    log.add(kinds.TURN, "desk/1/desk/1", agent="desk", hash="h", out="o")
    log.add(kinds.NOTE, "desk/1/note:handoff.returned/1", type="handoff.returned", source="desk", kind="brief")
    told: dict[str, Any] = {"child": "r-1", "at": "report/tasks/a/child:below/1", "outcome": "escalated"}
    log.add(kinds.SIGNAL, "", type="child", **told)
    completed: dict[str, Any] = {**told, "child": "r-2", "outcome": "completed"}
    log.add(kinds.SIGNAL, "", type="child", **completed)
    found = attribute_run(log.entries)
    assert [(one.name, one.agent) for one in found.steps] == [
        (told["at"], "run r-1"),
        ("desk/1/desk/1", "desk"),
        ("mc/1/maker/1", "maker"),
    ]


def test_a_log_of_nothing_but_a_task_is_refused() -> None:
    with pytest.raises(InputRejected, match="nothing to attribute"):
        attribute([TASK])


def test_the_benchmark_holds_the_ranking_against_the_constants(tmp_path: Path) -> None:
    for name, step in (("1", "2"), ("2", "2"), ("3", "4")):
        case = {"history": ASKED, "mistake_agent": "clerk", "mistake_step": step}
        (tmp_path / f"{name}.json").write_text(json.dumps(case))
    cases = read_cases(tmp_path)
    assert [one.ranked_steps[0] for one in cases] == ["2", "2", "2"]
    found = measure(cases)
    assert (found["agent"]["right"], found["step"]["right"]) == (1.0, 0.667)
    assert constant(["x", "x", "y"]) == [True, True, False]
    assert interval([True] * 10)[0] < 0.8


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture
def diagnose(tmp_path: Path) -> Callable[..., Any]:
    def call(command: str, text: str, *options: str) -> Any:
        (tmp_path / "log.json").write_text(text)
        return CliRunner().invoke(root, ["diagnose", command, str(tmp_path / "log.json"), *options])

    return call


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([TASK, *[ASKED[2]] * 3]),
        json.dumps({"history": [TASK, *[ASKED[2]] * 3]}),
        "\n".join(json.dumps(one) for one in [TASK, *[ASKED[2]] * 3]),
    ],
)
def test_messages_are_read_from_a_list_an_object_or_lines(diagnose: Callable[..., Any], text: str) -> None:
    told = json.loads(diagnose("loops", text, "--json").stdout)
    assert (told["messages"], told["verdicts"][3]["kind"]) == (4, "repeat")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"role": "a", "content": "x"}\n{"role": ', "log.json:2"),
        ("[1,", "no JSON"),
        ("[]", "no messages"),
        ('[{"role": "a"}, {"content": "x"}]', "message 1"),
    ],
)
def test_what_is_no_log_is_refused_with_its_place(diagnose: Callable[..., Any], text: str, said: str) -> None:
    assert said in diagnose("loops", text).stderr


def test_the_command_says_that_its_ranking_is_no_finding(diagnose: Callable[..., Any]) -> None:
    assert "no finding" in diagnose("failure", json.dumps(ASKED)).stdout
