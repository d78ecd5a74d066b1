"""Arguments against their declared domains (F7): what a value names exists outside, before anything is done with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from tightship.core.errors import DataMissing, FormatMismatch, InventedArgument
from tightship.core.ports import Json, ToolSpec
from tightship.effects.call import Call
from tightship.workflow.safeguards import DomainCheck

LookUp = Callable[[str, DomainCheck, Json], Awaitable[Json]]
"""Asks the tool of a check, through the door: the argument, its check, its value; None when nothing is found."""
_SHOWN = 60


async def check_domains(
    call: Call, domains: Mapping[str, DomainCheck], input: Mapping[str, Json], look_up: LookUp
) -> None:
    """Each argument that has a domain lies in it; one that is left out has nothing to be checked.

    Raises:
        InventedArgument: it does not. What `look_up` raises: the system cannot be asked.
    """
    spec = call.tool.spec
    found: dict[str, Json] = {}
    for name, check in domains.items():
        if call.args.get(name) is None:
            continue
        value = call.args[name]
        if check.one_of is not None and value not in check.one_of:
            raise _invented(spec, name, value, f"is none of {', '.join(_shown(one) for one in check.one_of[:10])}")
        if check.exists is None:
            continue
        try:
            answer = await look_up(name, check, value)
        except DataMissing:
            answer = None
        if _is_nothing(answer):
            raise _invented(spec, name, value, f"does not exist: {check.exists} finds nothing")
        found[name] = answer
    for name, check in domains.items():
        if check.that is None or call.args.get(name) is None:
            continue
        names = {"value": call.args[name], "args": dict(call.args), "found": found, "input": dict(input)}
        try:
            holds = check.that.evaluate(names)
        except (DataMissing, FormatMismatch) as error:
            raise _invented(spec, name, call.args[name], f"cannot be checked: {error.message}") from None
        if not holds:
            raise _invented(spec, name, call.args[name], f"does not keep to {str(check.that.source)!r}")


def _is_nothing(answer: Json) -> bool:
    """An answer that says that there is none: nothing, or a list without items."""
    if isinstance(answer, Mapping) and isinstance(answer.get("items"), list):
        return not answer["items"]
    return answer in (None, [], {})


def _invented(spec: ToolSpec, name: str, value: Json, why: str) -> InventedArgument:
    return InventedArgument(
        f"{name} {_shown(value)} of {spec.name} {why}",
        fix=f"take {name} from what was read or given; do not make one up",
    )


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
