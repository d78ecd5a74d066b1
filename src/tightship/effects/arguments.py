"""Arguments and results against the tool's contract (F7): before a call runs, and before its outcome is kept."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from tightship.core.errors import FormatMismatch, InvalidArguments
from tightship.core.ports import Json
from tightship.effects.call import Call

_MOST = 3
"""Problems that a message names."""


def check_arguments(validators: dict[str, Any], call: Call) -> None:
    """The arguments fit the tool's input schema.

    Raises:
        InvalidArguments: with the path of each problem, and what would fit.
    """
    spec = call.tool.spec
    validator = _compiled(validators, f"in:{spec.name}", spec.input_schema)
    if validator.is_valid(call.args):
        return
    raise InvalidArguments(
        f"the arguments of {spec.name} do not fit: {_problems(validator, call.args)}",
        fix=f"call {spec.name} with arguments that fit its schema",
    )


def check_result(validators: dict[str, Any], call: Call, value: Json) -> None:
    """The outcome fits the tool's output schema, where it has one.

    Raises:
        FormatMismatch: with the path of each problem.
    """
    spec = call.tool.spec
    if spec.output_schema is None:
        return
    validator = _compiled(validators, f"out:{spec.name}", spec.output_schema)
    if validator.is_valid(value):
        return
    raise FormatMismatch(
        f"{spec.name} answered in another format than its contract says: {_problems(validator, value)}",
        needed="convert the record, or correct it at its source",
        evidence={"tool": spec.name},
    )


def _compiled(validators: dict[str, Any], key: str, schema: Any) -> Any:
    found = validators.get(key)
    if found is None:
        found = validators[key] = jsonschema_rs.validator_for(dict(schema))
    return found


def _problems(validator: Any, value: Json) -> str:
    found: list[str] = []
    for problem in validator.iter_errors(value):
        path = "/".join(str(part) for part in problem.instance_path) or "(whole)"
        found.append(f"{path}: {problem.message[:200]}")
        if len(found) == _MOST:
            break
    return "; ".join(found)
