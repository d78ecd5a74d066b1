"""What one run executes: its pinned definition, with agents made ready and tools found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from tightship.agents.context import ModelCaller, normal
from tightship.agents.turn import Agent, AgentFunction
from tightship.core.errors import DataMissing, NotDeclared, UnknownName, WrongShape
from tightship.core.ports import Json, Tool, ToolSpec
from tightship.core.signals import Cancelled
from tightship.effects.frame import UNBOUND
from tightship.ledger.keyring import plain_address
from tightship.ledger.vault import encode
from tightship.review.package import Package, Situation
from tightship.runtime.code import Code
from tightship.runtime.confidence import answering, calibrated, with_confidence
from tightship.workflow._cel import Ref
from tightship.workflow.conditions import Expression
from tightship.workflow.definition import Definition
from tightship.workflow.models import AgentSpec, Limits

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame
    from tightship.runtime.run import RunTask

AGENT = "agent:"
"""What the scope of an agent's envelope begins with."""
DEFAULT_ROLE = "operator"
"""Who gets what is escalated when the workflow names nobody."""


class Program:
    """A run's definition in use.

    Args:
        definition: the pinned workflow with all it can reach.
        code: where Python agents come from.
        tools: all tools of the workspace by name.
        limits: the workspace's limits, which the workflow's own override.
        ambient: values of ambient names (`threshold`, `now()`).
        claim: makes a business key's keyed hash.
        agent_seconds: the time limit of agents that declare none.
        make_model: makes the caller of a tier for an agent.
        roles: the roles of the workspace.
        parent: the parent run's id, or empty.
        live: writes are real; otherwise they are rehearsed and hold no claims.
    """

    def __init__(
        self,
        definition: Definition,
        code: Code,
        tools: Mapping[str, Tool],
        *,
        limits: Limits,
        ambient: Callable[[Program, str], Json],
        claim: Callable[[str, bytes], str],
        agent_seconds: float = 120.0,
        make_model: Callable[[AgentSpec], ModelCaller | None] | None = None,
        rehearse: Callable[[AgentSpec], AgentFunction] | None = None,
        roles: Collection[str] = (),
        definition_json: dict[str, Json] | None = None,
        version: str = "",
        live: bool = True,
    ) -> None:
        self.definition = definition
        self.spec = definition.workflow
        self.steps = definition.workflow.steps
        self.definition_json = definition_json or {}
        self.address = plain_address(encode(self.definition_json))
        self.version = version
        self.limits = definition.workflow.limits.over(limits)
        self.parent = ""
        self.live = live
        self.code = code
        self._tools = tools
        self._ambient = ambient
        self._claim = claim
        self._agent_seconds = agent_seconds
        self._make_model = make_model
        self._rehearse = rehearse
        self._roles = tuple(roles)
        self._agents: dict[tuple[str, int], Agent] = {}
        own = set(self.spec.tools())
        own |= {tool.spec.undo.tool for name in own if (tool := tools.get(name)) is not None and tool.spec.undo}
        self.declared = frozenset(own)
        self._givers: dict[str, list[str]] = {}
        for step in self.spec.walk():
            if step.pattern == "agent" and step.result is not None:
                self._givers.setdefault(step.result, []).extend(step.agents())

    @property
    def rehearsed(self) -> bool:
        """Whether outputs are generated in place of agents, people included."""
        return self._rehearse is not None

    def titled(self, title: str) -> str:
        """An inbox item's title, which says so when nothing of the run is real."""
        return f"{'' if self.live else 'rehearsal: '}{title}"[:300]

    @property
    def escalation_role(self) -> str:
        """Who gets what this workflow escalates."""
        return self.spec.escalation_role(self._roles) or DEFAULT_ROLE

    @property
    def tools(self) -> Mapping[str, Tool]:
        """All tools of the workspace."""
        return self._tools

    def use_tools(self, tools: Mapping[str, Tool]) -> None:
        """Work with these tools in place of the workspace's."""
        self._tools = tools

    def for_parent(self, parent: str) -> Program:
        """This program as a child run's."""
        import copy

        child = copy.copy(self)
        child.parent = parent
        return child

    # --- agents ----------------------------------------------------------------------------------

    def agent_spec(self, name: str) -> AgentSpec:
        """The agent's declaration.

        Raises:
            UnknownName: the definition has no such agent.
        """
        found = self.definition.agents.get(name)
        if found is None:
            raise UnknownName(f"the workflow {self.spec.name} has no agent {name!r}")
        return found

    def agent(self, name: str) -> Agent:
        """The agent, ready to take turns."""
        made = name, self.code.generation(name)
        found = self._agents.get(made)
        if found is None:
            self._agents.pop((name, made[1] - 1), None)
            found = self._agents[made] = self._make(self.agent_spec(name))
        return found

    def _make(self, spec: AgentSpec) -> Agent:
        make_model = self._make_model
        model = None if make_model is None else make_model(spec)
        where = ""
        if self._rehearse is not None:
            function = self._rehearse(spec)
        elif spec.python is not None:
            function, where = self.code.function(spec)
        else:
            from tightship.agents.model import model_agent

            function = model_agent(answering(spec), self._contract)
        return Agent(
            spec.agent,
            function if self.rehearsed else with_confidence(spec, function, self.code.root),
            frozenset(spec.tools),
            _check(spec),
            _seconds(spec, self._agent_seconds),
            spec.retries,
            model,
            where,
            self.code.root,
            spec.limits.output_bytes or self.limits.output_bytes,
            rehearsed=self.rehearsed,
            grounded=spec.grounded,
        )

    def _contract(self, name: str) -> ToolSpec:
        """A tool as the run's definition pins it: what a model is told of it stays the same."""
        return self.definition.tools.get(name) or self.tool(name).spec

    def gather(self, spec: AgentSpec, names: Mapping[str, Json], give: Mapping[str, Json]) -> dict[str, Json]:
        """An agent's inputs: what it is given, and the declared rest looked up by name.

        The workflow's input comes first, then what steps have bound.

        Raises:
            DataMissing: a required one is nowhere.
        """
        given = names["input"]
        if not spec.input:
            return dict(give or given)
        found: dict[str, Json] = dict(give)
        for name in spec.input_schema["properties"]:
            if name in found:
                continue
            if name in given:
                found[name] = given[name]
            elif name in names:
                found[name] = names[name]
            elif name in spec.input_schema.get("required", ()):
                raise DataMissing(
                    f"{spec.agent} needs {name!r}, which neither the input nor an earlier step gives",
                    fix=f"put the step that gives {name} before {spec.agent}, or map it: `- {spec.agent}: {{with: …}}`",
                )
        return found

    # --- tools -----------------------------------------------------------------------------------

    def warm(self) -> None:
        """Have agents and the contracts of their tools ready, so that no run waits for it.

        Raises:
            LoadError: the code of an agent cannot be loaded.
        """
        for name, spec in self.definition.agents.items():
            if spec.human is None:
                self.agent(name)
        for name in self.definition.tools:
            self._tools.get(name)

    def tool(self, name: str) -> Tool:
        """A tool of the workspace.

        Raises:
            NotDeclared: there is none.
        """
        found = self._tools.get(name)
        if found is None:
            raise NotDeclared(f"there is no tool {name!r}", fix="declare its connector in tightship.yaml")
        return found

    def claim(self, tenant: str, business_key: str) -> str:
        """The keyed hash of a tenant's business key."""
        return self._claim(tenant, normal(business_key))

    # --- values ----------------------------------------------------------------------------------

    def ambient(self, name: str) -> Json:
        """The value of an ambient name, now."""
        return self._ambient(self, name)

    def confidences(self, condition: Expression) -> list[tuple[Ref, AgentSpec]]:
        """The declared confidences that a condition looks at, with the agents that may have given them."""
        found: list[tuple[Ref, AgentSpec]] = []
        for ref in condition.refs:
            if len(ref.path) == 2:
                specs = [self.agent_spec(name) for name in self._givers.get(ref.path[0], ())]
                found += [(ref, one) for one in specs if one.confidence and one.confidence.field == ref.path[1]]
        return found

    def uncalibrated(self, condition: Expression) -> list[str]:
        """What keeps a threshold of this condition from releasing: bare confidences, or that it has none at all."""
        found = self.confidences(condition)
        bare = [".".join(ref.path) for ref, spec in found if not self.is_calibrated(spec)]
        return list(dict.fromkeys(bare)) if found else [str(condition.source)]

    def is_calibrated(self, spec: AgentSpec) -> bool:
        """Whether an agent's confidence was compared with recorded outcomes, and stood the comparison."""
        return calibrated(spec, self.code.root) if not self.rehearsed else spec.confidence is not None

    def confidence_in(self, condition: Expression, names: Mapping[str, Json]) -> float | None:
        """The one calibrated confidence that a condition looks at; None where there are none or several."""
        paths = {ref.path for ref, _ in self.confidences(condition)}
        if len(paths) != 1 or self.uncalibrated(condition):
            return None
        [(name, field)] = paths
        bound = names.get(name)
        value = bound.get(field) if isinstance(bound, dict) else None
        return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None

    async def output(self, frame: NodeFrame, last: Json) -> Json:
        """The run's output: as declared, or the last step's."""
        if self.spec.output is None:
            return last
        return await frame.evaluate(self.spec.output)

    def then(self, scope: str = "run") -> str:
        """What happens when the envelope of a scope is used up: as its agent's budget says, else as the workflow's."""
        agent = self.definition.agents.get(scope.removeprefix(AGENT)) if scope.startswith(AGENT) else None
        return (agent and agent.budget.then) or self.spec.budget.then or "ask"

    @property
    def asks_on_budget(self) -> bool:
        """Whether a person is asked about any of its budgets."""
        return "ask" in {self.then(), *(self.then(f"{AGENT}{name}") for name in self.definition.agents)}

    @property
    def longest_silence(self) -> float:
        """Seconds after which a run that records nothing stands still: `limits.stall`, or what one turn may take."""
        turns = [_seconds(spec, self._agent_seconds) for spec in self.definition.agents.values()]
        return max([self.limits.stall, *(2 * seconds for seconds in turns)])

    def undoes(self, cause: BaseException) -> bool:
        """Whether finished actions are undone on this cause."""
        return self.spec.undo_on_failure or isinstance(cause, Cancelled)

    # --- packages --------------------------------------------------------------------------------

    def context(self, frame: NodeFrame, agent: str = "") -> Situation:
        """Where a node of a run stands, for a person."""
        facts = frame.run
        partial = {name: value for name, value in frame.scope.names.items() if name not in UNBOUND}
        return Situation(facts.id, facts.workflow, frame.key, agent, frame.task.tried(), partial)

    def ending_context(self, task: RunTask) -> Situation:
        """Where a run stands that ends."""
        facts = task.session.facts
        return Situation(facts.id, facts.workflow, "", "", task.tried(), task.partial())

    def request_package(self, spec: AgentSpec, given: Mapping[str, Json], frame: NodeFrame) -> Package:
        """What a human agent is asked to do."""
        where = self.context(frame, spec.agent)
        return Package(
            kind="request",
            title=f"{self.spec.name}: work for {spec.human}: {spec.agent}",
            what_happened=spec.purpose,
            needed="give the output of this step" if spec.output else "say when it is done",
            evidence={"input": dict(given), "output": dict(spec.output)},
            run=where.run,
            workflow=where.workflow,
            key=where.key,
            agent=spec.agent,
        )


def _seconds(spec: AgentSpec, usual: float) -> float:
    """How long a turn may take: the shorter one of `within` and the budget's seconds, where they are declared."""
    return min((limit for limit in (spec.within, spec.budget.seconds) if limit is not None), default=usual)


def _check(spec: AgentSpec) -> Callable[[Json], str | None] | None:
    if spec.output_schema is None:
        return None
    from tightship.workflow.types import shape_of

    shape = shape_of(spec.output_schema)

    def check(value: Json) -> str | None:
        if shape.fits(value):
            return None
        try:
            shape.require(value, f"the output of {spec.agent}")
        except WrongShape as error:
            return error.message
        return None

    return check
