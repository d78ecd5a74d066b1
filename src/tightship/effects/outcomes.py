"""Errors and refusals as entries, and back again: a replay raises what the first run raised.

An entry names the error and its kind only; the message and the evidence, which may hold personal data, are sealed.
"""

from __future__ import annotations

import inspect
from typing import Any

import orjson

from tightship.core import errors, signals
from tightship.core.errors import NearRepeat, TightshipError, Unavailable, Unforeseen, WorkException
from tightship.core.ports import Json
from tightship.core.signals import OverBudget, Signal

_ERRORS: dict[str, type[TightshipError]] = {
    name: found for name, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, TightshipError)
}
_SIGNALS = {name: found for name, found in inspect.getmembers(signals, inspect.isclass) if issubclass(found, Signal)}


def describe(error: TightshipError) -> tuple[dict[str, Json], dict[str, Json]]:
    """An error as an entry's `error` field, and its sealed detail."""
    head: dict[str, Json] = {"error": error.code}
    detail: dict[str, Json] = {"message": error.message}
    for name in ("fix", "where"):
        if getattr(error, name):
            detail[name] = getattr(error, name)
    if isinstance(error, WorkException):
        head["kind"] = error.kind
        detail |= {"needed": error.needed, "options": list(error.options), "evidence": jsonable(error.evidence)}
    elif isinstance(error, NearRepeat):
        detail["evidence"] = jsonable(error.evidence)
    if isinstance(error, Unavailable) and error.retry_after is not None:
        detail["retry_after"] = error.retry_after
    return head, detail


def restore(head: dict[str, Any], detail: dict[str, Any]) -> TightshipError:
    """The error that `describe` has taken apart."""
    cls = _ERRORS.get(head["error"], Unforeseen)
    more: dict[str, Any] = {name: detail[name] for name in ("fix", "where") if name in detail}
    if issubclass(cls, WorkException):
        more |= {
            "needed": detail.get("needed"),
            "options": detail.get("options", ()),
            "evidence": detail.get("evidence"),
        }
        if issubclass(cls, Unavailable):
            more["retry_after"] = detail.get("retry_after")
    elif issubclass(cls, NearRepeat):
        more["evidence"] = detail.get("evidence")
    try:
        error = cls(detail.get("message"), **more)
    except TypeError:  # an error with arguments of its own (a LoadError names a line)
        error = Unforeseen(f"{head['error']}: {detail.get('message')}")
    if isinstance(error, WorkException):
        error.kind = head.get("kind", error.kind)  # a failed branch has the kind of what failed in it
    return error


def describe_signal(signal: Signal) -> dict[str, Json]:
    """A refusal as an entry's `refused` field."""
    name = next(cls.__name__ for cls in type(signal).__mro__ if cls.__name__ in _SIGNALS)
    refused: dict[str, Json] = {"signal": name, "reason": signal.reason, "scope": signal.scope}
    if isinstance(signal, OverBudget):
        refused["unit"] = signal.unit
    return refused


def restore_signal(refused: dict[str, Any]) -> Signal:
    """The signal that `describe_signal` has taken apart."""
    cls = _SIGNALS.get(refused["signal"], Signal)
    if issubclass(cls, OverBudget):
        return OverBudget(refused["reason"], scope=refused["scope"], unit=refused.get("unit", ""))
    return cls(refused["reason"], scope=refused["scope"])


def jsonable(value: Any) -> Json:
    """The value if it is JSON, else what it looks like: an error's evidence must never break its recording."""
    try:
        return orjson.loads(orjson.dumps(value))
    except (TypeError, ValueError):
        return repr(value)[:2000]
