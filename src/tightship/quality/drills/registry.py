"""What a drill is, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tightship.core.ports import Json

if TYPE_CHECKING:
    from tightship.ledger import Entry
    from tightship.quality.drills.bench import Bench

State = Literal["held", "did not hold", "does not apply"]


@dataclass(slots=True)
class Report:
    """What one drill has found.

    Attributes:
        held: what was looked at and stood. problems: what did not, each with where.
        evidence: positions of the scratch ledger with what stands there. skipped: what was not looked at, and why.
    """

    held: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])
    evidence: list[str] = field(default_factory=list[str])
    skipped: list[str] = field(default_factory=list[str])

    def skip(self, why: str) -> None:
        """A part of the workflow that the drill cannot break, and why not; where it is all of it, it does not apply."""
        if why not in self.skipped:
            self.skipped.append(why)

    def hold(self, condition: bool, stood: str, problem: str, entries: Iterable[Entry] = ()) -> bool:
        """Judge one invariant; entries are the evidence, whichever way it went."""
        (self.held if condition else self.problems).append(stood if condition else problem)
        self.show(entries)
        return condition

    def show(self, entries: Iterable[Entry]) -> None:
        """Evidence: where it stands in the ledger."""
        for entry in list(entries)[:MOST]:
            where = " ".join(part for part in (entry.kind, str(entry.body.get("name", "")), entry.key) if part)
            said = f"#{entry.n} {where}"
            if said not in self.evidence:
                self.evidence.append(said)


MOST = 4
"""Entries that one judgement shows."""


@dataclass(frozen=True, slots=True)
class Drill:
    """One way in which work breaks.

    Attributes:
        name: as it is called on the command line. rows: what it drills (F9: undo, ...).
        broken: what is broken, in words. fix: what to do where it did not hold.
        applies: why it does not apply to a workflow, or the empty text.
        play: break it, and judge.
    """

    name: str
    broken: str
    fix: str
    play: Callable[[Bench, Report], None]
    applies: Callable[[Bench], str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a drill of a workflow. `why`: why it does not apply, to the workflow or to a part of it."""

    workflow: str
    drill: str
    broken: str
    state: State
    held: list[str]
    problems: list[str]
    evidence: list[str]
    fix: str
    why: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Json]:
        """All fields by name; the fix only where there is something to fix."""
        told: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        told["fix"] = self.fix if self.state == "did not hold" else ""
        return told


DRILLS: dict[str, Drill] = {}
"""All drills by name, in the order in which they are carried out."""


def drill(
    name: str, *, broken: str, fix: str, applies: Callable[[Bench], str] | None = None
) -> Callable[[Callable[[Bench, Report], None]], Callable[[Bench, Report], None]]:
    """Register a drill: the function breaks a workflow and judges what comes of it."""

    def register(play: Callable[[Bench, Report], None]) -> Callable[[Bench, Report], None]:
        DRILLS[name] = Drill(name, broken, fix, play, applies or (lambda bench: ""))
        return play

    return register
