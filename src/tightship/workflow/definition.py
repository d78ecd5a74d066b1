"""The exact definition that a run is bound to: a JSON value kept in the ledger, and its version.

It holds the workflow, every agent it can reach (prompts included), the workflows it starts, the schemas of the tools
and the tiers they name, each complete with defaults, so that a later release with other defaults rebuilds the same
objects. Policies, limits of the workspace, budgets, roles and secrets are not part of it: those are live.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from tightship.core.errors import LoadError
from tightship.core.ports import Json, ToolSpec, UndoSpec, Usage
from tightship.workflow.config import TierSpec
from tightship.workflow.models import AgentSpec, WorkflowSpec

if TYPE_CHECKING:
    from tightship.workflow.loader import WorkspaceFiles

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition rebuilt as objects: the run's workflow, and everything it can reach by name."""

    workflow: WorkflowSpec
    workflows: Mapping[str, WorkflowSpec]
    agents: Mapping[str, AgentSpec]
    tiers: Mapping[str, TierSpec]
    tools: Mapping[str, ToolSpec]


_LIVE: Final = frozenset({"requests_per_minute", "tokens_per_minute"})
"""What of a tier is no part of a definition: it is in force as it stands today."""


def to_definition(name: str, files: WorkspaceFiles, tools: Mapping[str, ToolSpec] | None = None) -> dict[str, Json]:
    """The definition of a workflow as it stands now.

    Args:
        name: the workflow.
        files: the workspace.
        tools: contracts of the tools that are known; those that the workflow can reach are taken in.

    Raises:
        UnknownName: the workflow, an agent or a child workflow is not there.
    """
    workflows, agents = reach(name, files)
    wanted = {tool for agent in agents for tool in files.agent(agent).tools}
    wanted |= {tool for workflow in workflows for tool in files.workflow(workflow).tools()}
    known = tools or {}
    wanted |= {undo.tool for tool in wanted if tool in known and (undo := known[tool].undo) is not None}
    tiers = dict[str, TierSpec]()
    for agent in agents:
        tiers |= files.config.tiers_of(files.agent(agent))
    return {
        "format": FORMAT,
        "workflow": name,
        "workflows": {one: files.workflow(one).to_data() for one in workflows},
        "agents": {one: files.agent(one).to_data() for one in agents},
        "tools": {one: tool_data(known[one]) for one in sorted(wanted) if one in known},
        "tiers": {
            one: {name: value for name, value in tier.to_data().items() if name not in _LIVE}
            for one, tier in sorted(tiers.items())
        },
    }


def reach(name: str, files: WorkspaceFiles) -> tuple[list[str], list[str]]:
    """The workflows (itself first) and agents that a workflow can reach, sorted.

    Raises:
        UnknownName: one of them is not there.
    """
    workflows, agents = [name], list[str]()
    for workflow in workflows:
        spec = files.workflow(workflow)
        workflows += [child for child in spec.children() if child not in workflows]
        agents += [agent for agent in spec.agents() if agent not in agents]
    for agent in agents:
        used = (behaviour.use for behaviour in files.agent(agent).on.values())
        agents += [one for one in used if one is not None and one not in agents]
    return [name, *sorted(workflows[1:])], sorted(agents)


def version_hash(definition: Mapping[str, Json]) -> str:
    """SHA-256 (hex) of the canonical JSON: equal definitions have equal versions."""
    return hashlib.sha256(canonical(definition)).hexdigest()


def canonical(value: Json) -> bytes:
    """JSON with sorted keys and no white space."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def from_definition(definition: Mapping[str, Json]) -> Definition:
    """The objects of a definition; cached by content, since many runs share one.

    Raises:
        LoadError: it is no definition that this version can read.
    """
    return _rebuilt(canonical(definition))


@functools.lru_cache(maxsize=64)
def _rebuilt(data: bytes) -> Definition:
    definition: Any = orjson.loads(data)
    if definition.get("format") != FORMAT:
        raise LoadError(
            f"the run's definition has the format {definition.get('format')!r}, and this version reads {FORMAT}",
            fix="resume it with the version that started it",
        )
    workflows = {name: WorkflowSpec.model_validate(one) for name, one in definition["workflows"].items()}
    return Definition(
        workflows[definition["workflow"]],
        workflows,
        {name: AgentSpec.model_validate(one) for name, one in definition["agents"].items()},
        {name: TierSpec.model_validate(one) for name, one in definition["tiers"].items()},
        {name: tool_spec(one) for name, one in definition["tools"].items()},
    )


def tool_data(spec: ToolSpec) -> dict[str, Json]:
    """A tool's contract as JSON."""
    price = spec.price
    hedge: dict[str, Json] = {"hedge": spec.hedge} if spec.hedge else {}  # what uses none keeps its version
    return hedge | {
        "name": spec.name,
        "effect": spec.effect,
        "description": spec.description,
        "input_schema": dict(spec.input_schema),
        "output_schema": None if spec.output_schema is None else dict(spec.output_schema),
        "idempotency": spec.idempotency,
        "price": [price.usd, price.tokens_in, price.tokens_out, price.cached_in],
        "can_lookup": spec.can_lookup,
        "undo": None if spec.undo is None else {"tool": spec.undo.tool, "args": dict(spec.undo.args)},
        "timeout": spec.timeout,
        "cache_seconds": spec.cache_seconds,
        "hosts": sorted(spec.hosts),
        "requests_per_second": spec.requests_per_second,
    }


def tool_spec(data: Mapping[str, Json]) -> ToolSpec:
    """The contract that `tool_data` wrote."""
    undo = data["undo"]
    return ToolSpec(
        name=data["name"],
        effect=data["effect"],
        description=data["description"],
        input_schema=data["input_schema"],
        output_schema=data["output_schema"],
        idempotency=data["idempotency"],
        price=Usage(*data["price"]),
        can_lookup=data["can_lookup"],
        undo=None if undo is None else UndoSpec(undo["tool"], dict(undo["args"])),
        timeout=data["timeout"],
        cache_seconds=data["cache_seconds"],
        hosts=frozenset(data["hosts"]),
        requests_per_second=data["requests_per_second"],
        hedge=data.get("hedge", 0.0),
    )
