"""An agent takes a turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import model_validator

from tightship.core.ports import Json
from tightship.effects.frame import Frame
from tightship.workflow.conditions import Values
from tightship.workflow.conduct import Grounds
from tightship.workflow.tree import Step, patterns
from tightship.workflow.units import Name, is_name


@patterns.register("agent")
class AgentStep(Step):
    """`triage`, `agent: triage` or `triage: {with: {…}}`: its output is bound to the agent's name, or to `name`.

    `with` gives inputs by name; those it does not give are looked up in the workflow's input, then among bound names.
    `grounded` says of this turn what the agent's own says of all: what is claimed has to stand in what is cited.
    """

    short = "agent"

    agent: Name
    with_: Values | None = None
    grounded: Grounds | None = None

    def __init__(self, agent: Any = None, /, **fields: Any) -> None:
        """The agent's name first, or as `agent=`."""
        super().__init__(**({} if agent is None else {"agent": agent}), **fields)

    @model_validator(mode="before")
    @classmethod
    def _named_like_the_agent(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("name") is None and is_name(data.get("agent")):
            return {**data, "name": data["agent"]}
        return data

    def agents(self) -> Iterator[str]:
        """The agent, and those that may stand in for it."""
        yield self.agent
        yield from super().agents()

    def gives(self, context: Any) -> Mapping[str, Any] | None:
        """The agent's declared output."""
        spec = context.agent(self.agent)
        return None if spec is None else spec.output_schema

    def describe(self) -> str:
        """In words."""
        given = f", given {', '.join(self.with_.entries)}" if self.with_ is not None and self.with_.entries else ""
        grounded = f", whose {self.grounded.claims} have to stand in their sources" if self.grounded is not None else ""
        return f"agent **{self.agent}**{given}{grounded}"

    async def execute(self, frame: Frame) -> Json:
        """One turn."""
        if self.grounded is not None:
            frame.ground(self.grounded)
        give = None if self.with_ is None else await frame.evaluate(self.with_)
        return await frame.turn(self.agent, give)
