"""Readiness rules about agents."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Final

from tightship.workflow.models import AgentSpec, WorkflowSpec
from tightship.workflow.python_files import Function
from tightship.workflow.readiness import Check, Finding, Rule, rule
from tightship.workflow.source import did_you_mean

_WORD = re.compile(r"[a-z0-9]+")
_FILLER: Final = frozenset({"a", "an", "and", "for", "from", "in", "of", "on", "or", "the", "to", "with", "its", "s"})
_OVERLAP: Final = 0.75


@rule(
    "TS200",
    "error",
    "An agent declares no output",
    why="What it gives cannot be checked: a wrong shape is found only by the step that breaks on it.",
    fix="Add `output: {field: type}`.",
)
def no_output(check: Check, rule: Rule) -> Iterator[Finding]:
    """Outputs have a shape."""
    for agent in check.files.agents.values():
        if not agent.output:
            yield rule.found(f"the agent {agent.agent!r} declares no output", agent.where("agent", key=True))


@rule(
    "TS201",
    "warning",
    "An agent declares no input",
    why="It gets nothing of the run, so its answer cannot depend on the case.",
    fix="Add `input: {field: type}` with what it needs, and nothing else.",
)
def no_input(check: Check, rule: Rule) -> Iterator[Finding]:
    """Inputs are declared."""
    for agent in check.files.agents.values():
        if not agent.input:
            yield rule.found(f"the agent {agent.agent!r} declares no input", agent.where("agent", key=True))


@rule(
    "TS202",
    "warning",
    "An agent is used by no workflow",
    why="Agents that nobody uses keep their permissions and are forgotten.",
    fix="Delete the file, or use the agent.",
)
def orphan(check: Check, rule: Rule) -> Iterator[Finding]:
    """No orphans."""
    used = {name for workflow in check.workflows() for name in workflow.agents()}
    used |= {b.use for agent in check.files.agents.values() for b in agent.on.values() if b.use is not None}
    for agent in check.files.agents.values():
        if agent.agent not in used:
            yield rule.found(f"no workflow uses the agent {agent.agent!r}", agent.where("agent", key=True))


@rule(
    "TS203",
    "advice",
    "Two agents have the same purpose",
    why="Overlapping agents do the same work twice and drift apart.",
    fix="Merge them, or say in each purpose what the other does not do.",
)
def same_purpose(check: Check, rule: Rule) -> Iterator[Finding]:
    """Agents do not overlap."""
    words = {name: _content_words(agent.purpose) for name, agent in check.files.agents.items()}
    for one, other in itertools.combinations(sorted(words), 2):
        both = words[one] | words[other]
        if len(both) >= 2 and len(words[one] & words[other]) / len(both) >= _OVERLAP:
            mark = check.files.agents[other].where("purpose")
            yield rule.found(f"{one!r} and {other!r} say nearly the same purpose", mark)


def _content_words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - _FILLER


def _function(check: Check, agent: AgentSpec) -> Function | None:
    if agent.python is None:
        return None
    module, _, name = agent.python.partition(":")
    found = check.files.python.get(module)
    return None if found is None else found.functions.get(name)


@rule(
    "TS204",
    "error",
    "An agent's code calls a tool that it does not declare",
    why="The door refuses the call: the agent fails whenever it comes to that line.",
    fix="Add the tool to the agent's `tools`, or delete the call.",
)
def undeclared_tool(check: Check, rule: Rule) -> Iterator[Finding]:
    """Code and declaration agree."""
    for agent in check.files.agents.values():
        function = _function(check, agent)
        for tool in sorted((function.tools if function is not None else frozenset()) - set(agent.tools)):
            said = f"{agent.python} calls {tool!r}, which {agent.agent!r} does not declare"
            yield rule.found(said, agent.where("tools") or agent.where("python"))


@rule(
    "TS205",
    "warning",
    "An agent declares a tool that it never calls",
    why="Every permission that is not needed is one that can be misused.",
    fix="Delete the tool from the agent's `tools`.",
)
def unused_tool(check: Check, rule: Rule) -> Iterator[Finding]:
    """Least privilege."""
    for agent in check.files.agents.values():
        function = _function(check, agent)
        if function is None or function.dynamic:
            continue
        for index, tool in enumerate(agent.tools):
            if tool not in function.tools:
                yield rule.found(f"{agent.python} never calls {tool!r}", agent.where("tools", index))


@rule(
    "TS206",
    "error",
    "A tool is in no contract",
    why="The call cannot be made.",
    fix="Use an operation that a connector's contract names.",
)
def unknown_tool(check: Check, rule: Rule) -> Iterator[Finding]:
    """Tools exist."""
    if check.tools is None:
        return
    named = [
        (tool, agent.where("tools", index))
        for agent in check.files.agents.values()
        for index, tool in enumerate(agent.tools)
    ]
    for workflow in check.workflows():
        named += [(tool, step.mark or workflow.where("steps")) for step in workflow.walk() for tool in step.tools()]
    for tool, mark in named:
        if tool not in check.tools:
            yield rule.found(
                f"no contract and no file of tools/ gives {tool!r}",
                mark,
                fix=did_you_mean(tool, check.offered | set(check.tools)),
            )


@rule(
    "TS207",
    "error",
    "An agent can write with a tool that deduplicates nothing",
    why="An agent's own call has no claim: a second run, or a second turn, writes twice.",
    fix="Take the tool from the agent and write with an `action` step that has a claim.",
)
def unclaimed_write(check: Check, rule: Rule) -> Iterator[Finding]:
    """Writes have a key."""
    for agent in check.files.agents.values():
        for index, tool in enumerate(agent.tools):
            spec = check.tool(tool)
            if spec is not None and spec.effect == "write" and spec.idempotency == "none":
                said = f"{agent.agent!r} can call {tool}, which honours no idempotency key"
                yield rule.found(said, agent.where("tools", index))


@rule(
    "TS208",
    "warning",
    "An agent reads from outside and writes",
    why="Text that it reads can steer what it writes (prompt injection), with no check or person between.",
    fix="Split it: one agent reads and proposes, an `action` behind a check or a review writes.",
)
def reads_and_writes(check: Check, rule: Rule) -> Iterator[Finding]:
    """Untrusted text does not steer writes."""
    for agent in check.files.agents.values():
        known = [spec for tool in agent.tools if (spec := check.tool(tool)) is not None]
        reads, writes = [s.name for s in known if s.effect == "read"], [s.name for s in known if s.effect == "write"]
        takes_text = bool(reads) or agent.kind == "model"
        if writes and takes_text:
            source = reads[0] if reads else "its prompt"
            said = f"{agent.agent!r} reads {source} and writes {', '.join(writes)}"
            yield rule.found(said, agent.where("tools"))


def _uses(check: Check) -> Iterator[tuple[WorkflowSpec, AgentSpec]]:
    for workflow in check.workflows():
        for name in workflow.agents():
            spec = check.agent(name)
            if spec is not None:
                yield workflow, spec


@rule(
    "TS209",
    "error",
    "An agent's budget is larger than its workflow's",
    why="The workflow's envelope ends first: the agent's own limit never counts.",
    fix="Lower the agent's budget, or raise the workflow's.",
)
def large_budget(check: Check, rule: Rule) -> Iterator[Finding]:
    """Envelopes nest."""
    for workflow, agent in _uses(check):
        for unit in ("usd", "tokens", "calls", "seconds"):
            own, around = getattr(agent.budget, unit), getattr(workflow.budget, unit)
            if own is not None and around is not None and own > around:
                said = f"{agent.agent!r} may use more {unit} than {workflow.workflow!r} has"
                yield rule.found(said, agent.where("budget", unit))


@rule(
    "TS210",
    "warning",
    "An agent may take longer than its workflow",
    why="The run's own time ends first, so the agent's limit never counts.",
    fix="Shorten the agent's `within`, or raise `seconds` in the workflow's budget.",
)
def slow_agent(check: Check, rule: Rule) -> Iterator[Finding]:
    """Deadlines shrink along the chain."""
    for workflow, agent in _uses(check):
        seconds = workflow.budget.seconds
        if agent.kind != "human" and agent.within is not None and seconds is not None and agent.within > seconds:
            said = f"{agent.agent!r} may take {agent.within:g} s, and {workflow.workflow!r} has {seconds:g} s"
            yield rule.found(said, agent.where("within"))


@rule(
    "TS211",
    "error",
    "A model agent has no instructions",
    why="The model would guess what to do from the names of its fields.",
    fix="Add `instructions`: the task, the rules, what to do when unsure.",
)
def no_instructions(check: Check, rule: Rule) -> Iterator[Finding]:
    """Prompts are written."""
    for agent in check.files.agents.values():
        if agent.kind == "model" and not (agent.instructions or "").strip():
            yield rule.found(f"the agent {agent.agent!r} has no instructions", agent.where("model"))


@rule(
    "TS212",
    "warning",
    "A model agent with tools has no limit of its own",
    why="Only the run's limits would end its loop of tool calls, at the cost of all other steps.",
    fix="Add `limits: {calls: 10}` or a `budget` to the agent.",
)
def unlimited_model(check: Check, rule: Rule) -> Iterator[Finding]:
    """Tool loops end early."""
    for agent in check.files.agents.values():
        if agent.kind == "model" and agent.tools and agent.limits.calls is None and agent.budget.empty:
            yield rule.found(f"nothing bounds the calls of {agent.agent!r}", agent.where("tools"))


@rule(
    "TS213",
    "error",
    "A confidence is not in the agent's output",
    why="Conditions would look for a field that is never there.",
    fix="Declare the field in `output` as `float`, or correct `confidence.field`.",
)
def no_confidence_field(check: Check, rule: Rule) -> Iterator[Finding]:
    """Confidence is declared where it stands."""
    for agent in check.files.agents.values():
        if agent.confidence is None or agent.output_schema is None:
            continue
        found = agent.output_schema["properties"].get(agent.confidence.field, {})
        if found.get("type") not in ("number", ["number", "null"]):
            said = f"{agent.agent!r} has no number {agent.confidence.field!r} in its output"
            yield rule.found(said, agent.where("confidence"))
        of = agent.confidence.of
        if of is not None and of not in agent.output_schema["properties"]:
            said = f"{agent.agent!r} has no {of!r} in its output, on which its confidence is to rest"
            yield rule.found(said, agent.where("confidence", "of"))


@rule(
    "TS214",
    "warning",
    "A confidence is not calibrated, so it releases nothing",
    why="A number that was never compared with outcomes says nothing about how often the agent is right.",
    fix="Calibrate it on recorded outcomes and name the file in `confidence.calibrated_on`.",
)
def uncalibrated(check: Check, rule: Rule) -> Iterator[Finding]:
    """Confidence means something."""
    for agent in check.files.agents.values():
        if agent.confidence is not None and agent.confidence.calibrated_on is None:
            said = (
                f"the confidence of {agent.agent!r} is not calibrated: under a `threshold`, every case goes to a person"
            )
            yield rule.found(said, agent.where("confidence"))


@rule(
    "TS215",
    "error",
    "The outcomes that a confidence was calibrated on are not there",
    why="Nobody can repeat the calibration, so nobody can trust it.",
    fix="Add the file, or correct its path (below the workspace).",
)
def no_calibration_file(check: Check, rule: Rule) -> Iterator[Finding]:
    """Calibration can be repeated."""
    root = check.files.root
    for agent in check.files.agents.values():
        if agent.confidence is not None and agent.confidence.calibrated_on is not None:
            path = (root / agent.confidence.calibrated_on).resolve()
            if not (path.is_relative_to(root.resolve()) and path.exists()):
                said = f"there is no {agent.confidence.calibrated_on} in the workspace"
                yield rule.found(said, agent.where("confidence", "calibrated_on"))


NO_PROBABILITIES: Final = frozenset(
    {"anthropic", "bedrock", "cohere", "gateway", "gemini", "google", "groq", "huggingface", "mistral", "xai"}
)
"""Providers from which no probabilities of tokens are read, by the first word of their name."""


@rule(
    "TS219",
    "error",
    "A confidence rests on token probabilities that the provider does not give",
    why="Each turn would be paid for and then fail, since there is nothing to work the confidence out of.",
    fix="Name a tier with OpenAI's interface, its `next` tiers too, or use `source: agreement`.",
)
def no_token_probabilities(check: Check, rule: Rule) -> Iterator[Finding]:
    """A confidence has its source."""
    config = check.files.config
    for agent in check.files.agents.values():
        if agent.confidence is None or agent.confidence.source != "logprob" or agent.model is None:
            continue
        for name in config.tier_chain(agent.model):
            provider = config.tiers[name].model.partition(":")[0]
            if provider.partition("-")[0] in NO_PROBABILITIES:
                said = f"{agent.agent!r} is answered by the tier {name!r}, and {provider} gives no token probabilities"
                yield rule.found(said, agent.where("confidence", "source"))


@rule(
    "TS216",
    "error",
    "A person's step has no time limit",
    why="A run would wait for a person for ever.",
    fix="Add `within`, for example `within: 8h`.",
)
def endless_person(check: Check, rule: Rule) -> Iterator[Finding]:
    """Nobody is waited for without end."""
    for agent in check.files.agents.values():
        if agent.kind == "human" and agent.within is None:
            yield rule.found(f"the agent {agent.agent!r} waits without end", agent.where("human"))


@rule(
    "TS217",
    "error",
    "A stand-in gives another output",
    why="The steps behind expect the fields of the agent that it stands in for.",
    fix="Let both agents declare the same output.",
)
def unlike_stand_in(check: Check, rule: Rule) -> Iterator[Finding]:
    """Alternatives are interchangeable."""
    pairs = [
        (agent, b.use, agent.where("on", kind)) for agent in check.files.agents.values() for kind, b in agent.on.items()
    ]
    for place in check.places():
        own = next(iter(place.step.agents()), None) if place.step.pattern == "agent" else None
        spec = check.agent(own) if own is not None else None
        if spec is not None:
            pairs += [(spec, behaviour.use, place.step.mark) for behaviour in place.step.on.values()]
    for agent, use, mark in pairs:
        other = check.agent(use) if use is not None else None
        if other is not None and other.output_schema != agent.output_schema:
            yield rule.found(f"{other.agent!r} does not give what {agent.agent!r} gives", mark)
