"""The thresholds of a run: what releases a result without a person, and what people's decisions teach (P8)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from tightship.core import kinds
from tightship.core.ports import Json
from tightship.effects.frame import Governed, Learning
from tightship.ledger import Draft, Ledger
from tightship.review.learning import Case, Learner, draw_share
from tightship.review.thresholds import Standing

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame
    from tightship.runtime.program import Program

UNREACHED: Final = 2.0
"""A threshold that no confidence reaches: it releases nothing."""
LEARNING: Final = "learning"
"""Who sets a threshold that was learned."""
_TOGETHER: Final = 1000


def given(program: Program, names: Sequence[str], condition: Any) -> dict[str, Json]:
    """Values of ambient names for a condition, now. What would release an uncalibrated confidence is out of reach."""
    found = {name: program.ambient(name) for name in names}
    if "threshold" in found:
        bare = program.uncalibrated(condition)
        if bare:
            found |= {"threshold": UNREACHED, "uncalibrated": list[Json](bare)}
    return found


async def govern(frame: NodeFrame, condition: Any, learning: Learning) -> Governed | None:
    """The class's threshold for a case, and whether the case is drawn; decided once."""
    task = frame.task
    key = frame.next_key("given")
    recorded = task.journal.decided.get(key)
    if recorded is None:
        confidence = task.program.confidence_in(condition, frame.scope.names)
        if confidence is None:
            return None
        standing = await task.engine.thresholds.standing(learning.decision_class)
        default = float(task.program.ambient("threshold"))
        threshold, state = standing.in_force(learning, default)
        share = draw_share(learning, state == LEARNING, await task.engine.thresholds.drawn(learning, standing.since))
        drawn = task.session.shared.world.chance.uniform() < share
        governed = Governed(confidence, threshold, state, standing.version, drawn)
        recorded = await task.journal.decide(key, {**asdict(governed), "class": learning.decision_class})
    return Governed(**{name: value for name, value in recorded.items() if name != "class"})


def makers(frame: NodeFrame, value: Json) -> list[str]:
    """The people who gave exactly this value: their answers, edits and what they did by hand have its address."""
    journal = frame.task.journal
    if value is None:
        return []
    address = journal.seal(value)[0].address
    given = [*journal.closed.values(), *journal.by_hand.values(), *(entry.body for entry in journal.edits)]
    return sorted({str(body["by"]) for body in given if body.get("value") == address and body.get("by")})


def kept_apart(apart: Mapping[str, Sequence[str]], key: str) -> list[str]:
    """The people who may not decide what is asked under a key."""
    return sorted({person for path, people in apart.items() if _lies_below(key, path) for person in people})


def is_kept_apart(apart: Mapping[str, Sequence[str]], key: str) -> bool:
    """Whether what is asked under a key is for others than those who made what is checked."""
    return any(_lies_below(key, path) for path in apart)


def _lies_below(key: str, path: str) -> bool:
    return key.startswith(path) and key[len(path) : len(path) + 1] in "/+~!"


class ThresholdDesk:
    """The thresholds of a store, as this process learns them.

    Cases count in the order in which they were drawn: one that is still open holds back those behind it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._learners: dict[Learning, tuple[Learner, int, int]] = {}
        self._lock = asyncio.Lock()

    async def standing(self, decision_class: str) -> Standing:
        """How a class stands now."""
        rows = await self._ledger.select("thresholds", [("class", "=", decision_class)])
        return Standing.from_row(rows[0]) if rows else Standing(decision_class)

    async def drawn(self, learning: Learning, since: int) -> int:
        """How many cases were drawn and decided since the class began to learn."""
        async with self._lock:
            return (await self._caught_up(learning, since)).cases

    async def learn(self, learning: Learning) -> None:
        """Take in what people have decided since; another threshold is appended, with its evidence."""
        async with self._lock:
            standing = await self.standing(learning.decision_class)
            learner = await self._caught_up(learning, standing.since)
            lesson = learner.lesson(standing.learned(learning))
            if lesson is None or (lesson.state == "learned" and standing.frozen is not None):
                return
            body: dict[str, Any] = {"class": learning.decision_class, "by": LEARNING, **lesson.as_dict()}
            body |= {"error": learning.error, "confidence": learning.promised}
            if lesson.threshold is None:
                del body["threshold"]
            await self._ledger.append(Draft("", kinds.THRESHOLD, "", body))

    async def _caught_up(self, learning: Learning, since: int) -> Learner:
        learner, began, upto = self._learners.get(learning) or (Learner(learning), since, since)
        if began != since:
            learner, began, upto = Learner(learning), since, since
        while True:
            where = [("class", "=", learning.decision_class), ("position", ">", upto)]
            rows = await self._ledger.select("inbox", where, [("position", "asc")], _TOGETHER)
            decided, upto = _decided(rows, upto)
            learner.see(decided)
            self._learners[learning] = (learner, began, upto)
            if len(rows) < _TOGETHER or upto < rows[-1]["position"]:
                return learner


def _decided(rows: Sequence[Mapping[str, Any]], upto: int) -> tuple[list[Case], int]:
    """The drawn cases up to the first that is open, and the moment (store time, us) up to which they reach."""
    found: list[Case] = []
    for row in rows:
        if row["drawn"]:
            if row["state"] == "open":
                break
            if row["decision"] != "withdrawn":
                held = None if row["held"] < 0 else float(row["held"])
                found.append(Case(float(row["confidence"]), row["decision"] == "approve", held))
        upto = int(row["position"])
    return found, upto
