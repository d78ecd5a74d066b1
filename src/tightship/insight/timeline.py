"""What a run did and when: the whole view (`runs show`), one row of `runs list`, one entry as it comes (`watch`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import UnknownName
from tightship.core.money import show_usd, to_usd
from tightship.core.ports import EntryView, Json
from tightship.insight._reading import (
    ERASED,
    HANDS,
    alert_text,
    base_of,
    clock,
    duration,
    effects,
    first,
    granted_text,
    said_of,
    short,
)
from tightship.insight._tree import Below, StepNode, draw, step_tree
from tightship.insight.boundaries import Refusals, listed, refusals
from tightship.insight.coordination import Coordination, coordination_of
from tightship.insight.costs import RunCosts, requests_below, run_costs
from tightship.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth seeing: its position, store time (s), key, name and text."""

    n: int
    at: float
    key: str
    name: str
    text: str

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {"n": self.n, "at": self.at, "key": self.key, "name": self.name, "text": self.text}

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{clock(self.at)[11:]}  {where}{self.text}"


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run, whole.

    Attributes:
        summary: run, workflow, version, tenant, state, outcome, reason, message, times and totals.
        steps: the steps as a tree.
        exceptions: exceptions of the work, failed checkpoints, refusals, breakers.
        budget: alerts, shortages, extensions.
        people: questions and decisions.
        notes: what else patterns have noted (rounds of maker and checker, …).
        undone: compensations.
        residual: what remains outside and could not be undone, or whose outcome nobody knows.
        stands: what a run that did not complete has done and left as it is: its workflow undoes nothing.
        costs: where money, tokens and calls went.
        refused: what lay outside of agents' roles, by agent and kind.
        coordination: how well its agents work together, with the runs below it; None where only its entries are known.
    """

    summary: Mapping[str, Json]
    steps: tuple[StepNode, ...]
    exceptions: tuple[Event, ...]
    budget: tuple[Event, ...]
    people: tuple[Event, ...]
    notes: tuple[Event, ...]
    undone: tuple[Event, ...]
    residual: tuple[str, ...]
    costs: RunCosts
    refused: Refusals
    coordination: Coordination | None = None
    stands: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Json]:
        """The view as JSON."""
        return {
            "summary": dict(self.summary),
            "steps": [step.as_dict() for step in self.steps],
            **{name: [event.as_dict() for event in getattr(self, name)] for name in _EVENTS},
            "residual": list(self.residual),
            "stands": list(self.stands),
            "costs": self.costs.as_dict(),
            "refused": listed(self.refused),
            "coordination": None if self.coordination is None else self.coordination.as_dict(),
        }

    def render(self, keys: bool = False) -> str:
        """The view as text; `keys` names the key of each step."""
        summary = self.summary
        lines = [" · ".join(str(summary[name]) for name in ("workflow", "run", "state") if summary.get(name))]
        if summary.get("outcome"):
            said = ": ".join(str(summary[name]) for name in ("outcome", "reason", "message") if summary.get(name))
            lines.append(said)
        requests = summary.get("requests", summary["calls"])
        by: Any = summary.get("by")
        people = f" by {', '.join(by)}" if by else ""
        below = "" if requests == summary["calls"] else f", {requests} with the runs below it"
        lines.append(
            f"started {clock(float(summary['started_at']))} UTC{people}, took {duration(float(summary['seconds']))}, "
            f"{show_usd(int(summary['usd_nano']))}, {summary['tokens']:,} tokens, {summary['calls']} calls{below}"
        )
        if self.coordination is not None:
            lines.append(f"coordination: {self.coordination}")
        lines += ["", *draw(self.steps, keys)]
        for name in _EVENTS:
            events: tuple[Event, ...] = getattr(self, name)
            lines += _block(name, [str(event) for event in events])
        lines += _block("outside of roles", [f"{agent}: {kind} x {n}" for (agent, kind), n in self.refused.items()])
        lines += _block("remains outside", self.residual)
        lines += _block("stands outside, since undo_on_failure is false", self.stands)
        lines += _block("repeated calls", [str(one) for one in self.costs.repeated])
        return "\n".join(lines)


_LONGEST: Final = 50
"""Lines of one list."""
_EVENTS: Final = ("exceptions", "budget", "people", "notes", "undone")
_UNSAID: Final = ("type", "detail", "line", "args", "out")
"""What of a note is a name or an address, and says nothing to people."""
_EXCEPTIONS: Final = ("exception", "checkpoint.failed", "breaker", "limit")


async def show(ledger: Ledger, run: str) -> Timeline:
    """The timeline of a run.

    Raises:
        UnknownName: there is no such run.
    """
    entries = await ledger.run_entries(run)
    ended = first(entries, kinds.ENDED)
    told = [entry for entry in entries if entry.kind in (kinds.CLOSED, kinds.SIGNAL, kinds.NOTE) or entry is ended]
    wanted = [str(entry.body["detail"]) for entry in told if entry.body.get("detail")]
    values = await ledger.values(wanted, erased=ERASED)
    view = timeline(entries, values, await _under_way(ledger, run, entries))
    requests = view.costs.total.calls + await requests_below(ledger, run)
    summary = {**view.summary, "requests": requests}
    costs = replace(view.costs, requests=requests)
    return replace(view, summary=summary, costs=costs, coordination=await coordination_of(ledger, run))


async def _under_way(ledger: Ledger, run: str, entries: Sequence[EntryView]) -> list[Below]:
    """The runs below one that have not told it of their end."""
    told = {e.body["child"] for e in entries if e.kind == kinds.SIGNAL and e.body.get("type") == "child"}
    rows = await ledger.select("runs", [("parent", "=", run)], [("started_at", "asc")])
    open_ = {row["id"]: row for row in rows if row["id"] not in told}
    found = list[Below]()
    for child, own in (await ledger.runs_entries(list(open_))).items() if open_ else ():
        for began in own[:1]:
            place = (str(began.body.get("workflow") or ""), str(began.body.get("key") or ""))
            found.append(Below(child, *place, began.n, began.at, str(open_[child]["state"])))
    return found


def timeline(
    entries: Sequence[EntryView], values: Mapping[str, Json] | None = None, below: Sequence[Below] = ()
) -> Timeline:
    """The timeline of a run.

    Args:
        entries: all of its entries, in order.
        values: opened values by address; used are the details of how it ended, of notes and of what people said.
        below: the runs below it that are under way.

    Raises:
        UnknownName: the entries are not those of a run.
    """
    started, ended = first(entries, kinds.STARTED), first(entries, kinds.ENDED)
    if started is None:
        raise UnknownName("there is no such run", fix="list them with `tightship runs list`")
    detail = (values or {}).get(str(ended.body.get("detail"))) if ended is not None else None
    costs = run_costs(started.run, entries)
    found = {name: list[Event]() for name in _EVENTS}
    for entry in entries:
        placed = _event(entry, values or {})
        if placed is not None:
            found[placed[0]].append(placed[1])
    return Timeline(
        summary=_summary(started, ended, entries, detail, costs),
        steps=tuple(step_tree(entries, ended is not None, below)),
        exceptions=tuple(found["exceptions"]),
        budget=tuple(found["budget"]),
        people=tuple(found["people"]),
        notes=tuple(found["notes"]),
        undone=tuple(_undone(entries)),
        residual=tuple(_residual(entries, detail)),
        costs=costs,
        refused=refusals(entries),
        stands=tuple(_stands(entries, ended, detail)),
    )


def row_line(row: Mapping[str, Any], now: float) -> dict[str, str]:
    """One row of the `runs` table as `runs list` shows it.

    Args:
        row: the row.
        now: store time (s), for runs that have not ended.
    """
    started, ended = float(row.get("started_at") or 0.0), float(row.get("ended_at") or 0.0)
    state = str(row.get("outcome") or row.get("state") or "")
    return {
        "run": str(row["id"]),
        "workflow": str(row.get("workflow") or ""),
        "reference": str(row.get("reference") or ""),
        "state": state if row.get("live", 1) else f"{state} (rehearsed)",
        "reason": str(row.get("reason") or ""),
        "started": clock(started),
        "took": duration(max(0.0, (ended or now) - started)) if started else "",
        "cost": show_usd(int(row.get("usd") or 0)),
        "tokens": f"{int(row.get('tokens_in') or 0) + int(row.get('tokens_out') or 0):,}",
        "calls": str(row.get("calls") or 0),
    }


def entry_line(entry: EntryView) -> str:
    """One entry on one line: time, run, key, what happened."""
    place = f"{entry.run}  {entry.key}" if entry.key else entry.run
    return "  ".join(part for part in (clock(entry.at)[11:], place, _said(entry)) if part)


def _said(entry: EntryView) -> str:
    say = _LINES.get(entry.kind)
    return entry.kind if say is None else say(entry.body)


def _effect_said(body: Mapping[str, Any]) -> str:
    name = str(body.get("name") or "")
    if body.get("refused"):
        return f"{name} refused: {body['refused'].get('signal', '')} {body['refused'].get('scope', '')}".rstrip()
    if body.get("error"):
        word = "refused" if body.get("denied") else "failed, tried again" if body.get("again") else "failed"
        return f"{name} {word}: {body['error'].get('error', '')}"
    rehearsed = (body.get("meta") or {}).get("rehearsal")
    parts = [name, "from cache" if body.get("cached") else "rehearsed" if rehearsed else "done"]
    if body.get("ms"):
        parts.append(duration(float(body["ms"]) / 1000))
    if body.get("usd"):
        parts.append(show_usd(int(body["usd"])))
    tokens = int(body.get("tokens_in") or 0) + int(body.get("tokens_out") or 0)
    return "  ".join([*parts, f"{tokens:,} tokens"] if tokens else parts)


def _turn_said(body: Mapping[str, Any]) -> str:
    took = duration(float(body.get("ms") or 0.0) / 1000)
    if body.get("error"):
        return f"{body.get('agent', '')} failed: {body['error'].get('error', '')}  {took}"
    return f"{body.get('agent', '')} {'rehearsed' if body.get('rehearsal') else 'done'}  {took}"


def _ended_said(body: Mapping[str, Any]) -> str:
    reason = f": {body['reason']}" if body.get("reason") else ""
    return f"{body.get('outcome', 'ended')}{reason}  {show_usd(int(body.get('usd') or 0))}"


def _why(body: Mapping[str, Any]) -> str:
    return f": {body['why']}" if body.get("why") else ""


def _by(body: Mapping[str, Any]) -> str:
    by = f" by {body['by']}" if body.get("by") else ""
    return f"{by}: {body['reason']}" if body.get("reason") else by


def _note_said(body: Mapping[str, Any], values: Mapping[str, Json] | None = None) -> str:
    """What a note says; what it has sealed is left out where it was not opened."""
    if body.get("type") == "budget.alert":
        return alert_text(body)
    sealed = (values or {}).get(str(body.get("detail") or ""))
    told = {**body, **(sealed if isinstance(sealed, dict) else {"said": sealed})}
    shown = {name: value for name, value in told.items() if name not in _UNSAID}
    fields = ", ".join(f"{name} {short(value)}" for name, value in shown.items() if value not in (None, "", [], {}))
    return f"{body.get('type', 'note')}{': ' if fields else ''}{fields}"


_LINES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    kinds.STARTED: lambda body: f"{body.get('workflow', '')} started{_by({'by': ', '.join(body.get('by', ()))})}",
    kinds.CLAIMED: lambda body: f"taken over by {body.get('owner', '')}",
    kinds.PARKED: lambda body: f"parked, waits for {', '.join(map(str, body.get('waiting') or ())) or 'its time'}",
    kinds.ENDED: _ended_said,
    kinds.SIGNAL: lambda body: f"{HANDS.get(str(body.get('type')), 'signal: ' + str(body.get('type')))}{_by(body)}",
    kinds.ADMITTED: lambda body: f"{body.get('name', '')} begins",
    kinds.SETTLED: _effect_said,
    kinds.TURN: _turn_said,
    kinds.NODE: lambda body: "step done",
    kinds.DECIDED: lambda body: "decided",
    kinds.NOTE: _note_said,
    kinds.OPENED: lambda body: (
        f"{body.get('type', '')} asked of {body.get('role') or 'anybody'}: {body.get('title', '')}"
    ),
    kinds.CLOSED: lambda body: f"{body.get('decision', 'closed')}{_by(body)}",
    kinds.BREAKER: lambda body: f"{body.get('name')} is {body.get('state')} to all workers{_why(body)}",
    kinds.HALT: lambda body: f"{body.get('scope', '')} halted{_by(body)}",
    kinds.UNHALT: lambda body: f"{body.get('scope', '')} goes on{_by(body)}",
    kinds.ENVELOPE: lambda body: f"{body.get('scope', '')} lent to {body.get('owner', '')}: {granted_text(body)}",
    kinds.EXTENDED: lambda body: f"budget of {body.get('scope', '')} extended by {granted_text(body)}{_by(body)}",
    kinds.ERASED: lambda body: "a data subject was erased",
    kinds.BASELINE: lambda body: f"the baseline of {body.get('subject')} is recorded{_by(body)}",
    kinds.DRIFT: lambda body: f"{len(body.get('drifted') or ())} features of {body.get('subject')} have drifted",
    kinds.LEAKS: lambda body: f"{len(body.get('leaks') or ())} leaks in {body.get('runs')} runs",
    kinds.MODEL: lambda body: f"{body.get('tier')} reports {body.get('model')}",
    kinds.AUDIT: lambda body: f"{len(body.get('runs') or ())} outputs of {body.get('agent')} are looked at{_by(body)}",
}


def _event(entry: EntryView, values: Mapping[str, Json]) -> tuple[str, Event] | None:
    """The event that an entry makes, and the list it belongs to."""
    body, kind = entry.body, entry.kind
    if kind == kinds.NOTE:
        name = str(body.get("type") or "")
        place = "budget" if name.startswith("budget") else "exceptions" if name in _EXCEPTIONS else "notes"
        return place, Event(entry.n, entry.at, base_of(entry.key), name, _note_said(body, values))
    if kind == kinds.SETTLED and (body.get("refused") or body.get("denied")):
        signal = str((body.get("refused") or {}).get("signal") or "")
        place = "budget" if signal == "OverBudget" else "exceptions"
        return place, Event(entry.n, entry.at, entry.key, "refused", _effect_said(body))
    if kind == kinds.TURN and body.get("error"):
        return "exceptions", Event(entry.n, entry.at, entry.key, "turn.failed", _turn_said(body))
    if kind == kinds.EXTENDED:
        return "budget", Event(entry.n, entry.at, base_of(entry.key), kind, _said(entry))
    if kind == kinds.OPENED:
        return "people", Event(entry.n, entry.at, base_of(entry.key), kind, _said(entry))
    told = {**body, "reason": said_of(body, values)}
    if kind == kinds.CLOSED:
        return "people", Event(entry.n, entry.at, base_of(entry.key), kind, _LINES[kind](told))
    if kind == kinds.SIGNAL and body.get("type") in ("cancel", "halt", *HANDS):
        key = str(body.get("name") if body["type"] == "edit" else body.get("key") or "")
        return "people", Event(entry.n, entry.at, key, kind, _LINES[kind](told))
    return None


def _undone(entries: Sequence[EntryView]) -> list[Event]:
    return [
        Event(effect.n, effect.began, effect.undoes, effect.name, f"{effect.name} {effect.state}")
        for effect in effects(entries).values()
        if effect.cls == "undo"
    ]


def _residual(entries: Sequence[EntryView], detail: Json) -> list[str]:
    known = detail.get("residual") if isinstance(detail, dict) else None
    remains = [f"{one.get('tool', '')} ({one.get('key', '')}): {one.get('why', '')}" for one in known or ()]
    named = {one.get("key") for one in known or ()}
    remains += [
        f"{effect.name} ({effect.key}): nobody knows whether it was done"
        for effect in effects(entries).values()
        if effect.state == "unknown" and effect.key not in named
    ]
    return remains


def _stands(entries: Sequence[EntryView], ended: EntryView | None, detail: Json) -> list[str]:
    """Writes of a run that did not complete which nobody has tried to undo, nor reported as what remains."""
    if ended is None or ended.body.get("outcome") in ("completed", "cancelled"):
        return []
    told = {one.get("key") for one in (detail.get("residual") if isinstance(detail, dict) else None) or ()}
    found = effects(entries).values()
    gone = {one.undoes for one in found if one.cls == "undo"} | told
    writes = [one for one in found if one.cls == "write" and one.state == "done" and not one.meta.get("rehearsal")]
    return [f"{one.name} ({one.key})" for one in writes if one.key not in gone]


def _summary(
    started: EntryView, ended: EntryView | None, entries: Sequence[EntryView], detail: Json, costs: RunCosts
) -> dict[str, Json]:
    body = started.body
    end: Mapping[str, Any] = {} if ended is None else ended.body
    state = next((entry for entry in reversed(entries) if entry.kind in _STATES), started)
    last = entries[-1].at if ended is None else ended.at
    names = ("workflow", "version", "tenant", "reference", "parent", "linked", "build")
    return {
        "run": started.run,
        **{name: str(body.get(name) or "") for name in names},
        "by": list(body.get("by") or ()),
        "state": _STATES[state.kind],
        "outcome": str(end.get("outcome") or ""),
        "reason": str(end.get("reason") or ""),
        "message": str(detail.get("message") or "") if isinstance(detail, dict) else "",
        "live": bool(body.get("live", True)),
        "owners": len({entry.epoch for entry in entries if entry.kind in (kinds.STARTED, kinds.CLAIMED)}),
        "started_at": started.at,
        "ended_at": 0.0 if ended is None else ended.at,
        "seconds": last - started.at,
        "worked_seconds": float(end.get("seconds") or 0.0),
        "usd": to_usd(costs.total.usd),
        "usd_nano": costs.total.usd,
        "tokens": costs.total.tokens_in + costs.total.tokens_out,
        "calls": costs.total.calls,
        "entries": len(entries),
    }


_STATES: Final = {
    kinds.STARTED: "running",
    kinds.CLAIMED: "running",
    kinds.PARKED: "parked",
    kinds.ENDED: "ended",
}


def _block(heading: str, lines: Sequence[str]) -> list[str]:
    more = [f"  … and {len(lines) - _LONGEST} more (--json names all)"] if len(lines) > _LONGEST else []
    return ["", f"{heading}:", *(f"  {line}" for line in lines[:_LONGEST]), *more] if lines else []
