"""What work takes, and how it passes from one agent to another: the figures that coordination is told in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tightship.core.money import to_usd
from tightship.core.ports import Json

UNITS: Final = ("turns", "tokens", "usd", "ms")


@dataclass(slots=True)
class Effort:
    """Turns, calls, money (nano-dollars), tokens (in and out) and time (ms)."""

    turns: int = 0
    calls: int = 0
    usd: int = 0
    tokens: int = 0
    ms: float = 0.0

    def add(self, other: Effort) -> None:
        """Take another one in."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, Json]:
        """All figures; money in dollars, time in seconds."""
        return {
            "turns": self.turns,
            "calls": self.calls,
            "usd": to_usd(self.usd),
            "tokens": self.tokens,
            "seconds": round(self.ms / 1000, 3),
        }


@dataclass(slots=True)
class Shares:
    """What something took, coordination apart from work."""

    coordination: Effort = field(default_factory=Effort)
    work: Effort = field(default_factory=Effort)

    def share(self, unit: str) -> float | None:
        """Coordination's share of `turns`, `tokens`, `usd` or `ms`; None where there is nothing of it."""
        whole = self.whole(unit)
        return getattr(self.coordination, unit) / whole if whole else None

    def whole(self, unit: str) -> float:
        """All of it."""
        return getattr(self.coordination, unit) + getattr(self.work, unit)

    def take(self, other: Shares) -> None:
        """Take another one in."""
        self.coordination.add(other.coordination)
        self.work.add(other.work)

    def shares(self) -> dict[str, Json]:
        """All figures as JSON."""
        return {
            "share": {"seconds" if unit == "ms" else unit: self.share(unit) for unit in UNITS},
            "coordination": self.coordination.as_dict(),
            "work": self.work.as_dict(),
        }


@dataclass(slots=True)
class Pair:
    """How the work passes from one agent to another.

    Attributes:
        source, target: the agents.
        handoffs: how often it passed. returned: how often the brief came back to the sender.
        facts, kept: what the briefs before held, and how much of it the sender's briefs still held.
        misroutes: how often the receiver passed it on or back without having done anything.
        rework: what was done again in the receiver's hands.
    """

    source: str
    target: str
    handoffs: int = 0
    returned: int = 0
    facts: int = 0
    kept: int = 0
    misroutes: int = 0
    rework: int = 0

    @property
    def retention(self) -> float | None:
        """The share of facts that arrived, or None where there were none."""
        return self.kept / self.facts if self.facts else None

    def as_dict(self) -> dict[str, Json]:
        """All figures."""
        return {name: getattr(self, name) for name in self.__slots__} | {"retention": self.retention}
