"""Tables of fields, made from the models that read a workspace's files: what is not in a model is in no table."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from docs_words import MEANINGS
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tightship.connectors import settings as connectors
from tightship.patterns import _settle, gate, load_all
from tightship.workflow import (
    conduct,
    config,
    context_feeds,
    context_keys,
    models,
    notify,
    safeguards,
    steps,
    tree,
    units,
)
from tightship.workflow.conditions import Condition, Expression, Values

load_all()

_NAMED: tuple[tuple[Any, str], ...] = (
    (units.Duration, "duration"),
    (units.Usd, "US dollars"),
    (units.Name, "name"),
    (units.WorkflowName, "workflow name"),
    (models.ToolName, "tool"),
    (models.Text, "text"),
    (models.Texts, "text or list of texts"),
    (models.Fields, "fields"),
    (steps.Children, "list of steps"),
    (steps.Block, "a step or a list of steps"),
    (tree.Behaviours, "behaviours"),
    (config.SecretName, "name of a secret"),
    (connectors.Price, "US dollars or price"),
    (Values, "values"),
    (Expression, "expression"),
    (Condition, "condition"),
    (str, "text"),
    (bool, "true or false"),
    (int, "whole number"),
    (float, "number"),
    (Decimal, "US dollars"),
    (Any, "any value"),
)
"""Types by the words that the pages explain."""

_SPELLED: Mapping[str, str] = {
    "WorkflowSpec.subjects": "expression or list of expressions",
    "WorkflowSpec.data": "text or mapping of names to texts",
    "WorkspaceConfig.store": "text",
    "WorkspaceConfig.roles": "mapping of names to people",
    "WorkspaceConfig.connectors": "mapping of names to connectors",
    "WorkspaceConfig.context": "mapping of keys to context keys",
    "ContextKey.type": "type",
    "ContextKey.conflict": "`first`, or conflict",
    "SourceSpec.with_": "mapping of arguments to expressions",
    "Gate.agents": "name or list of names",
    "Gate.on": "key or list of keys",
    "WorkspaceConfig.domains": "mapping of tools to arguments to domains",
    "DomainCheck.one_of": "list of values",
    "BreakersSpec.providers": "mapping of names to breakers",
    "BreakersSpec.tools": "mapping of names to breakers",
    "BreakersSpec.agents": "mapping of names to breakers",
    "BreakersSpec.workflows": "mapping of names to breakers",
    "HistorySpec.keep": "list of paths",
    "GroundedSpec.sources": "list of sources",
    "WorkspaceConfig.tiers": "mapping of names to tiers",
    "Budgets.tenants": "mapping of tenants to periods",
    "Budgets.workflows": "mapping of workflows to periods",
    "ConnectorSpec.operations": "mapping of operations to overlays",
    "ConnectorSpec.limits": "connector limits",
    "TierSpec.price": "price, or `free`",
    "Behaviour.then": "`escalate`, `ask`, `fail`, `continue`",
    "Overlay.lookup": "lookup",
    "Overlay.undo": "undo",
    "Settle.weights": "mapping of names to numbers",
    "Review.show": "list of expressions",
    "When.cases": "list of cases",
    "WorkflowSpec.undo_retry": "undo retry",
    "Manager.workers": "mapping of names to workers",
    "Saga.undo_retry": "undo retry",
    "When.is_": "mapping of values to steps",
    "Action.undo": "`none`, a tool, or undo",
    "Undo.with_": "mapping of arguments to expressions",
    "Case.then": "a step or a list of steps",
}
"""Fields whose type reads better in words of its own."""


def own_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model; of a pattern without those that every step has."""
    common = set(tree.Step.model_fields) if issubclass(model, tree.Step) and model is not tree.Step else set[str]()
    return {name: field for name, field in model.model_fields.items() if name not in common}


def field_table(model: type[BaseModel]) -> str:
    """The model's fields as a Markdown table: field, type, default, meaning.

    Raises:
        KeyError: a field has no meaning in `docs_words.MEANINGS`.
    """
    hints = typing.get_type_hints(model, include_extras=True)
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in own_fields(model).items():
        place = f"{model.__name__}.{name}"
        kind = _SPELLED.get(place) or _kind(hints[name])
        written = getattr(model, "written", {}).get(name) or field.alias or name.rstrip("_")
        cells = (f"`{written}`", kind + _bounds(field), _default(field, hints[name]), MEANINGS[place])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _kind(hint: Any) -> str:
    """A type in words."""
    for known, word in _NAMED:
        if hint is known or (hint == known and not isinstance(hint, type)):
            return word
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _kind(args[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(arg) for arg in args if arg is not type(None))
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin is tuple:
        return f"list of {_kind(args[0])}s"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {_kind(args[0])}s to {_kind(args[1])}s"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return _HEADINGS.get(hint.__name__, hint.__name__.lower())
    raise TypeError(f"no word for the type {hint!r}")


_HEADINGS: Mapping[str, str] = {
    "Budget": "budget",
    "Limits": "limits",
    "LimitOverrides": "limits",
    "Schedule": "schedule",
    "Need": "need",
    "AgentLimits": "agent limits",
    "HistorySpec": "history",
    "GroundedSpec": "grounds",
    "AuditSpec": "audit",
    "DriftSpec": "check",
    "LeakSpec": "look",
    "ResetSpec": "reset",
    "Confidence": "confidence",
    "SecretRef": "`{secret: NAME}`",
    "BasicAuth": "basic",
    "KeyAuth": "API key",
    "OAuth2": "OAuth 2.0",
    "Auth": "auth, or `none`",
    "Admission": "admission",
    "Share": "share",
    "Bulkhead": "bulkhead",
    "BreakersSpec": "breakers",
    "BreakerSpec": "breaker",
    "DomainCheck": "domain",
    "Overload": "overload",
    "Budgets": "budgets",
    "Periods": "periods",
    "Settings": "settings",
    "SourceSpec": "source",
    "Settle": "rule, or settle",
    "FeedSpec": "feed",
    "Notify": "target",
    "NotifyWebhook": "webhook",
    "WebhookFeed": "webhook",
    "PostgresFeed": "table",
    "BrokerFeed": "stream",
}


def _bounds(field: FieldInfo) -> str:
    """`, 1 to 20`: the bounds of a number, where it has any that matter."""
    low = next((value for one in field.metadata if (value := getattr(one, "ge", None)) is not None), None)
    above = next((value for one in field.metadata if (value := getattr(one, "gt", None)) is not None), None)
    high = next((value for one in field.metadata if (value := getattr(one, "le", None)) is not None), None)
    if low is None and above is None and high is None:
        return ""
    if high is None:
        return f", at least {low:g}" if low else ", above 0" if above is not None else ""
    return f", {low:,} to {high:,}" if low is not None else f", above {above} to {high:,}"


def _default(field: FieldInfo, hint: Any) -> str:
    """The default as it would be written."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or value in ({}, (), ""):
        return ""
    if isinstance(value, BaseModel):
        if type(value).__name__ == "Store":
            return f"`{value.model_dump()['url']}`"
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if _is_duration(hint):
        return f"`{units.show_duration(value)}`" if value else "`0s`"
    return f"`{value}`"


def _is_duration(hint: Any) -> bool:
    return hint == units.Duration or units.Duration in typing.get_args(hint)


def documented() -> dict[str, type[BaseModel]]:
    """Every model of the files, by the name under which a page asks for its table."""
    listed: tuple[type[BaseModel], ...] = (
        models.WorkflowSpec,
        models.Budget,
        models.Limits,
        models.Schedule,
        models.Need,
        models.AgentSpec,
        models.AgentLimits,
        models.Confidence,
        models.HistorySpec,
        models.GroundedSpec,
        models.AuditSpec,
        models.DriftSpec,
        conduct.LeakSpec,
        models.ResetSpec,
        tree.Behaviour,
        tree.UndoRetry,
        tree.Step,
        config.WorkspaceConfig,
        config.ConnectorSpec,
        config.Auth,
        config.BasicAuth,
        config.KeyAuth,
        config.OAuth2,
        connectors.Overlay,
        connectors.LookupSettings,
        connectors.UndoSettings,
        connectors.PriceSettings,
        connectors.ConnectorLimits,
        config.TierSpec,
        config.Price,
        config.Admission,
        config.Share,
        config.Bulkhead,
        config.Overload,
        safeguards.BreakersSpec,
        safeguards.BreakerSpec,
        safeguards.DomainCheck,
        notify.Notify,
        notify.NotifyWebhook,
        config.Budgets,
        config.Periods,
        config.Settings,
        context_keys.ContextKey,
        context_keys.SourceSpec,
        context_keys.ConflictRule,
        context_feeds.FeedSpec,
        context_feeds.WebhookFeed,
        context_feeds.PostgresFeed,
        context_feeds.BrokerFeed,
        gate.Gate,
        _settle.Settle,
    )
    found = {model.__name__: model for model in listed}
    return found | {model.__name__: model for model in patterns_models()}


def patterns_models() -> Iterator[type[BaseModel]]:
    """Every pattern, and the models that stand inside one."""
    inside = set[str]()
    for word in tree.patterns.words():
        step = tree.patterns.get(word)
        yield step
        for hint in typing.get_type_hints(step, include_extras=True).values():
            for model in _models_in(hint):
                if model.__module__ == step.__module__ and model is not step and model.__name__ not in inside:
                    inside.add(model.__name__)
                    yield model


def _models_in(hint: Any) -> Iterator[type[BaseModel]]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
    for arg in typing.get_args(hint):
        yield from _models_in(arg)
