"""Agents of a rehearsal: outputs of the declared shape, made from a seed, at no cost; nothing is asked of anybody."""

from __future__ import annotations

import hashlib

import orjson

from tightship.agents.context import AgentContext
from tightship.agents.turn import AgentFunction
from tightship.core.ports import Json
from tightship.models.rehearsal import rehearsed
from tightship.workflow.models import AgentSpec


def rehearsed_agent(spec: AgentSpec) -> AgentFunction:
    """A function that gives a generated output; the same input gets the same one."""

    async def agent(ctx: AgentContext, given: dict[str, Json]) -> Json:
        data = orjson.dumps([spec.agent, given, ctx.feedback], option=orjson.OPT_SORT_KEYS)
        seed = hashlib.sha256(data).hexdigest()
        if spec.output_schema is None:
            return {"text": f"This is a rehearsal ({seed[:8]}); {spec.agent} was not asked."}
        return rehearsed(spec.output_schema, seed)

    return agent
