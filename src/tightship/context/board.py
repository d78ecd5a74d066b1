"""A board of sub-problems that peers claim (P7, F9): what stands on it, and what a move makes of that.

A sub-problem is a head of the shared context in a scope of boards, where nobody but the door writes. A claim is a value
that runs out: a lease in store time (C. Gray and D. Cheriton, "Leases", SOSP 1989). Every move is appended on the head
that it was judged on, so of two claims one is refused; and a result counts only while the head is still its author's
own claim, so a holder that comes back too late changes nothing (a fencing token, as in M. Burrows, "The Chubby lock
service", OSDI 2006).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from tightship.context.heads import Head
from tightship.core.ports import Json

BOARD: Final = "board:"
"""What the scopes of boards begin with."""

State = Literal["open", "held", "done"]
Kind = Literal["claim", "result", "give", "release", "renew"]


@dataclass(frozen=True, slots=True)
class Spot:
    """How a sub-problem stands.

    Attributes:
        item: its key. state: nobody has it, somebody works on it, or it is done.
        run, by: the run and the peer that hold it, have done it, or had it last. until: when the claim runs out
            (store time, s). value: the result. version: of the head. lapsed: the last claim has run out.
    """

    item: str
    state: State = "open"
    run: str = ""
    by: str = ""
    until: float = 0.0
    value: Json = None
    version: int = 0
    lapsed: bool = False

    def was(self, run: str, by: str) -> bool:
        """Whether the last move was this peer's."""
        return self.run == run and self.by == by

    def to_json(self) -> dict[str, Json]:
        """As a look records it."""
        told: dict[str, Json] = {"state": self.state, "run": self.run, "by": self.by}
        if self.state == "held":
            told["until"] = self.until
        if self.state == "done":
            told["value"] = self.value
        return told


@dataclass(frozen=True, slots=True)
class Move:
    """What a peer wants of a sub-problem: claim it, give a result, give it `to` another, release it, keep it longer."""

    kind: Kind
    item: str
    value: Json = None
    to: str = ""

    def to_json(self) -> dict[str, Json]:
        """As arguments."""
        told: dict[str, Json] = {"kind": self.kind, "item": self.item}
        if self.kind == "result":
            told["value"] = self.value
        return {**told, "to": self.to} if self.to else told

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Move:
        """From arguments."""
        return cls(told["kind"], told["item"], told.get("value"), told.get("to", ""))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a move; `why` it was refused, empty when it was granted."""

    kind: Kind
    item: str
    why: str = ""

    def to_json(self) -> dict[str, Json]:
        """As an outcome."""
        return {"kind": self.kind, "item": self.item, "why": self.why}


def spot_of(item: str, head: Head, stored: Json, now: float) -> Spot:
    """A head, with its value as far as it has not run out."""
    lapsed = head.version > 0 and not head.holds(now)
    if lapsed or not isinstance(stored, Mapping):
        return Spot(item, run=head.run, by=head.writer, version=head.version, lapsed=lapsed)
    return Spot(item, stored["state"], head.run, stored["by"], head.ends, stored.get("value"), head.version)


def stored(spot: Spot) -> dict[str, Json]:
    """What the entry of a move holds, sealed."""
    told: dict[str, Json] = {"item": spot.item, "state": spot.state, "by": spot.by}
    return {**told, "value": spot.value} if spot.state == "done" else told


def judge(move: Move, spot: Spot, run: str, by: str) -> tuple[Spot, str]:
    """What a move makes of a sub-problem, and why it is refused (then nothing changes)."""
    mine = spot.was(run, by) and (spot.state == "held" or spot.lapsed)
    if move.kind == "claim":
        if spot.state == "open" or mine:
            return replace(spot, state="held", run=run, by=by, value=None), ""
        return spot, _other(spot)
    if move.kind == "result" and spot.state == "done" and spot.was(run, by) and spot.value == move.value:
        return spot, ""
    if not mine:
        return spot, _other(spot)
    if move.kind == "result":
        return replace(spot, state="done", value=move.value), ""
    if move.kind == "release":
        return replace(spot, state="open"), ""
    return replace(spot, state="held", by=move.to or by), ""


def play(
    moves: Sequence[Move], spots: Mapping[str, Spot], run: str, by: str
) -> tuple[list[Verdict], dict[str, tuple[Spot, Spot]]]:
    """Judge moves one after the other.

    Args:
        spots: how the sub-problems stand.
        run, by: whose moves they are.

    Returns: what came of each, and the sub-problems that they change: as they stood, and as they stand then.
    """
    now, verdicts, changed = dict(spots), list[Verdict](), dict[str, tuple[Spot, Spot]]()
    for move in moves:
        after, why = judge(move, now[move.item], run, by)
        verdicts.append(Verdict(move.kind, move.item, why))
        if not why and (after != now[move.item] or move.kind != "result"):
            after = replace(after, lapsed=False)
            now[move.item] = after
            changed[move.item] = (spots[move.item], after)
    return verdicts, changed


def _other(spot: Spot) -> str:
    """Why a sub-problem is not this peer's to decide on."""
    if spot.state == "done":
        return f"{spot.item} is done, by {spot.by}"
    if spot.state == "held":
        return f"{spot.item} is held by {spot.by}"
    return f"{spot.item} is not yours: claim it first"
