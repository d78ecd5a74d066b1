"""Spans, derived from a run's entries: nothing in the hot path, nothing lost, the same ids however often it is done.

They have the shape of OpenTelemetry spans as plain dicts; an exporter only has to hand them on. Contents (prompts,
arguments, answers) are not in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tightship.core import kinds
from tightship.core.money import to_usd
from tightship.core.ports import EntryView, Json
from tightship.insight import conventions as names
from tightship.insight._reading import Effect, Turn, base_of, effects, first, paths, turn_key, turns

Span = dict[str, Json]


def trace_id(run: str) -> str:
    """32 hex digits: the trace of a run can be found from the run's id."""
    return hashlib.sha256(f"trace\x1f{run}".encode()).hexdigest()[:32]


def span_id(run: str, key: str) -> str:
    """16 hex digits: the hash of run and key, so that every derivation gives the same span."""
    return hashlib.sha256(f"span\x1f{run}\x1f{key}".encode()).hexdigest()[:16]


def spans(entries: Sequence[EntryView]) -> list[Span]:
    """The spans of one run, the run's own first, then in the order in which they began.

    A span has trace_id, span_id, parent_id (empty for a run without parent), name, kind, start_ns, end_ns (0 while it
    is open), attributes, status (`ok`, `error`, `unset`) with message, events and links.

    Args:
        entries: all entries of the run, in order.
    """
    started = first(entries, kinds.STARTED)
    if started is None:
        return []
    run = started.run
    found, known = effects(entries), turns(entries)
    known_keys = {*known, *(turn_key(key) for key in found if turn_key(key) != key)}
    inner = [_turn_span(run, turn, known_keys) for turn in known.values()]
    inner += [_open_turn_span(run, key, found, known_keys) for key in sorted(known_keys - set(known))]
    inner += [_effect_span(run, effect, known_keys) for effect in found.values()]
    inner += list(_waits(run, entries, known_keys))
    inner.sort(key=lambda span: (span["start_ns"], span["attributes"][names.KEY]))
    spans = [_run_span(started, first(entries, kinds.ENDED)), *inner]
    _add_events(spans, entries, run)
    return spans


def _run_span(started: EntryView, ended: EntryView | None) -> Span:
    body = started.body
    run, workflow = started.run, str(body.get("workflow") or "")
    parent = str(body.get("parent") or "")
    attributes: dict[str, Json] = {
        names.OPERATION: names.INVOKE_WORKFLOW,
        names.WORKFLOW: workflow,
        names.CONVERSATION: run,
        names.RUN: run,
        names.KEY: "",
        names.TENANT: str(body.get("tenant") or ""),
        names.VERSION: str(body.get("version") or ""),
    }
    status, message = "unset", ""
    if ended is not None:
        end = ended.body
        attributes |= {names.OUTCOME: end.get("outcome", ""), names.COST_USD: to_usd(int(end.get("usd") or 0))}
        attributes |= {names.INPUT_TOKENS: int(end.get("tokens_in") or 0)}
        attributes |= {names.OUTPUT_TOKENS: int(end.get("tokens_out") or 0)}
        if end.get("reason"):
            attributes[names.REASON] = end["reason"]
        failed = end.get("outcome") == "failed"
        status, message = ("error", str(end.get("reason") or "")) if failed else ("ok", "")
    span = _span(
        run, "", f"{names.INVOKE_WORKFLOW} {workflow}", started.at, 0 if ended is None else ended.at, attributes
    )
    if parent:  # a run is a trace of its own; the one that started it is linked
        span["links"] = [{"trace_id": trace_id(parent), "span_id": span_id(parent, "")}]
    return span | {"status": status, "message": message}


def _turn_span(run: str, turn: Turn, known: set[str]) -> Span:
    attributes = _agent_attributes(turn.agent)
    attributes[names.POSITION] = turn.n
    span = _span(run, turn.key, f"{names.INVOKE_AGENT} {turn.agent}", turn.began, turn.ended, attributes)
    span["parent_id"] = _parent(run, turn.key, known)
    return span | _status(turn.error)


def _open_turn_span(run: str, key: str, found: Mapping[str, Effect], known: set[str]) -> Span:
    """A turn that has not ended: it is known by what was done in it."""
    inside = [effect for effect in found.values() if turn_key(effect.key) == key]
    agent, began = inside[0].agent, min(effect.began for effect in inside)
    span = _span(run, key, f"{names.INVOKE_AGENT} {agent}", began, 0, _agent_attributes(agent))
    span["parent_id"] = _parent(run, key, known)
    return span


def _agent_attributes(agent: str) -> dict[str, Json]:
    return {names.OPERATION: names.INVOKE_AGENT, names.AGENT: agent}


def _effect_span(run: str, effect: Effect, known: set[str]) -> Span:
    model = effect.cls == "model"
    operation = names.CHAT if model else names.EXECUTE_TOOL
    attributes: dict[str, Json] = {
        names.OPERATION: operation,
        names.AGENT: effect.agent,
        names.EFFECT: effect.cls,
        names.POSITION: effect.settled_n or effect.n,
    }
    if model:
        attributes |= _model_attributes(effect)
    else:
        attributes |= {names.TOOL: effect.name, names.TOOL_CALL: effect.key}
    if effect.usd:
        attributes[names.COST_USD] = to_usd(effect.usd)
    if effect.attempts > 1:
        attributes[names.ATTEMPTS] = effect.attempts
    if effect.cached:
        attributes[names.CACHED] = True
    if effect.state == "refused":
        attributes[names.REFUSED] = effect.why
    if effect.policy:
        attributes[names.POLICY] = list(effect.policy)
    if effect.undoes:
        attributes[names.UNDOES] = effect.undoes
    ended = 0 if effect.state == "open" else effect.ended
    span = _span(run, effect.key, f"{operation} {effect.name}", effect.began, ended, attributes)
    span["kind"] = "client"
    span["parent_id"] = _parent(run, effect.key, known)
    if effect.state == "open":
        return span
    if effect.refused is not None:
        return span | {"status": "error", "message": effect.why}
    return span | _status(effect.error)


def _model_attributes(effect: Effect) -> dict[str, Json]:
    meta = effect.meta
    attributes: dict[str, Json] = {
        names.REQUEST_MODEL: effect.name,
        names.INPUT_TOKENS: effect.tokens_in,
        names.OUTPUT_TOKENS: effect.tokens_out,
    }
    if effect.cached_in:
        attributes[names.CACHED_TOKENS] = effect.cached_in
    for name, meant in ((names.RESPONSE_MODEL, "model"), (names.PROVIDER, "provider")):
        if meta.get(meant):
            attributes[name] = meta[meant]
    if meta.get("finish_reason"):
        attributes[names.FINISH_REASONS] = [meta["finish_reason"]]
    return attributes


def _waits(run: str, entries: Sequence[EntryView], known: set[str]) -> Iterator[Span]:
    """The time in which a person was asked."""
    closed = {str(entry.body["item"]): entry for entry in entries if entry.kind == kinds.CLOSED}
    for entry in entries:
        if entry.kind != kinds.OPENED:
            continue
        item = str(entry.body["item"])
        attributes: dict[str, Json] = {names.ITEM: item, names.ROLE: str(entry.body.get("role") or "")}
        end = closed.get(item)
        if end is not None:
            attributes |= {
                names.DECISION: str(end.body.get("decision") or ""),
                names.DECIDED_BY: str(end.body.get("by") or ""),
            }
        ended = 0 if end is None else end.at
        span = _span(run, entry.key or item, f"{names.WAIT} {entry.body.get('type', '')}", entry.at, ended, attributes)
        span["parent_id"] = _parent(run, entry.key, known)
        yield span | {"status": "unset" if end is None else "ok"}


def _add_events(spans: list[Span], entries: Sequence[EntryView], run: str) -> None:
    """Notes become events of the nearest span; that the run changed hands or was parked, events of the run's."""
    by_key: dict[str, Span] = {span["attributes"][names.KEY]: span for span in spans}
    for entry in entries:
        if entry.kind == kinds.NOTE:
            name = str(entry.body.get("type") or "note")
            span = next((by_key[path] for path in paths(base_of(entry.key)) if path in by_key), by_key[""])
            fields = {key: value for key, value in entry.body.items() if key != "type"}
        elif entry.kind in (kinds.CLAIMED, kinds.PARKED, kinds.EXTENDED):
            name, span, fields = entry.kind, by_key[""], {}
        else:
            continue
        attributes = {
            f"tightship.{key}": value for key, value in fields.items() if isinstance(value, str | int | float)
        }
        span["events"].append({"name": name, "time_ns": _ns(entry.at), "attributes": attributes})


def _parent(run: str, key: str, known: set[str]) -> str:
    """The nearest turn above, or the run."""
    above = key.rpartition("/")[0]
    return span_id(run, next((path for path in paths(above) if path in known), ""))


def _span(run: str, key: str, name: str, began: float, ended: float, attributes: dict[str, Any]) -> Span:
    return {
        "trace_id": trace_id(run),
        "span_id": span_id(run, key),
        "parent_id": "",
        "name": name,
        "kind": "internal",
        "start_ns": _ns(began),
        "end_ns": _ns(ended),
        "attributes": {names.RUN: run, names.KEY: key, **attributes},
        "status": "unset",
        "message": "",
        "events": [],
        "links": [],
    }


def _status(error: Mapping[str, Any] | None) -> dict[str, Json]:
    if error is None:
        return {"status": "ok"}
    return {"status": "error", "message": str(error.get("error") or "")}


def _ns(at: float) -> int:
    # Through microseconds, the precision of store time: a float times 1e9 would invent digits.
    return round(at * 1e6) * 1000
