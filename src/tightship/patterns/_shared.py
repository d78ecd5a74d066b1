"""What several patterns do alike: feedback for a repeated turn, packages for people, how a failed branch is told."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from tightship.core.errors import BranchFailed, WorkException
from tightship.core.ports import Json
from tightship.effects.frame import CONSTRAINTS, BranchResult, Frame
from tightship.workflow.readiness import StepCheck
from tightship.workflow.tree import Step

FEEDBACK: Final = "feedback"
"""The name in the scope that holds the objections for the next turn: `ctx.feedback` of the agents inside."""


@contextlib.contextmanager
def feedback(frame: Frame, objections: Sequence[str]) -> Generator[None]:
    """Within it, agents see these objections."""
    before = frame.scope.names.get(FEEDBACK)
    frame.bind(FEEDBACK, list(objections))
    try:
        yield
    finally:
        if before is None:
            frame.scope.names.pop(FEEDBACK, None)
        else:
            frame.bind(FEEDBACK, before)


@contextlib.contextmanager
def layer(frame: Frame) -> Generator[None]:
    """Within it names are bound as everywhere, and none of them stays: others cannot see how far it came."""
    names = frame.scope.names
    before = dict(names)
    try:
        yield
    finally:
        names.clear()
        names.update(before)


def takes_turns(step: Step) -> bool:
    """Whether an agent takes a turn in the step."""
    return any(one.pattern == "agent" for one in step.walk())


def decider(step: Step) -> str:
    """Whose a step's decisions are: its agent's, where it has one, else the step's as a whole."""
    agents = list(dict.fromkeys(step.agents()))
    return agents[0] if len(agents) == 1 else step.part


def source_before(step: Step) -> str | None:
    """The name of the nearest earlier output in the same sequence that a step may take as its own input."""
    return next((one.result for one in reversed(step.before) if one.hands_on and one.result is not None), None)


def identity(context: StepCheck, name: str) -> tuple[str, ...]:
    """What makes an agent another one: its code, or its person, or its model with its instructions."""
    spec = context.check.agent(name)
    if spec is None:
        return ("unknown", name)
    if spec.kind == "model":
        return ("model", str(spec.model), str(spec.instructions))
    return (spec.kind, str(spec.python or spec.human))


def written_with(step: Step, context: StepCheck) -> set[str]:
    """The tools that a step writes with, as far as contracts are known (actions always write)."""
    found = {tool for one in step.walk() if one.pattern == "action" for tool in list(one.tools())[:1]}
    for agent in context.agents_below(step):
        for tool in agent.tools:
            spec = context.tool(tool)
            if spec is not None and spec.effect == "write":
                found.add(tool)
    return found


def finished(names: Mapping[str, Json]) -> dict[str, Json]:
    """The outputs in a scope, without the input and what is not output."""
    return {name: value for name, value in names.items() if name not in ("input", FEEDBACK, CONSTRAINTS)}


def error_data(error: BaseException) -> dict[str, Json]:
    """An exception as evidence."""
    found: dict[str, Json] = {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, WorkException):
        found["kind"] = error.kind
        if error.evidence:
            found["evidence"] = error.evidence
    return found


def branch_failure(what: str, results: Sequence[tuple[str, BranchResult]], partial: Mapping[str, Json]) -> BranchFailed:
    """The exception for a step of which branches failed: it keeps the kind, needs and options of the first failure.

    Args:
        what: the step in words.
        results: each branch's label and result.
        partial: the outputs of the branches that finished.
    """
    failed = [(label, result.error) for label, result in results if result.error is not None]
    ended = [label for label, result in results if result.ended]
    label, first = failed[0]
    failure = BranchFailed(
        f"{what}: the branch {label!r} failed: {first}",
        needed=first.needed,
        options=first.options,
        evidence={
            **first.evidence,
            "failed": {name: error_data(error) for name, error in failed},
            "ended": ended,
            "partial": dict(partial),
        },
    )
    failure.kind = first.kind
    return failure


def package(
    frame: Frame,
    kind: str,
    title: str,
    what_happened: str,
    *,
    needed: str,
    options: Sequence[Mapping[str, Any]] = (),
    evidence: Mapping[str, Json] | None = None,
    tried: Sequence[str] = (),
    agent: str | None = None,
) -> dict[str, Json]:
    """What a person gets to see, in the one form that all escalations share. The inbox adds the deadline."""
    return {
        "kind": kind,
        "title": title,
        "what_happened": what_happened,
        "tried": list(tried),
        "needed": needed,
        "options": [dict(option) for option in options],
        "evidence": dict(evidence or {}),
        "deadline": None,
        "run": frame.run.id,
        "workflow": frame.run.workflow,
        "key": frame.key,
        "agent": agent,
        "partial": finished(frame.scope.names),
        "rules": [],
    }


DECISIONS: Final[Sequence[Mapping[str, str]]] = (
    {"id": "approve", "label": "Approve: go on with it as it is"},
    {"id": "edit", "label": "Edit: go on with your version"},
    {"id": "reject", "label": "Reject: do not go on"},
)
"""The options of a review."""
