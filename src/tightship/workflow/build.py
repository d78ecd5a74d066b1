"""Workflows and agents built in Python: the same objects that YAML gives, with equal definitions.

Pattern classes stand in `tightship.patterns`; plain text in a list of steps is an agent's name, as in YAML.

    Workflow(
        "support", owner="customer-care", purpose="answer a customer's ticket",
        input={"ticket": "str"}, budget={"usd": 0.30, "seconds": "2m"},
        steps=["triage", Concurrent("knowledge", "account"), MakerChecker(maker="respond", checker="quality")],
    )
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from tightship.workflow._explain import load_errors
from tightship.workflow.models import AgentSpec, WorkflowSpec
from tightship.workflow.steps import parse_step
from tightship.workflow.tree import Step, patterns


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Python spellings (`with_`) as YAML's."""
    return {name.rstrip("_"): value for name, value in fields.items()}


def Workflow(  # noqa: N802 - reads as the class that it returns
    workflow: str, *, owner: str, purpose: str, steps: Sequence[Step | str | dict[str, Any]], **fields: Any
) -> WorkflowSpec:
    """A workflow.

    Args:
        workflow: its name.
        owner: who answers for it.
        purpose: what it is for, in a sentence.
        steps: steps, agents' names, or mappings as in YAML. A step may stand in several places: each gets its own copy.
        fields: the other fields of a workflow's YAML.

    Raises:
        LoadError: something in it is wrong; the message says what.
    """
    raw = {"workflow": workflow, "owner": owner, "purpose": purpose, "steps": steps, **_plain(fields)}
    try:
        spec = WorkflowSpec.model_validate(raw)
        beside = {name: getattr(spec, name) for name in ("schedule", "need", "breaker")}  # no part of its data
        return WorkflowSpec.model_validate({**spec.to_data(), **beside})
    except ValidationError as error:
        raise load_errors(error, raw, WorkflowSpec, f"the workflow {workflow!r}", None)[0] from None


def Agent(agent: str, *, owner: str, purpose: str, **fields: Any) -> AgentSpec:  # noqa: N802
    """An agent.

    Args:
        agent: its name.
        owner: who answers for it.
        purpose: what it is for, in a sentence.
        fields: the other fields of an agent's YAML.

    Raises:
        LoadError: something in it is wrong; the message says what.
    """
    raw = {"agent": agent, "owner": owner, "purpose": purpose, **_plain(fields)}
    try:
        return AgentSpec.model_validate(raw)
    except ValidationError as error:
        raise load_errors(error, raw, AgentSpec, f"the agent {agent!r}", None)[0] from None


def agent(name: str, **fields: Any) -> Step:
    """A step in which an agent takes a turn: `agent("respond", with_={"ticket": "input.ticket"})`.

    Args:
        name: the agent's. fields: those that the step has in YAML; a Python keyword with `_` behind it.

    Raises:
        LoadError: a field is wrong.
    """
    return parse_step({"agent": name, **_plain(fields)})


def step(word: str, *values: Any, **fields: Any) -> Step:
    """A step of any registered pattern by its word, with the value and fields that YAML would have.

    Args:
        word: the pattern's. values: what stands behind the word, several as a list. fields: the step's others.

    Raises:
        LoadError: there is no such pattern, or a field is wrong.
    """
    patterns.get(word)
    value = values[0] if len(values) == 1 else list(values) if values else None
    return parse_step({word: value, **_plain(fields)})
