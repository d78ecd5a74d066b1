"""Peers round a board while their step runs: what is under way between them, who waits, and when nobody can move.

Nothing here is recorded. What a peer goes by is (the board as it looked, the messages that it got); so after a crash
each walks through its own turns again, and what stands here comes about once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tightship.core.errors import NearRepeat
from tightship.core.ports import Json
from tightship.effects.frame import Frame
from tightship.patterns._mail import Message


@dataclass(slots=True)
class Seat:
    """One peer's place.

    Attributes:
        number: its look under way. idle: it waits for news. gone: it has left. hopes: somebody outside this run may
            still change something for it. mail: what has come and was not taken. got: messages that it has taken, with
            their senders. asked: its asks without an answer. mine: what it holds.
    """

    name: str
    number: int = 0
    idle: bool = False
    gone: bool = False
    hopes: bool = False
    mail: dict[str, Message] = field(default_factory=dict[str, Message])
    got: dict[str, str] = field(default_factory=dict[str, str])
    asked: dict[str, Message] = field(default_factory=dict[str, Message])
    mine: tuple[str, ...] = ()

    def take(self, letters: Mapping[str, str]) -> None:
        """These messages have come to it: their ids, each with its sender."""
        self.got |= letters
        for id in letters:
            self.mail.pop(id, None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer says is the result of a sub-problem. `counts`: it held the sub-problem, and the board took it."""

    item: str
    by: str
    value: Json
    counts: bool = False

    def to_json(self) -> dict[str, Json]:
        """To be kept."""
        return {"item": self.item, "by": self.by, "value": self.value, "counts": self.counts}


class Table:
    """All of them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.seats = {name: Seat(name) for name in names}
        self.answers: dict[tuple[str, str], Answer] = {}
        self.messages = 0
        self.refused = 0
        self.over = False
        """Nobody can move any more."""
        self.held: dict[str, str] = {}
        """Who held what then."""
        self.circle: NearRepeat | None = None
        """Why they go round in circles."""

    def send(self, frame: Frame, message: Message) -> None:
        """A message is under way. What its receiver has already taken (before a crash) is known to it."""
        self.messages += 1
        target = self.seats[message.target]
        if message.id in target.got:
            return
        target.mail[message.id] = message
        self.wake(frame, target)

    def answer(self, answer: Answer) -> None:
        """A peer's answer to a sub-problem: what it gave as its holder, else the last thing that it said."""
        before = self.answers.get((answer.item, answer.by))
        if before is None or answer.counts or not before.counts:
            self.answers[answer.item, answer.by] = answer

    def wake(self, frame: Frame, seat: Seat) -> None:
        """Let a peer look again."""
        if not seat.gone:
            seat.idle = seat.hopes = False
            frame.announce(f"look {seat.name} {seat.number}")

    def changed(self, frame: Frame, by: str, returned: bool) -> None:
        """The board has changed: those who hold something may build on a result; what came back is for all."""
        for seat in self.seats.values():
            if seat.name != by and (returned or seat.mine):
                self.wake(frame, seat)

    def rest(self, frame: Frame, seat: Seat, hopes: bool) -> None:
        """A peer has nothing to do for now."""
        seat.idle, seat.hopes = True, hopes
        self._settle_down(frame)

    def leave(self, frame: Frame, seat: Seat) -> None:
        """A peer takes no further turn."""
        seat.gone = True
        seat.mail.clear()
        self._settle_down(frame)

    def _settle_down(self, frame: Frame) -> None:
        """Termination: all wait or have left, nothing is under way, and nothing is to be hoped for from outside.

        A message wakes its receiver at once, so nobody who waits has one.
        """
        left = [seat for seat in self.seats.values() if not seat.gone]
        if self.over or any(not seat.idle or seat.hopes for seat in left):
            return
        self.over, self.held = True, self.holders()
        for seat in left:
            self.wake(frame, seat)

    def holders(self) -> dict[str, str]:
        """Who holds what, as they know."""
        return {item: seat.name for seat in self.seats.values() for item in seat.mine}

    def waits(self) -> list[dict[str, Json]]:
        """Who has asked whom, without an answer."""
        return [
            {"by": seat.name, "for": one.target, "message": id, "about": one.about}
            for seat in self.seats.values()
            for id, one in seat.asked.items()
        ]
