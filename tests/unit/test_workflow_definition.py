"""Definitions: what a run is bound to can be stored, hashed and rebuilt exactly; YAML and Python give the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_workspace import FILES, TOOLS, changed, load

from tightship.core.errors import LoadError
from tightship.patterns import (
    Action,
    AgentStep,
    Checkpoint,
    Concurrent,
    Foreach,
    MakerChecker,
    Review,
    When,
    WorkflowStep,
    load_all,
)
from tightship.patterns import Sequence as Steps
from tightship.workflow.blueprint import blueprint
from tightship.workflow.build import Agent, Workflow, agent, step
from tightship.workflow.config import ConnectorSpec
from tightship.workflow.definition import canonical, from_definition, to_definition, version_hash
from tightship.workflow.loader import load_workspace
from tightship.workflow.models import WorkflowSpec
from tightship.workflow.source import parse_source
from tightship.workflow.steps import parse_step
from tightship.workflow.units import parse_duration, parse_usd, show_duration, usd_text

load_all()
SUPPORT = "workflows/support.yaml"


def test_yaml_and_python_give_equal_definitions(tmp_path: Path):
    built = Workflow(
        "support",
        owner="care",
        purpose="answer a customer's ticket",
        trigger="a ticket comes in",
        systems=["desk"],
        data={"ticket": "the customer's words"},
        completion="the customer has a reply",
        escalation="the lead takes the case over",
        escalate_to="lead",
        input={"id": "str", "ticket": "str"},
        budget={"usd": 0.30, "tokens": 60000, "seconds": "2m", "then": "escalate"},
        on={
            "E1": {"retry": 3, "after": "10s"},
            "data_missing": "ask",
            "rule_conflict": "escalate",
            "out_of_scope": "escalate",
            "low_confidence": "escalate",
            "format_mismatch": "escalate",
        },
        steps=[
            agent("triage"),
            Checkpoint('triage.topic in ["refund", "order"]'),
            MakerChecker(maker="respond", checker="quality", rounds=2),
            Review(
                when="triage.confidence < threshold || respond.amount > 100.0",
                by="lead",
                within="4h",
                otherwise="escalate",
            ),
            Action(
                "desk.reply",
                with_={"ticket_id": "input.id", "body": "respond.text"},
                claim='"reply:" + input.id',
                undo="desk.retract",
            ),
        ],
    )
    from_yaml = load(tmp_path).raise_first()
    before = to_definition("support", from_yaml, TOOLS)
    from_yaml.add(built)
    after = to_definition("support", from_yaml, TOOLS)
    assert orjson.loads(canonical(after)) == orjson.loads(canonical(before))
    assert version_hash(after) == version_hash(before)


def test_a_definition_rebuilds_everything_that_the_workflow_can_reach(tmp_path: Path):
    files = load(tmp_path).raise_first()
    definition = orjson.loads(canonical(to_definition("support", files, TOOLS)))
    found = from_definition(definition)
    assert found.workflow.to_data() == files.workflow("support").to_data()
    assert {name: one.to_data() for name, one in found.agents.items()} == {
        name: one.to_data() for name, one in files.agents.items()
    }
    assert set(found.tools) == {"desk.get", "desk.reply", "desk.retract"}
    assert found.tools["desk.reply"] == TOOLS["desk.reply"]
    live = {"requests_per_minute": None}  # in force as it stands today, and no part of a definition
    assert found.tiers["cheap"].to_data() == files.config.tiers["cheap"].to_data() | live
    assert [step.part for step in found.workflow.walk()] == [step.part for step in files.workflow("support").walk()]


@pytest.mark.parametrize(
    "files",
    [
        changed(SUPPORT, "rounds: 2", "rounds: 3"),
        changed("agents/respond.yaml", "passages alone", "passages only"),
        changed("agents/triage.yaml", "within: 30s", "within: 31s"),
        changed("tightship.yaml", "gpt-4.1-mini-2025-04-14", "gpt-4.1-2025-04-14"),
    ],
)
def test_a_change_of_what_runs_is_another_version(tmp_path: Path, files: dict[str, Any]):
    before = to_definition("support", load(tmp_path / "a").raise_first(), TOOLS)
    after = to_definition("support", load(tmp_path / "b", files).raise_first(), TOOLS)
    assert version_hash(before) != version_hash(after)


@pytest.mark.parametrize(
    "files",
    [
        {SUPPORT: "# a comment\n" + FILES[SUPPORT]},
        changed(SUPPORT, "seconds: 120", "seconds: 2m"),
        changed("tightship.yaml", "lead: [ann, ben]", "lead: [cleo]"),
        {"agents/other.yaml": "agent: other\nowner: o\npurpose: p\nhuman: lead\n"},
    ],
)
def test_what_is_live_or_only_said_otherwise_is_the_same_version(tmp_path: Path, files: dict[str, Any]):
    before = to_definition("support", load(tmp_path / "a").raise_first(), TOOLS)
    after = to_definition("support", load(tmp_path / "b", files).raise_first(), TOOLS)
    assert version_hash(before) == version_hash(after)


def test_a_definition_of_another_format_is_refused():
    with pytest.raises(LoadError, match="format 99"):
        from_definition({"format": 99})


def test_one_step_object_may_stand_in_several_places():
    one = AgentStep("a")
    workflow = Workflow(
        "w", owner="o", purpose="p", steps=[one, Concurrent(one, Steps(one, one)), When(if_="true", then=one)]
    )
    assert len({id(found) for found in workflow.walk()}) == len(list(workflow.walk()))
    for parent in (workflow.root, *workflow.walk()):
        siblings = [child.part for child in parent.children()]
        assert len(siblings) == len(set(siblings))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Workflow("w", owner="o", purpose="p", steps=[]), "no step"),
        (lambda: Workflow("w", owner="o", purpose="p", steps=["a"], bugdet={}), "did you mean 'budget'"),
        (lambda: Workflow("w", owner="", purpose="p", steps=["a"]), "owner"),
        (lambda: Workflow("w", owner="o", purpose="p", steps=[Checkpoint("a ===")]), "in the expression"),
        (lambda: Checkpoint("a.b", otherwize="fail"), "did you mean 'otherwise'"),
        (lambda: Concurrent(), "branches"),
        (lambda: agent("no name"), "letters, digits"),
        (lambda: step("checkpoint", "a.b", redo="true"), "meaning of its own"),
        (lambda: Agent("a", owner="o", purpose="p"), "exactly one of"),
        (lambda: WorkflowStep("Not A Name"), "lower-case"),
        (lambda: Foreach(in_="a.b", steps=["x"], max=0), "max"),
    ],
)
def test_what_is_built_wrong_is_refused_with_a_fix(make: Any, said: str):
    with pytest.raises(LoadError) as refused:
        make()
    assert said in str(refused.value) and refused.value.fix


# --- random trees --------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "write_up"])
conditions = st.sampled_from(["a.x > 1", 'input.t == "x"', "has(b.y)", "c.conf < threshold", "now() > timestamp(a.t)"])
behaviours = st.dictionaries(
    st.sampled_from(["unavailable", "data_missing", "E7"]),
    st.sampled_from(
        ["ask", {"retry": 2, "after": "10s"}, {"use": "b", "then": "fail"}, {"then": "continue", "give": {"n": 1}}]
    ),
    max_size=2,
)
mappings = st.dictionaries(
    st.sampled_from(["p", "q"]),
    st.sampled_from(["a.x", '"text"', 3, True, None, ["input.t", 1], {"deep": "b.y"}]),
    max_size=2,
)
common = {"on": behaviours, "within": st.sampled_from([30, "4h", "1h 30m", None]), "name": st.none() | names}


def optional(required: dict[str, Any], extra: dict[str, Any]) -> Any:
    return st.fixed_dictionaries(required, optional={**common, **extra})


agents = names | st.builds(lambda n, f: {n: f}, names, st.fixed_dictionaries({}, optional={**common, "with": mappings}))
actions = st.builds(
    lambda f, u: {"action": "desk.reply", **f, **u},
    st.fixed_dictionaries({}, optional={"with": mappings, "claim": st.just('"k:" + input.t'), "on": behaviours}),
    st.sampled_from(
        [{}, {"undo": "none"}, {"undo": "desk.retract"}, {"undo": {"tool": "d.r", "with": {"id": "result.id"}}}]
    ),
)
leaves = (
    agents
    | actions
    | st.builds(lambda c: {"checkpoint": c}, conditions)
    | st.builds(
        lambda f: {"checkpoint": f}, optional({"that": conditions}, {"otherwise": st.just("fail"), "redo": names})
    )
    | st.builds(
        lambda f: {"review": f},
        optional({"by": st.just("lead")}, {"when": conditions, "show": st.lists(conditions, max_size=2), "of": names}),
    )
    | st.builds(lambda m: {"workflow": "other-one", "with": m}, mappings)
)


def composites(inner: Any) -> Any:
    blocks = st.lists(inner, min_size=1, max_size=3) | inner
    many = st.lists(inner, min_size=1, max_size=3)
    return (
        st.builds(lambda s: {"sequence": s}, many)
        | st.builds(lambda s: {"concurrent": s}, many)
        | st.builds(
            lambda f: {"concurrent": f},
            optional(
                {"branches": many}, {"on_failure": st.sampled_from(["keep", "escalate"]), "merge": st.just("[a, b]")}
            ),
        )
        | st.builds(
            lambda m, c, n: {"maker_checker": {"maker": m, "checker": c, "rounds": n}}, inner, inner, st.integers(1, 5)
        )
        | st.builds(lambda c, t, e: {"when": {"if": c, "then": t, "else": e}}, conditions, blocks, blocks)
        | st.builds(lambda c, t: {"when": {"cases": [{"if": c, "then": t}]}}, conditions, blocks)
        | st.builds(lambda t, e: {"when": {"switch": "a.kind", "is": {"x": t, "true": e}}}, blocks, blocks)
        | st.builds(
            lambda s, n: {"foreach": {"in": "input.items", "as": "one", "steps": s, "max": n}},
            blocks,
            st.integers(1, 9),
        )
    )


trees = st.recursive(leaves, composites, max_leaves=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(trees, min_size=1, max_size=4))
def test_any_tree_survives_yaml_definition_and_back(steps: list[Any]):
    raw = {"workflow": "w", "owner": "o", "purpose": "p", "steps": steps}
    text = orjson.dumps(raw).decode()
    spec = WorkflowSpec.model_validate(parse_source(text, "w.yaml"))
    data = orjson.loads(orjson.dumps(spec.to_data()))
    again = WorkflowSpec.model_validate(data)
    assert again.to_data() == spec.to_data()
    assert [one.part for one in again.walk()] == [one.part for one in spec.walk()]
    assert [type(one) for one in again.walk()] == [type(one) for one in spec.walk()]
    for parent in (spec.root, *spec.walk()):
        siblings = [child.part for child in parent.children()]
        assert len(siblings) == len(set(siblings))
        assert all(part and "/" not in part for part in siblings)


@settings(max_examples=50, deadline=None)
@given(trees)
def test_a_step_equals_itself_through_its_canonical_form(raw: Any):
    one = parse_step(raw)
    assert parse_step(one.to_data()).to_data() == one.to_data()


# --- blueprint -----------------------------------------------------------------------------------


def test_the_blueprint_tells_the_whole_map(tmp_path: Path):
    text = blueprint("support", load(tmp_path).raise_first(), TOOLS)
    for said in (
        "# support",
        "a ticket comes in",
        "the customer has a reply",
        "lead (ann, ben)",
        "$0.30, 60000 tokens, 2m, then escalate",
        "| ticket | str | yes | the customer's words |",
        'validation: `triage.topic in ["refund", "order"]`',
        "respond makes, quality checks, at most 2 rounds",
        "review of **respond** by **lead**",
        "`desk.get` (reads)",
        '| `desk.reply` | `desk.retract` | `"reply:" + input.id` |',
        "| unavailable | a system does not answer (E1) | 3 retries 10s apart, then escalate |",
        "| triage | care | code | tell what a ticket is about |",
    ):
        assert said in text, said


def test_a_blueprint_says_what_is_not_declared(tmp_path: Path):
    workflow = "workflow: bare\nowner: o\npurpose: p\nsteps:\n  - triage\n"
    text = blueprint("bare", load(tmp_path, {"workflows/bare.yaml": workflow}).workspace)
    assert "*not declared*" in text and "It takes no input." in text


# --- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (30, 30.0),
        (1.5, 1.5),
        ("30s", 30.0),
        ("4h", 14400.0),
        ("2d", 172800.0),
        ("1h 30m", 5400.0),
        ("250ms", 0.25),
        ("90", 90.0),
    ],
)
def test_durations_read_as_people_write_them(written: Any, seconds: float):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["4 hours", "", "h", "-1s", -1, True, None, float("inf"), "100000d", "1h x", [1]])
def test_what_is_no_duration_is_refused(written: Any):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(written)


@given(st.integers(0, 10 * 365 * 86400))
def test_a_shown_duration_reads_back(seconds: int):
    assert parse_duration(show_duration(seconds)) == seconds


@given(st.integers(0, 10**18))
def test_money_reads_back_to_the_nano_dollar(nano: int):
    assert parse_usd(usd_text(nano)) == nano


# --- what the connectors read --------------------------------------------------------------------


def test_connectors_read_their_settings_as_the_workspace_writes_them():
    from tightship.connectors.settings import connector_settings

    written = {
        "openapi": "https://x.example/openapi.json",
        "base_url": "https://x.example",
        "auth": {"api_key": {"header": "X-Key", "secret": "KEY"}},
        "timeout": "10s",
        "operations": {"a.b": {"effect": "read", "cache_seconds": "5m", "price": "0.002"}},
        "limits": {"connections": 4},
    }
    found = connector_settings("x", ConnectorSpec.model_validate(written).to_data())
    assert found.timeout == 10.0 and found.operations["a.b"].cache_seconds == 300.0 and found.limits.connections == 4
    assert found.auth is not None and found.auth.api_key is not None and found.auth.api_key.header == "X-Key"
    for auth in (
        None,
        "none",
        {"bearer": {"secret": "A"}},
        {"basic": {"username": "u", "secret": "P"}},
        {"oauth2": {"token_url": "https://x.example/t", "client_id": "c", "secret": "S"}},
    ):
        connector_settings("x", ConnectorSpec.model_validate({"openapi": "o.json", "auth": auth}).to_data())


def test_every_field_of_a_connector_can_be_written():
    from tightship.connectors.settings import ConnectorSettings, Overlay
    from tightship.workflow import config

    assert set(ConnectorSettings.model_fields) == set(config.ConnectorSpec.model_fields)
    assert set(Overlay.model_fields) == set(config.Overlay.model_fields)


def test_the_support_template_loads_and_passes_the_check():
    import tightship
    from tightship.workflow.readiness import check_workspace

    loaded = load_workspace(Path(tightship.__file__).parent / "templates" / "support")
    assert [str(problem) for problem in loaded.problems] == []
    assert [str(one) for one in check_workspace(loaded) if one.severity == "error"] == []
