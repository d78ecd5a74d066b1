"""What there is to do as Prometheus reads it: the text format 0.0.4, base units, names by its conventions.

https://prometheus.io/docs/instrumenting/exposition_formats/ and https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from tightship._version import __version__
from tightship.controls.incidents import BREAKER, INVENTED
from tightship.insight._efforts import UNITS
from tightship.insight.costs import Cost
from tightship.insight.demand import Demand, WorkflowDemand

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its name, type and meaning, and its samples of a reading."""

    name: str
    type: Literal["gauge", "counter"]
    help: str
    samples: Callable[[Demand], Iterable[_Sample]]


def _each(value: Callable[[WorkflowDemand], float]) -> Callable[[Demand], Iterable[_Sample]]:
    """A sample for each tenant and workflow."""
    return lambda demand: (({"tenant": one.tenant, "workflow": one.workflow}, value(one)) for one in demand.workflows)


def _tokens(demand: Demand) -> Iterable[_Sample]:
    for one in demand.workflows:
        for direction, count in (("input", one.today.tokens_in), ("output", one.today.tokens_out)):
            yield {"tenant": one.tenant, "workflow": one.workflow, "direction": direction}, count


def _halted(demand: Demand) -> Iterable[_Sample]:
    kinds = Counter(scope.partition(":")[0] for scope in demand.halted)
    return (({"kind": kind}, kinds[kind]) for kind in ("all", "tenant", "workflow", "agent", "run"))


def _of_keys(name: str) -> Callable[[Demand], Iterable[_Sample]]:
    return lambda demand: (({"keys": one.family}, one.counts[name]) for one in demand.context)


def _ages(demand: Demand) -> Iterable[_Sample]:
    for one in demand.context:
        for share in (0.5, 0.99):
            age = one.age(share)
            if age is not None:
                yield {"keys": one.family, "quantile": str(share)}, age


def _conflicts(demand: Demand) -> Iterable[_Sample]:
    for one in demand.context:
        for kind in ("read", "write"):
            yield {"keys": one.family, "kind": kind}, one.counts[f"{kind}_conflicts"]


def _shares(demand: Demand) -> Iterable[_Sample]:
    for one in demand.workflows:
        for unit in UNITS:
            share = one.lately.share(unit)
            if share is not None:
                yield {"tenant": one.tenant, "workflow": one.workflow, "of": _OF[unit]}, share


_OF: Final = {"turns": "turns", "tokens": "tokens", "usd": "dollars", "ms": "seconds"}
_PASSING: Final = ("handoffs", "returned", "misroutes", "rework")


def _handoffs(demand: Demand) -> Iterable[_Sample]:
    for one in demand.workflows:
        for pair in one.lately.pairs.values():
            for what in _PASSING:
                told = {"source": pair.source, "target": pair.target, "what": what}
                yield {"tenant": one.tenant, "workflow": one.workflow, **told}, getattr(pair, what)


def _retention(demand: Demand) -> Iterable[_Sample]:
    for one in demand.workflows:
        for pair in one.lately.pairs.values():
            if pair.retention is not None:
                told = {"source": pair.source, "target": pair.target}
                yield {"tenant": one.tenant, "workflow": one.workflow, **told}, pair.retention


def _refused(demand: Demand) -> Iterable[_Sample]:
    for one in demand.workflows:
        for (agent, kind), count in sorted(one.lately.refused.items()):
            yield {"tenant": one.tenant, "workflow": one.workflow, "agent": agent, "kind": kind}, count


_LATELY: Final = " among the latest 1,000 that have begun today and ended."


def _incidents(kind: str, *labels: str) -> Callable[[Demand], Iterable[_Sample]]:
    return lambda demand: (
        (dict(zip(("tenant", *labels), (one.tenant, one.name, one.state), strict=True)), one.count)
        for one in demand.incidents
        if one.kind == kind
    )


def _drifted(demand: Demand) -> Iterable[_Sample]:
    return (({"subject": name}, len(features)) for name, features in sorted(demand.behaviour.drifted.items()))


def _open_leaks(demand: Demand) -> Iterable[_Sample]:
    leaks = demand.behaviour.leaks
    return () if leaks is None else (({}, leaks.total()),)


def _unread(demand: Demand) -> Iterable[_Sample]:
    return () if demand.behaviour.leaks is None else (({}, demand.behaviour.unread),)


def _model_changes(demand: Demand) -> Iterable[_Sample]:
    tiers = Counter(change.tier for change in demand.behaviour.changes)
    return (({"tier": tier}, tiers[tier]) for tier in sorted({tier for tier, _ in demand.behaviour.models}))


def _audits(demand: Demand) -> Iterable[_Sample]:
    for agent, counts in sorted(demand.behaviour.audits.items()):
        for result in ("ok", "not ok", "open"):
            yield {"agent": agent, "result": result}, counts[result]


def _resets(demand: Demand) -> Iterable[_Sample]:
    return (({"agent": agent}, count) for agent, count in sorted(demand.behaviour.resets.items()))


_SINCE: Final = " since midnight UTC, when it begins at 0 again."


def _today(name: str, help: str, value: Callable[[Cost], float]) -> Metric:
    """What has grown since midnight."""
    return Metric(name, "counter", f"{help}{_SINCE}", _each(lambda one: value(one.today)))


METRICS: Final = (
    Metric("tightship_build_info", "gauge", "The version that reads.", lambda _: [({"version": __version__}, 1)]),
    Metric("tightship_reading_timestamp_seconds", "gauge", "Store time of the reading.", lambda one: [({}, one.at)]),
    Metric("tightship_runs_due", "gauge", "Runs that are due and that nobody drives.", _each(lambda one: one.due)),
    Metric("tightship_runs_running", "gauge", "Runs that a worker drives.", _each(lambda one: one.running)),
    Metric("tightship_runs_parked", "gauge", "Runs that wait.", _each(lambda one: one.parked)),
    Metric(
        "tightship_runs_code_gone",
        "gauge",
        "Open runs of a code that no living worker has.",
        _each(lambda one: one.code_gone),
    ),
    Metric(
        "tightship_oldest_due_seconds",
        "gauge",
        "How long the oldest due run has waited.",
        _each(lambda one: one.oldest),
    ),
    Metric(
        "tightship_runs_claimable",
        "gauge",
        "Due runs that another worker could take up now: `admission` has a place for them.",
        _each(lambda one: one.claimable),
    ),
    Metric(
        "tightship_oldest_claimable_seconds",
        "gauge",
        "How long the oldest of these has waited.",
        _each(lambda one: one.oldest_claimable),
    ),
    Metric("tightship_inbox_open_items", "gauge", "What waits for a person.", _each(lambda one: one.waiting)),
    Metric(
        "tightship_inbox_loop_items",
        "gauge",
        "What waits for a person because agents went round in circles.",
        _each(lambda one: one.looping),
    ),
    Metric(
        "tightship_inbox_near_repeat_items",
        "gauge",
        "What waits for a person because an agent said nearly the same in other words, again and again.",
        _each(lambda one: one.near),
    ),
    Metric(
        "tightship_untold_notices",
        "gauge",
        "Notices of inbox items that outside systems have not received, by target and state.",
        lambda one: [({"target": name, "state": state}, count) for (name, state), count in one.untold.items()],
    ),
    Metric("tightship_halted_scopes", "gauge", "Scopes that are halted, by kind.", _halted),
    _today("tightship_calls_total", "Calls that went out", lambda cost: cost.calls),
    _today("tightship_call_errors_total", "Calls that failed", lambda cost: cost.errors),
    _today("tightship_call_seconds_total", "Time that calls took", lambda cost: cost.ms / 1e3),
    _today("tightship_refusals_total", "Calls that were not let out", lambda cost: cost.refusals),
    _today("tightship_cache_hits_total", "Calls that the cache answered", lambda cost: cost.hits),
    _today("tightship_cost_dollars_total", "Money spent", lambda cost: cost.usd / 1e9),
    Metric("tightship_tokens_total", "counter", f"Tokens of model calls{_SINCE}", _tokens),
    Metric("tightship_recent_requests", "gauge", f"Requests{_LATELY}", _each(lambda one: one.lately.runs)),
    Metric("tightship_recent_coordination_ratio", "gauge", f"Share of coordination, over requests{_LATELY}", _shares),
    Metric(
        "tightship_recent_handoffs",
        "gauge",
        f"Handoffs, and what went wrong with them, in requests{_LATELY}",
        _handoffs,
    ),
    Metric(
        "tightship_recent_handoff_facts_ratio",
        "gauge",
        f"Share of facts that arrived, over requests{_LATELY}",
        _retention,
    ),
    Metric(
        "tightship_recent_role_refusals", "gauge", f"What lay outside of agents' roles, in requests{_LATELY}", _refused
    ),
    Metric(
        "tightship_breaker_changes_total",
        "counter",
        f"Breakers that opened or closed, by what they stand before{_SINCE}",
        _incidents(BREAKER, "name", "state"),
    ),
    Metric(
        "tightship_invented_arguments_total",
        "counter",
        f"Calls whose arguments lay outside their domain{_SINCE}",
        _incidents(INVENTED, "tool", "agent"),
    ),
    Metric(
        "tightship_context_age_seconds",
        "gauge",
        "How old shared values were when they were read, by the first part of their keys.",
        _ages,
    ),
    Metric("tightship_context_reads_total", "counter", "Readings of shared values.", _of_keys("reads")),
    Metric("tightship_context_stale_total", "counter", "Readings that found the value too old.", _of_keys("stale")),
    Metric("tightship_context_writes_total", "counter", "Writes of shared values.", _of_keys("writes")),
    Metric(
        "tightship_drifted_features",
        "gauge",
        "Features that had drifted from the baseline when last checked.",
        _drifted,
    ),
    Metric(
        "tightship_open_leaks",
        "gauge",
        "Leaks between runs that declared checks have found and nobody has dealt with.",
        _open_leaks,
    ),
    Metric("tightship_leak_check_unread_entries", "gauge", "Entries that the last check had no room for.", _unread),
    Metric("tightship_model_changes_total", "counter", "Versions of models that changed silently.", _model_changes),
    Metric("tightship_agent_resets_total", "counter", "Times that an agent's code has begun anew.", _resets),
    Metric("tightship_audited_outputs", "gauge", "Outputs that an audit has drawn, by result.", _audits),
    Metric("tightship_context_conflicts_total", "counter", "Conflicts over shared values, by kind.", _conflicts),
)
"""Every metric, in the order of the text. Prometheus takes a counter that falls for one that began anew."""


def exposition(demand: Demand) -> str:
    """The reading as text; a metric without samples has its HELP and TYPE lines all the same."""
    lines: list[str] = []
    for metric in METRICS:
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.type}"]
        lines += [f"{metric.name}{_labels(labels)} {_number(value)}" for labels, value in metric.samples(demand)]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
