"""Tools that do nothing: answers that fit the contract, made from a seed, for `--rehearse`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from tightship.core.ports import FREE, Reply, Request, ToolSpec
from tightship.models.rehearsal import rehearsed


class RehearsalTool:
    """Stands in for a tool (core.ports.Tool): nothing is read or written outside, nothing is paid.

    The same arguments get the same answer; a write's answer is also found by `lookup`, as if it had been done.

    Args:
        spec: the contract of the tool that it stands in for.
        seed: another seed, other answers.
        loose: arguments are themselves made up, so that only their names and types have to be right.
    """

    def __init__(self, spec: ToolSpec, seed: int | str = 1, *, loose: bool = False) -> None:
        if loose:
            spec = replace(spec, input_schema=_outline(spec.input_schema))
        self._spec = replace(spec, price=FREE, hosts=frozenset(), cache_seconds=0.0, requests_per_second=None)
        self._seed = seed

    @property
    def spec(self) -> ToolSpec:
        """The contract, at no price, with no hosts and nothing to wait for."""
        return self._spec

    async def perform(self, request: Request) -> Reply:
        """An answer of the declared shape; None where the contract declares none.

        Raises:
            WrongShape: the declared shape admits no value that the generator finds.
        """
        args = orjson.dumps(dict(request.args), option=orjson.OPT_SORT_KEYS)
        seed = hashlib.sha256(f"{self._seed}\x1f{self._spec.name}\x1f".encode() + args).hexdigest()
        schema = self._spec.output_schema
        return Reply(None if schema is None else rehearsed(schema, seed), FREE, {"rehearsal": True})

    async def lookup(self, request: Request) -> Reply | None:
        """The same answer."""
        return await self.perform(request)


def _outline(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Which arguments there are, which of them must be there, and their types: what made-up values can keep to."""
    outline: dict[str, Any] = {name: schema[name] for name in ("type", "required") if name in schema}
    if isinstance(schema.get("additionalProperties"), bool):
        outline["additionalProperties"] = schema["additionalProperties"]
    properties: Mapping[str, Any] = schema.get("properties", {})
    typed = {name: part for name, part in properties.items() if isinstance(part, Mapping) and "type" in part}
    outline["properties"] = {name: {"type": typed[name]["type"]} if name in typed else {} for name in properties}
    return outline
