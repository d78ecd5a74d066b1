"""One peer at its board: it looks, takes a turn when there is something for it, moves, and waits else.

What it goes by is recorded in this order: the messages that have come (`seen`), the board as it looked, its turn, what
came of its moves. Whether it takes a turn follows from these alone, so a replay takes the same turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tightship.context.board import Move
from tightship.core.errors import BoundaryError, LimitReached, NearRepeat, WorkException
from tightship.core.ports import Json
from tightship.core.signals import Signal
from tightship.effects.frame import Board, Frame
from tightship.patterns._mail import Chatter, Circle, Said, heard, read_said
from tightship.patterns._shared import decider, feedback
from tightship.patterns._table import Answer, Seat, Table
from tightship.workflow.tree import Step

if TYPE_CHECKING:
    from tightship.patterns.peers import Peers


FIRST_LOOK: Final = 0.5
"""Seconds after which a peer that waits for other runs looks again; twice as long each time, up to a quarter lease."""


@dataclass(frozen=True, slots=True)
class Task:
    """A sub-problem: its key, what it is, and the business key that no other run may hold or have done."""

    key: str
    item: Json
    claim: str | None


@dataclass(frozen=True, slots=True)
class View:
    """The board as a peer sees it.

    Attributes:
        open: what may be claimed. mine: what it holds, with the time (s) until when. others: until when others of the
            run hold something. outside: the same of other runs, and what they hold by its business key (0).
    """

    now: float = 0.0
    open: frozenset[str] = frozenset()
    mine: Mapping[str, float] = field(default_factory=dict[str, float])
    others: tuple[float, ...] = ()
    outside: tuple[float, ...] = ()
    done: int = 0


class Peer:
    """A peer of a step.

    Args:
        step: what takes its turns. rules: the step `peers`. board: where it works. tasks: the sub-problems by key.
        table: all peers of the step.
    """

    def __init__(self, step: Step, rules: Peers, board: Board, tasks: Mapping[str, Task], table: Table) -> None:
        self.name = step.part
        self._step, self._rules, self._board, self._tasks, self._table = step, rules, board, tasks, table
        self._seat: Seat = table.seats[self.name]
        self._others = [name for name in table.seats if name != self.name]
        self._done: dict[str, dict[str, Json]] = {}
        self._gave: set[str] = set()
        self._mail: list[Json] = []
        self._notices: list[str] = []
        self._before: View | None = None
        self._offered = frozenset[str]()
        self._acted = self._told = self._fresh = False
        self._sent = self._turns = self._looks = 0
        self._chatter = Chatter(self.name)
        self._refusals: set[tuple[str, ...]] = set()

    async def work(self, frame: Frame) -> Json:
        """Take part until the end."""
        try:
            while self._turns < self._rules.turns and not self._table.over:
                inner = await self._round(frame)
                if inner is not None:
                    await self._rest(frame, inner)
        except (WorkException, BoundaryError, LimitReached):
            await self._let_go(frame)
            raise
        except (Exception, Signal):  # it ends the run: nobody has to wait for this peer
            self._table.leave(frame, self._seat)
            raise
        await self._let_go(frame)
        return None

    async def _round(self, frame: Frame) -> View | None:
        """Look, and take a turn if there is something to do; else the board as it was seen."""
        self._seat.number += 1
        inner = frame.at(str(self._seat.number))
        inbox: list[dict[str, Any]] | None = await inner.observed("seen")
        self._fresh = inbox is None
        if inbox is None:
            inbox = await inner.observe("seen", lambda: [one.to_json() for one in self._seat.mail.values()])
        assert inbox is not None
        self._seat.take({one["id"]: one["from"] for one in inbox})
        view = await self._look(inner)
        returned = view.open - self._offered
        self._offered = view.open | set(view.mine)
        if not (returned or self._has_news(view, inbox)):
            return view
        view = await self._renewed(inner, view)
        self._mail += inbox
        for one in inbox:
            self._chatter.heard(one, self.name)
            self._seat.asked.pop(str(one.get("re", "")), None)
        self._turns, self._looks = self._turns + 1, 0
        output = await self._turn(inner, view, inbox)
        await self._do(inner, frame, output, heard(inbox, view.done))
        return None

    # --- looking ---------------------------------------------------------------------------------

    async def _look(self, frame: Frame) -> View:
        left = {key: task.claim for key, task in self._tasks.items() if key not in self._done}
        if not left:
            return View(done=len(self._done))
        found = await frame.look(self._board, left)
        spots, claimed, own = found["spots"], found["claimed"], frame.run.id
        news = dict[str, dict[str, Json]]()
        mine, others, outside, free = dict[str, float](), list[float](), list[float](), set[str]()
        for key in left:
            spot = spots.get(key)
            if spot is not None and spot["state"] == "done":
                news[key] = self._finished(key, spot["by"], spot["value"])
            elif claimed.get(key) == "done":
                news[key] = self._finished(key, "", None)
            elif key in claimed:
                outside.append(0.0)
            elif spot is None:
                free.add(key)
            elif spot["run"] != own:
                outside.append(spot["until"])
            elif spot["by"] == self.name:
                mine[key] = spot["until"]
            else:
                others.append(spot["until"])
        self._done |= news
        if news:
            self._chatter.learned(sorted(self._done))
        lost = [key for key in self._seat.mine if key not in mine and key not in news]
        self._notices += [f"your claim on {key} has run out" for key in lost]
        self._told = self._told or bool(lost)
        self._seat.mine = tuple(mine)
        return View(found["now"], frozenset(free), mine, tuple(others), tuple(outside), len(self._done))

    def _finished(self, key: str, by: str, value: Json) -> dict[str, Json]:
        return {"key": key, "item": self._tasks[key].item, "by": by, "value": value}

    def _has_news(self, view: View, inbox: Sequence[Json]) -> bool:
        """Whether there is something for it to do, beside what has come back to the board."""
        before = self._before
        if before is None:
            return bool(view.mine or inbox)
        work = bool(view.open or view.mine)
        if inbox or self._told or (work and (self._acted or self._notices)):
            return True
        return bool((view.mine and view.done > before.done) or set(view.mine) - set(before.mine))

    async def _renewed(self, frame: Frame, view: View) -> View:
        """Its claims, held for a whole lease again before a turn where less than half of it is left."""
        short = [key for key, until in view.mine.items() if until - view.now < self._board.lease / 2]
        if not short:
            return view
        ends = await frame.at("renew").move(self._board, self.name, [Move("renew", key) for key in short])
        lost = {one["item"] for one in ends if one["why"]}
        self._notices += [f"your claim on {key} has run out" for key in sorted(lost)]
        mine = {key: until for key, until in view.mine.items() if key not in lost}
        self._seat.mine = tuple(mine)
        return View(view.now, view.open, mine, view.others, view.outside, view.done)

    # --- a turn ----------------------------------------------------------------------------------

    async def _turn(self, frame: Frame, view: View, inbox: Sequence[Json]) -> Json:
        tasks, notices = self._tasks, self._notices
        self._before, self._notices, self._told = view, [], False
        frame.bind("open", [{"key": key, "item": task.item} for key, task in tasks.items() if key in view.open])
        frame.bind("mine", [{"key": key, "item": task.item} for key, task in tasks.items() if key in view.mine])
        frame.bind("inbox", list(inbox))
        frame.bind("mail", list(self._mail))
        frame.bind("done", [dict(one) for one in self._done.values()])
        frame.bind("peers", list(self._others))
        with feedback(frame, notices):
            return await frame.step(self._step)

    async def _do(self, frame: Frame, branch: Frame, output: Json, came: Json) -> None:
        """Carry out what the turn says: moves first, then messages.

        Raises:
            what ends the step, when it says nearly the same once more.
        """
        left = self._rules.messages - self._sent
        items = {key: task.item for key, task in self._tasks.items()}
        said = read_said(output, Circle(self.name, self._others, items, self._seat.got, left), self._seat.number)
        if said.messages:
            await self._refuse_circle(frame, said, came)
        await self._post(frame, said)
        granted, lost, refused = await self._move(frame, branch, said)
        refused = [*said.problems, *refused]
        for message in said.messages:
            if message.kind == "delegate" and ("give", message.about) not in granted:
                continue
            self._chatter.heard(message, message.target)
            if message.answers:
                self._table.answer(Answer(message.about, self.name, message.value))
            if message.kind == "ask":
                self._seat.asked[message.id] = message
            self._mail.append({**message.to_json(), "to": message.target})
            self._sent += 1
            self._table.send(branch, message)
        if refused:
            self._table.refused += len(refused)
            await frame.note("peers.refused", title=f"{len(refused)} refused", source=self.name, problems=refused)
        if granted:
            self._refusals.clear()
        if refused and tuple(refused) in self._refusals:
            refused = []  # it was told so before and has done nothing since: no turn for that alone
        elif refused:
            self._refusals.add(tuple(refused))
        self._notices += [*refused, *lost]
        self._told = bool(refused)
        moved = bool({kind for kind, _ in granted} & {"claim", "result"})
        self._acted = moved and (bool(self._seat.mine) or not said.done)

    async def _refuse_circle(self, frame: Frame, said: Said, came: Json) -> None:
        """Nothing of it goes out, and nobody plays on, once nearly the same was heard and said as often as it may."""
        by, says = decider(self._step), said.to_json()
        try:
            await frame.refuse_round(by, "has heard and said nearly the same", came, says)
        except NearRepeat as error:
            self._table.circle = self._table.circle or error
            frame.escalate(error)
        await frame.keep_round(by, came, says)

    async def _post(self, frame: Frame, said: Said) -> None:
        """Leave out the messages that the user's request has no room for any more, and delegations with them."""
        kinds = Counter(move.kind for move in said.moves)
        told = {"claims": kinds["claim"], "results": kinds["result"], "releases": kinds["release"]}
        sent = await frame.send(self.name, len(said.messages), **told)
        for message in said.messages[sent:]:
            said.problems.append(f"a message to {message.target}: this request has used up its messages")
            if message.kind == "delegate":
                said.moves.remove(Move("give", message.about, to=message.target))
        del said.messages[sent:]

    async def _move(self, frame: Frame, branch: Frame, said: Said) -> tuple[set[tuple[str, str]], list[str], list[str]]:
        """The moves of a turn: which were granted; in words, which claims others got first, and what was refused."""
        granted, lost, refused = set[tuple[str, str]](), list[str](), list[str]()
        if not said.moves:
            return granted, lost, refused
        ends = await frame.move(self._board, self.name, said.moves)
        mine = dict.fromkeys(self._seat.mine)
        for move, end in zip(said.moves, ends, strict=True):
            if end["why"]:
                (lost if move.kind == "claim" else refused).append(f"{move.kind}: {end['why']}")
                if move.kind == "result" and move.item in self._gave:  # it has passed it on, and has an answer too
                    self._table.answer(Answer(move.item, self.name, move.value))
                continue
            granted.add((move.kind, move.item))
            if move.kind == "claim":
                mine[move.item] = None
            else:
                mine.pop(move.item, None)
            if move.kind == "result":
                self._done[move.item] = self._finished(move.item, self.name, move.value)
                self._table.answer(Answer(move.item, self.name, move.value, counts=True))
            elif move.kind == "give":
                self._gave.add(move.item)
        self._seat.mine = tuple(mine)
        kinds = {kind for kind, _ in granted}
        if "result" in kinds:
            self._chatter.learned(sorted(self._done))
        if kinds & {"result", "release"}:
            self._table.changed(branch, self.name, returned="release" in kinds)
        return granted, lost, refused

    # --- waiting and leaving ---------------------------------------------------------------------

    async def _rest(self, frame: Frame, view: View) -> None:
        """Wait for a message, a change of the board, or the time at which a claim of somebody else runs out."""
        number = self._seat.number
        if await frame.at(str(number + 1)).observed("seen") is not None:
            return  # a replay: it was woken
        if not self._fresh or self._seat.mail or self._table.over:
            return  # what was recorded before a crash may be old: it looks once more
        self._looks += 1
        later = view.now + min(FIRST_LOOK * 2.0 ** min(self._looks, 30), self._board.lease / 4)
        times = [*view.others, *(min(until or later, later) for until in view.outside)]
        self._table.rest(frame, self._seat, bool(view.outside))
        if not self._table.over:
            await frame.after(f"look {self.name} {number}", min(times) if times else 0.0)
        self._seat.idle = False

    async def _let_go(self, frame: Frame) -> None:
        """It takes no further turn: what it holds goes back to the others. At the end of all the step sees to that."""
        try:
            if self._seat.mine and not self._table.over:
                releases = [Move("release", key) for key in self._seat.mine]
                await frame.at("leave").move(self._board, self.name, releases)
                self._seat.mine = ()
                self._table.changed(frame, self.name, returned=True)
        finally:  # also where it may not even give back: nobody waits for it
            self._table.leave(frame, self._seat)
