"""A run as its caller sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightship.core import kinds
from tightship.core.money import to_usd
from tightship.core.ports import Json
from tightship.effects.frame import RunFacts
from tightship.ledger import Entry, Ledger

ERASED = "(erased)"
_TOLD = frozenset({kinds.TURN, kinds.SETTLED, kinds.CLOSED, kinds.DECIDED})


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A run and how it stands.

    Attributes:
        id, workflow: which run of which workflow. reference: the caller's own name for it, empty without.
        state: queued, running, parked or ended. outcome: completed, escalated, failed, cancelled; empty before its end.
        reason: why it was escalated or failed (an exception's kind, `over_budget`, `halted`, …).
        output: what it gave. package: the escalation package, when a person has to take over.
        usd: cost in nano-dollars; `cost` is the same in USD. tokens: in and out together. calls: that went out.
        seconds: time worked, parked time left out. started_at, ended_at: store time (s); 0 before it has ended.
        entries: what the ledger holds of it. waiting: open inbox items. live: false for a rehearsal.
    """

    id: str
    workflow: str
    state: str
    outcome: str
    reason: str
    output: Json
    package: Mapping[str, Json] | None
    usd: int
    tokens: int
    calls: int
    seconds: float
    started_at: float
    ended_at: float
    reference: str = ""
    entries: tuple[Entry, ...] = ()
    waiting: tuple[str, ...] = ()
    live: bool = True

    def __repr__(self) -> str:
        stands = ": ".join(part for part in (self.outcome or self.state, self.reason) if part)
        return f"<Run {self.id} of {self.workflow}, {stands}, ${self.cost:.4f}, {self.calls} calls>"

    @property
    def cost(self) -> float:
        """The cost in USD."""
        return to_usd(self.usd)

    @property
    def decisions(self) -> list[dict[str, Json]]:
        """Agent turns, effects and people's decisions, in the order of the ledger, each with its position."""
        return _decisions(self.entries)

    def as_dict(self) -> dict[str, Json]:
        """Itself as JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "entries"}
        return fields | {"cost": self.cost, "decisions": self.decisions, "waiting": list(self.waiting)}

    @classmethod
    async def of(cls, ledger: Ledger, row: Mapping[str, Any]) -> Run:
        """The run of a row."""
        return (await cls.many(ledger, [row]))[0]

    @classmethod
    async def many(cls, ledger: Ledger, rows: Sequence[Mapping[str, Any]]) -> list[Run]:
        """The runs of rows, in their order: much quicker than one by one."""
        addresses = [row[name] for row in rows for name in ("output", "package") if row[name]]
        values = await ledger.values(addresses, erased=ERASED)
        entries = await ledger.runs_entries([row["id"] for row in rows])
        return [cls._of(row, entries[row["id"]], values) for row in rows]

    @classmethod
    def _of(cls, row: Mapping[str, Any], entries: Sequence[Entry], values: Mapping[str, Json]) -> Run:
        figures = _figures(entries) if row["state"] != "ended" else row
        items = {e.body["item"] for e in entries if e.kind == kinds.OPENED}
        items -= {e.body["item"] for e in entries if e.kind == kinds.CLOSED}
        return cls(
            id=row["id"],
            workflow=row["workflow"],
            state=row["state"],
            outcome=row["outcome"],
            reason=row["reason"],
            output=values.get(row["output"]),
            package=values.get(row["package"]),
            usd=figures["usd"],
            tokens=figures["tokens_in"] + figures["tokens_out"],
            calls=figures["calls"],
            seconds=row["seconds"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            reference=row["reference"],
            entries=tuple(entries),
            waiting=tuple(sorted(items)),
            live=bool(row["live"]),
        )


def ended_run(facts: RunFacts, entries: list[Entry], body: Mapping[str, Any], output: Json, package: Any) -> Run:
    """A run that has just ended in this process: nothing is read back."""
    first, last = entries[0], entries[-1]
    return Run(
        id=facts.id,
        workflow=facts.workflow,
        state="ended",
        outcome=body["outcome"],
        reason=body.get("reason", ""),
        output=output,
        package=package,
        usd=body["usd"],
        tokens=body["tokens_in"] + body["tokens_out"],
        calls=body["calls"],
        seconds=body["seconds"],
        started_at=first.at,
        ended_at=last.at,
        reference=first.body.get("reference", ""),
        entries=tuple(entries),
        live=first.body.get("live", True),
    )


def _figures(entries: Sequence[Entry]) -> dict[str, int]:
    figures = {"usd": 0, "tokens_in": 0, "tokens_out": 0, "calls": 0}
    for entry in entries:
        if entry.kind == kinds.SETTLED:
            body = entry.body
            figures["calls"] += kinds.went_out(body)
            for name in ("usd", "tokens_in", "tokens_out"):
                figures[name] += int(entry.body.get(name) or 0)
    return figures


def _decisions(entries: Sequence[Entry]) -> list[dict[str, Json]]:
    """What was decided, by whom, at which position; `runs why` shows the data and the rules as well."""
    found: list[dict[str, Json]] = []
    for entry in entries:
        if entry.kind not in _TOLD:
            continue
        body = entry.body
        told: dict[str, Json] = {"n": entry.n, "at": entry.at, "kind": entry.kind, "key": entry.key}
        for name in (
            "agent",
            "name",
            "cls",
            "decision",
            "by",
            "reason",
            "detail",
            "error",
            "refused",
            "policy",
            "out",
            "value",
        ):
            if name in body:
                told[name] = body[name]
        found.append(told)
    return found
