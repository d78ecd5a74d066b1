"""Tools of the shared context for agents that are models: read a key, and write one if it stands as it was read.

An agent has them where it declares `reads:` or `writes:`. They narrow what the keys' own access lists allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from tightship.agents.context import AgentContext
from tightship.context import Declarations
from tightship.core.errors import InvalidArguments, UnknownName
from tightship.core.ports import Json, ToolSpec
from tightship.effects.shared import READ, WRITE
from tightship.workflow.models import AgentSpec
from tightship.workflow.types import shape_of

NAMES: Final = (READ.spec.name, WRITE.spec.name)
_GIVEN: Final = ("value", "version", "age", "as_of", "writer")
"""What a model is told of a value; version 0 says that there is none."""


def context_tools(spec: AgentSpec, declarations: Declarations | None) -> tuple[ToolSpec, ...]:
    """The contracts of the tools that an agent has, in the order read, write."""
    if declarations is None:
        return ()
    readable = _readable(spec)
    made: list[ToolSpec] = []
    if readable:
        fields = {
            "key": _key(readable, declarations),
            "max_age": {"type": "number", "minimum": 0, "description": "how many seconds old the value may be"},
        }
        text = (
            "Read a value of the shared context. Gives value, version (0: nothing is written), age in seconds, as_of, "
            "writer. What is older than max_age is read from its source again."
        )
        made.append(ToolSpec(NAMES[0], "read", text, _object(fields, ["key"])))
    if spec.writes:
        kinds = _kinds(spec.writes, declarations)
        fields = {
            "key": _key(spec.writes, declarations),
            "value": dict(next(iter(kinds.values()))) if len(kinds) == 1 else {"description": "of the key's type"},
            "expect": {
                "type": "integer",
                "minimum": 0,
                "description": "the version that was read; 0 if nothing was written yet",
            },
        }
        text = "Write a value of the shared context, if it still stands at the version that you have read."
        made.append(ToolSpec(NAMES[1], "write", text, _object(fields, ["key", "value", "expect"])))
    return tuple(made)


async def use(ctx: AgentContext, spec: AgentSpec, name: str, args: Mapping[str, Json]) -> Json:
    """Carry out a model's call, through the door.

    Raises:
        InvalidArguments: the arguments do not fit. NotDeclared: a key that the agent, or its access list, leaves out.
        StaleContext, ConflictingWrite: as `ctx.read` and `ctx.compare_and_set`.
    """
    shared = ctx.turn.session.shared.context
    tools = {tool.name: tool for tool in context_tools(spec, None if shared is None else shared.declarations)}
    if name not in tools:
        raise InvalidArguments(f"{spec.agent} has no tool {name}", fix=f"use {', '.join(tools) or 'none'}")
    schema = {**tools[name].input_schema}
    shape_of(schema).require(dict(args), f"the arguments of {name}", InvalidArguments)
    if name == NAMES[0]:
        found = await ctx.read_among(args["key"], _readable(spec), max_age=args.get("max_age"))
        return {field: getattr(found, field) for field in _GIVEN}
    done = await ctx.set_among(args["key"], spec.writes, args["value"], expect=args["expect"])
    return {"version": done.version, "end": done.end}


def _readable(spec: AgentSpec) -> tuple[str, ...]:
    """What it may write it may read: it has to know the version."""
    return tuple(dict.fromkeys((*spec.reads, *spec.writes)))


def _object(fields: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(fields), "required": list(required), "additionalProperties": False}


def _key(patterns: Sequence[str], declarations: Declarations) -> dict[str, Any]:
    kinds = _kinds(patterns, declarations)
    lines = [f"{pattern}: {orjson.dumps(kinds[pattern]).decode()}" for pattern in patterns if pattern in kinds]
    found: dict[str, Any] = {"type": "string", "description": f"* stands for any one part. {'; '.join(lines)}"}
    if not any("*" in pattern for pattern in patterns):
        found["enum"] = list(patterns)
    return found


def _kinds(patterns: Sequence[str], declarations: Declarations) -> dict[str, Mapping[str, Any]]:
    """JSON Schema of what each pattern's keys hold; a pattern that falls under no declaration is left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for pattern in patterns:
        try:
            found[pattern] = declarations.of(pattern.replace("*", "_")).spec.value_schema
        except UnknownName:
            continue
    return found
