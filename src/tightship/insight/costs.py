"""What it costs (C1): by day, workflow, agent, tool and tier from the `spend` table; by turn from a run's entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from tightship.controls.periods import Forecast, Period, forecast, period_bounds, period_key
from tightship.controls.spend import SUMS
from tightship.core.errors import InputRejected
from tightship.core.money import show_usd, to_usd
from tightship.core.ports import EntryView, Json
from tightship.insight._reading import Effect, effects, turn_key, turn_of, turns
from tightship.ledger import Ledger

GROUPS: Final = ("day", "month", "tenant", "workflow", "agent", "name", "cls", "tier")
"""What costs can be grouped by. `tenant` is the log; `tier` the name of model calls, empty for the rest."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A sum: calls that went out, nano-dollars, tokens, milliseconds; cache hits, failed calls, refusals."""

    calls: int = 0
    usd: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cached_in: int = 0
    ms: int = 0
    hits: int = 0
    errors: int = 0
    refusals: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, name) + getattr(other, name) for name in SUMS))

    @property
    def hit_rate(self) -> float:
        """Share of what was asked that the cache has answered, in [0, 1]."""
        return self.hits / (self.calls + self.hits) if self.hits else 0.0

    def as_dict(self) -> dict[str, Json]:
        """All figures; `usd` in dollars, `usd_nano` exact."""
        figures = {name: getattr(self, name) for name in SUMS}
        return {**figures, "usd": to_usd(self.usd), "usd_nano": self.usd, "hit_rate": self.hit_rate}


@dataclass(frozen=True, slots=True)
class CostLine:
    """One line of a report: what it is grouped by, and its sum."""

    group: Mapping[str, str]
    cost: Cost

    def as_dict(self) -> dict[str, Json]:
        """The group's names and the figures side by side."""
        return {**self.group, **self.cost.as_dict()}


@dataclass(frozen=True, slots=True)
class CostReport:
    """Costs by group, the dearest first (by time, where it is grouped by time first)."""

    by: tuple[str, ...]
    lines: tuple[CostLine, ...]
    total: Cost

    def as_dict(self) -> dict[str, Json]:
        """The report as JSON."""
        return {
            "by": list(self.by),
            "lines": [line.as_dict() for line in self.lines],
            "total": self.total.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class TurnCost:
    """What one turn of an agent has cost; `ms` in its cost is the time of its calls."""

    key: str
    agent: str
    cost: Cost

    def as_dict(self) -> dict[str, Json]:
        """Key, agent and figures."""
        return {"key": self.key, "agent": self.agent, **self.cost.as_dict()}


@dataclass(frozen=True, slots=True)
class RepeatedCall:
    """The same call, with the same arguments, more than once in a run.

    `avoidable` is in nano-dollars: what the calls after the first have cost.
    """

    name: str
    args: str
    agents: tuple[str, ...]
    keys: tuple[str, ...]
    cached: int
    avoidable: int

    def as_dict(self) -> dict[str, Json]:
        """All fields, with the number of calls."""
        return {
            "name": self.name,
            "args": self.args,
            "agents": list(self.agents),
            "keys": list(self.keys),
            "calls": len(self.keys),
            "cached": self.cached,
            "avoidable_usd": to_usd(self.avoidable),
        }

    def __str__(self) -> str:
        answered = f", {self.cached} of them answered from cache" if self.cached else ""
        cost = f", {show_usd(self.avoidable)} avoidable" if self.avoidable else ""
        return f"{', '.join(self.agents)} asked {self.name} for the same {len(self.keys)} times{answered}{cost}"


@dataclass(frozen=True, slots=True)
class RunCosts:
    """Where a run's money, tokens and calls went.

    Attributes:
        in_flight: what open calls have reserved, in nano-dollars.
        requests: attempts at tools and models for the run and all runs below it: what `limits.requests` bounds.
    """

    run: str
    total: Cost
    agents: Mapping[str, Cost]
    names: Mapping[str, Cost]
    turns: tuple[TurnCost, ...]
    repeated: tuple[RepeatedCall, ...]
    in_flight: int
    requests: int = 0

    def as_dict(self) -> dict[str, Json]:
        """The run's costs as JSON."""
        return {
            "run": self.run,
            "requests": self.requests,
            "total": self.total.as_dict(),
            "agents": {name: cost.as_dict() for name, cost in self.agents.items()},
            "names": {name: cost.as_dict() for name, cost in self.names.items()},
            "turns": [turn.as_dict() for turn in self.turns],
            "repeated": [repeated.as_dict() for repeated in self.repeated],
            "in_flight_usd": to_usd(self.in_flight),
        }


def report(rows: Iterable[Mapping[str, Any]], by: Sequence[str] = ("workflow",)) -> CostReport:
    """Sum rows of the `spend` table.

    Args:
        rows: rows of the table.
        by: what to group by, out of GROUPS; empty for the total alone.

    Raises:
        InputRejected: costs cannot be grouped by that.
    """
    unknown = next((name for name in by if name not in GROUPS), None)
    if unknown is not None:
        raise InputRejected(f"costs cannot be grouped by {unknown!r}", fix=f"use one of: {', '.join(GROUPS)}")
    sums: dict[tuple[str, ...], Cost] = {}
    total = Cost()
    for row in rows:
        cost = Cost(*(int(row.get(name) or 0) for name in SUMS))
        key = tuple(_group(row, name) for name in by)
        sums[key] = sums.get(key, Cost()) + cost
        total += cost
    if by and by[0] in ("day", "month"):
        ordered = sorted(sums.items())
    else:
        ordered = sorted(sums.items(), key=lambda item: (-item[1].usd, -item[1].calls, item[0]))
    lines = (CostLine(dict(zip(by, key, strict=True)), cost) for key, cost in ordered)
    return CostReport(tuple(by), tuple(lines), total)


async def cost_report(
    ledger: Ledger,
    by: Sequence[str] = ("workflow",),
    *,
    since: str = "",
    until: str = "",
    workflow: str = "",
    tenant: str = "",
) -> CostReport:
    """The report over the store.

    Args:
        ledger: with the `spend` projection.
        by: what to group by, out of GROUPS.
        since: first day (`YYYY-MM-DD`, UTC), included; empty for all.
        until: last day, included; empty for all.
        workflow: only this one.
        tenant: only this tenant's log.

    Raises:
        InputRejected: no such group, or no such day.
    """
    where: list[tuple[str, str, Any]] = []
    for column, operator, value in (("day", ">=", since), ("day", "<=", until)):
        if value:
            where.append((column, operator, _checked_day(value)))
    where += [(column, "=", value) for column, value in (("workflow", workflow), ("log", tenant)) if value]
    return report(await ledger.select("spend", where), by)


def run_costs(run: str, entries: Sequence[EntryView]) -> RunCosts:
    """Where one run's costs lie, from its entries.

    Args:
        run: its id.
        entries: all of its entries, in order.
    """
    found = list(effects(entries).values())
    known = turns(entries)
    agents: dict[str, Cost] = {}
    names: dict[str, Cost] = {}
    per_turn: dict[str, TurnCost] = {turn.key: TurnCost(turn.key, turn.agent, Cost()) for turn in known.values()}
    total = Cost()
    for effect in found:
        cost = cost_of(effect)
        total += cost
        agents[effect.agent] = agents.get(effect.agent, Cost()) + cost
        names[effect.name] = names.get(effect.name, Cost()) + cost
        turn = turn_of(effect.key, known)
        key = turn_key(effect.key) if turn is None else turn.key
        if key != effect.key:
            before = per_turn.get(key) or TurnCost(key, effect.agent, Cost())
            per_turn[key] = TurnCost(key, before.agent, before.cost + cost)
    in_flight = sum(effect.reserved_usd for effect in found if effect.state == "open")
    return RunCosts(run, total, agents, names, tuple(per_turn.values()), tuple(repeated_calls(found)), in_flight)


async def costs_of_run(ledger: Ledger, run: str) -> RunCosts:
    """Where one run's costs lie."""
    found = run_costs(run, await ledger.run_entries(run))
    return replace(found, requests=found.total.calls + await requests_below(ledger, run))


async def requests_below(ledger: Ledger, run: str) -> int:
    """How often the runs below one have asked anything outside, retries included."""
    made, above = 0, [run]
    while above:
        rows = await ledger.select("runs", [("parent", "in", above)])
        above = [row["id"] for row in rows]
        made += sum(int(row["calls"]) for row in rows if row["state"] == "ended")
        left = [row["id"] for row in rows if row["state"] != "ended"]
        for one, entries in (await ledger.runs_entries(left)).items() if left else ():
            made += run_costs(one, entries).total.calls
    return made


def repeated_calls(found: Iterable[Effect]) -> list[RepeatedCall]:
    """Calls that were made more than once with the same arguments, the most often repeated first.

    Retries of one call are not repeats; what was refused was not made.
    """
    same: dict[tuple[str, str, tuple[str, ...]], list[Effect]] = {}
    for effect in found:
        if effect.args and (effect.calls or effect.cached):
            same.setdefault((effect.name, effect.args, effect.talk), []).append(effect)
    repeated = [
        RepeatedCall(
            name=name,
            args=args,
            agents=tuple(dict.fromkeys(effect.agent for effect in calls)),
            keys=tuple(effect.key for effect in calls),
            cached=sum(effect.cached for effect in calls),
            avoidable=sum(effect.usd for effect in calls[1:]),
        )
        for (name, args, _), calls in same.items()
        if len(calls) > 1
    ]
    return sorted(repeated, key=lambda one: (-one.avoidable, -len(one.keys), one.name, one.keys))


def budget_forecast(
    rows: Iterable[Mapping[str, Any]], limit: int | None, *, period: Period, now: float, unit: str = "usd"
) -> Forecast:
    """When a day's or month's budget will be used up.

    Args:
        rows: rows of the `spend` table; those of other periods are passed over.
        limit: nano-dollars, tokens or calls; None for no limit.
        period: `day` or `month`.
        now: store time (s).
        unit: `usd`, `tokens` or `calls`.

    Raises:
        ValueError: the period is `run`.
    """
    start, end = period_bounds(period, now)
    spent, days = 0, set[str]()
    for row in rows:
        if str(row["day"]).startswith(period_key(period, now)):
            figures = Cost(*(int(row.get(name) or 0) for name in SUMS))
            spent += figures.tokens_in + figures.tokens_out if unit == "tokens" else getattr(figures, unit)
            days.add(str(row["day"]))
    # In the month in which somebody begins, the days before the first run say nothing about the pace.
    since = _day_start(min(days)) if days else start
    return forecast(spent, limit, start=start, now=now, end=end, since=since)


def cost_of(effect: Effect) -> Cost:
    """The sum of one effect over its attempts."""
    return Cost(
        calls=effect.calls,
        usd=effect.usd,
        tokens_in=effect.tokens_in,
        tokens_out=effect.tokens_out,
        cached_in=effect.cached_in,
        ms=round(effect.ms),
        hits=int(effect.cached),
        errors=effect.failures,
        refusals=effect.refusals,
    )


def _group(row: Mapping[str, Any], name: str) -> str:
    if name == "month":
        return str(row["day"])[:7]
    if name == "tenant":
        return str(row["log"])
    if name == "tier":
        return str(row["name"]).removeprefix("model:") if row["cls"] == "model" else ""
    return str(row[name])


def _checked_day(text: str) -> str:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).strftime("%Y-%m-%d")
    except ValueError:
        raise InputRejected(f"{text!r} is no day", fix="write days as YYYY-MM-DD") from None


def _day_start(day: str) -> float:
    return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
