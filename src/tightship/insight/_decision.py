"""The shape of the decision view (G2), and its text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tightship.core.ports import Json
from tightship.insight._reading import clock

DecisionKind = Literal[
    "turn",
    "action",
    "undo",
    "review",
    "refusal",
    "checkpoint",
    "exception",
    "condition",
    "grant",
    "stop",
    "by hand",
    "outcome",
]


@dataclass(frozen=True, slots=True)
class Trigger:
    """What a decision followed from. `certain` when the data shows it; else it is what came directly before."""

    what: str
    n: int
    certain: bool = True

    def __str__(self) -> str:
        return f"{self.what} (n {self.n})" + ("" if self.certain else ", which came before it")

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {"what": self.what, "n": self.n, "certain": self.certain}


@dataclass(frozen=True, slots=True)
class Datum:
    """A value that was considered: its name, where it is stored, its version (position), and where it came from."""

    name: str
    address: str = ""
    n: int = 0
    source: str = ""
    as_of: str = ""

    def __str__(self) -> str:
        facts = [self.source, f"n {self.n}" if self.n else "", f"as of {_moment(self.as_of)}" if self.as_of else ""]
        said = ", ".join(fact for fact in facts if fact)
        return f"{self.name} ({said})" if said else self.name

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {"name": self.name, "address": self.address, "n": self.n, "source": self.source, "as_of": self.as_of}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that was applied: a policy, role, condition, threshold, claim, limit or budget, and what came of it."""

    kind: str
    what: str
    result: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}" + (f" ({self.result})" if self.result else "")

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {"kind": self.kind, "what": self.what, "result": self.result}


@dataclass(slots=True)
class Decision:
    """One decision, whole.

    Attributes:
        n, at, key: its position, store time (s) and key.
        kind: what sort of decision it is.
        actor: the agent, the workflow itself, or the person.
        action: what was decided or done.
        reason: why, as far as somebody has said it.
        accountable: the person or role that answers for it.
        within: whether it lay within its boundaries; `outside` says what did not. What was refused before it was done
            lay outside and was stopped there.
    """

    n: int
    at: float
    key: str
    kind: DecisionKind
    actor: str
    trigger: Trigger
    action: str
    data: list[Datum] = field(default_factory=list[Datum])
    rules: list[Rule] = field(default_factory=list[Rule])
    reason: str = ""
    accountable: str = ""
    outside: list[str] = field(default_factory=list[str])

    @property
    def within(self) -> bool:
        """Whether it lay within its boundaries."""
        return not self.outside

    def as_dict(self) -> dict[str, Json]:
        """The decision as JSON."""
        return {
            "n": self.n,
            "at": self.at,
            "key": self.key,
            "kind": self.kind,
            "actor": self.actor,
            "trigger": self.trigger.as_dict(),
            "data": [datum.as_dict() for datum in self.data],
            "rules": [rule.as_dict() for rule in self.rules],
            "action": self.action,
            "reason": self.reason,
            "accountable": self.accountable,
            "within_boundaries": self.within,
            "outside": list(self.outside),
        }


@dataclass(frozen=True, slots=True)
class RunDecisions:
    """All decisions of a run, in order."""

    run: str
    workflow: str
    version: str
    owner: str
    purpose: str
    outcome: str
    decisions: tuple[Decision, ...]

    def as_dict(self) -> dict[str, Json]:
        """The whole view as JSON."""
        heads = ("run", "workflow", "version", "owner", "purpose", "outcome")
        return {name: getattr(self, name) for name in heads} | {
            "decisions": [decision.as_dict() for decision in self.decisions]
        }

    def render(self) -> str:
        """The view as text."""
        head = f"{self.workflow} · run {self.run} · {self.outcome or 'not ended'}"
        lines = [head + (f" · owner {self.owner}" if self.owner else ""), *([self.purpose] if self.purpose else [])]
        for number, decision in enumerate(self.decisions, 1):
            lines += ["", f"{number:>3}. {decision.kind} · {decision.key or decision.actor} · n {decision.n}"]
            lines += _rendered(decision)
        return "\n".join(lines)


def _rendered(decision: Decision) -> list[str]:
    lines = [
        ("triggered by", str(decision.trigger)),
        ("considered", "; ".join(map(str, decision.data))),
        ("rules", "; ".join(map(str, decision.rules))),
        ("decided", f"{decision.actor}: {decision.action}"),
        ("reason", decision.reason),
        ("accountable", decision.accountable),
        ("boundaries", "within" if decision.within else "; ".join(decision.outside)),
    ]
    return [f"     {name:<13} {text}" for name, text in lines if text]


def _moment(at: str) -> str:
    """A store time as people read it; what a system has written in words of its own stays."""
    try:
        return f"{clock(float(at))} UTC"
    except (ValueError, OverflowError, OSError):
        return at
