"""Counted limits of one run: turns, calls and retries, its request's handoffs and messages, its time (F1, F5).

What is counted is named by its key and counted once, so that replaying a run counts nothing twice, and no handoff,
no nesting and no restart can reset a counter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import LimitReached, LoopFound, Unavailable
from tightship.core.ids import derived_id
from tightship.core.ports import WORKFLOW, EntryView
from tightship.core.signals import OverBudget
from tightship.core.world import Clock

REPEATED: Final = frozenset({"read", "write"})
"""Classes of calls of which identical ones are counted; requests to a model stand in the loop detection as turns."""
HANDOFF: Final = "handoff"
"""The type of the note by which control passes."""
PEER_TURN: Final = "peers.turn"
"""The type of the note that says what a peer's turn does: claims, results, releases, and the messages that go out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How often something may happen in one run (or for one agent of it).

    Attributes:
        turns: agent turns.
        calls: effects that agents ask for, refused and cached ones included.
        retries: second and further attempts, over all layers together: at a system, at another tier, repairs of an
            output, steps that are tried again or redone, further rounds of maker and checker.
        repeats: the same call (same tool, same arguments) by the same agent. What got no answer does not count; a read
            that gives what it never gave before is counted anew, so polling may go on as long as there is news.
    """

    turns: int = 60
    calls: int = 200
    retries: int = 20
    repeats: int = 3


class RunLimits:
    """The counters of one scope.

    Args:
        limits: the most of each.
        scope: what is counted for, as it appears in messages (`run`, `agent:NAME`).
    """

    __slots__ = ("_answers", "_asked", "_calls", "_retries", "_same", "_turns", "limits", "scope")

    def __init__(self, limits: Limits | None = None, scope: str = "run") -> None:
        self.limits = limits or Limits()
        self.scope = scope
        self._turns: set[str] = set()
        self._calls: set[str] = set()
        self._retries: set[tuple[str, int]] = set()
        self._same: dict[tuple[str, str, str], set[str]] = {}
        self._asked: dict[str, tuple[str, str, str]] = {}
        self._answers: dict[tuple[str, str, str], set[str]] = {}

    def count_turn(self, key: str) -> None:
        """An agent takes its turn under this key.

        Raises:
            LimitReached: that is one turn too many.
        """
        counted = self._turns
        if key not in counted and len(counted) >= self.limits.turns:
            raise self._reached("agent turns", "turns", self.limits.turns)
        counted.add(key)

    def count_call(self, key: str) -> None:
        """An effect is asked for under this key.

        Raises:
            LimitReached: that is one call too many.
        """
        counted = self._calls
        counted.add(key)
        if len(counted) > self.limits.calls:
            raise self._reached("calls", "calls", self.limits.calls)

    def count_repeat(self, key: str, agent: str, tool: str, digest: str) -> None:
        """An agent asks for a tool with arguments of this hash (their payload's address, and the line it is in).

        Raises:
            LoopFound: it has asked exactly that too often, and learned nothing new by it.
        """
        if agent == WORKFLOW:
            return
        same = self._asked[key] = (agent, tool, digest + _retry(key))
        counted = self._same.setdefault(same, set())
        counted.add(key)
        if len(counted) > self.limits.repeats:
            raise LoopFound(
                f"{agent} has asked {tool} for the same {self.limits.repeats} times already",
                fix="let the agent use the answer that it has, or raise limits.repeats",
            )

    def unanswered(self, key: str) -> None:
        """What was asked under this key was not answered: asking again is a retry, and no repeat."""
        same = self._asked.pop(key, None)
        if same is not None:
            self._same[same].discard(key)

    def answered(self, key: str, out: str) -> None:
        """A read under this key was answered with this (its payload's address): with news, the count begins anew."""
        same = self._asked.get(key)
        if same is None:
            return
        known = self._answers.setdefault(same, set())
        if known and out not in known:
            self._same[same] = {key}
        known.add(out)

    def count_retry(self, key: str, attempt: int) -> None:
        """An effect, a turn or a step is tried again; the first attempt is attempt 1 and no retry.

        Raises:
            LimitReached: that is one retry too many.
        """
        one = (key, attempt)
        if attempt <= 1 or one in self._retries:
            return
        if len(self._retries) >= self.limits.retries:
            raise self._reached("retries", "retries", self.limits.retries)
        self._retries.add(one)

    def may_retry(self, key: str) -> bool:
        """Count what is about to be tried again under this key, if the limit allows it."""
        try:
            self.count_retry(key, 2)
        except LimitReached:
            return False
        return True

    def restore(self, entries: Iterable[EntryView]) -> None:
        """Count what the ledger holds of this run, without raising; before a resumed run goes on."""
        for entry in entries:
            if entry.kind == kinds.TURN:
                if not entry.body.get("denied"):  # it was not taken
                    self._turns.add(entry.key)
                    self._turns.update(sample_key(entry.key, at) for at in range(2, 1 + entry.body.get("samples", 1)))
                if entry.body.get("repair"):
                    self._retries.add((entry.key, 2))
            elif entry.kind in (kinds.ADMITTED, kinds.SETTLED):
                self._restore_call(entry.key, entry.body)
            elif entry.kind == kinds.NOTE and entry.body.get("again"):
                self._retries.add((entry.key, 2))

    def _restore_call(self, key: str, body: Mapping[str, Any]) -> None:
        self._calls.add(key)
        counted = body.get("cls") in REPEATED and body.get("agent") != WORKFLOW
        if counted and body.get("args"):  # the settle of an admitted effect does not repeat them
            digest = f"{body['args']}{body.get('line', '')}{_retry(key)}"
            same = self._asked[key] = (str(body.get("agent", "")), str(body.get("name", "")), digest)
            self._same.setdefault(same, set()).add(key)
        if body.get("cls") == "read" and body.get("out"):
            self.answered(key, str(body["out"]))
        if (body.get("error") or {}).get("kind") == Unavailable.kind:
            self.unanswered(key)
        attempt = int(body.get("attempt") or 1)
        if attempt > 1:
            self._retries.update((key, number) for number in range(2, attempt + 1))

    def as_dict(self) -> dict[str, int]:
        """The counts."""
        return {
            "turns": len(self._turns),
            "calls": len(self._calls),
            "retries": len(self._retries),
            "repeats": max((len(keys) for keys in self._same.values()), default=0),
        }

    def _reached(self, what: str, field: str, limit: int) -> LimitReached:
        whose = "this run" if self.scope == "run" else self.scope
        return LimitReached(
            f"{whose} has used up its {limit} {what}",
            fix=f"find out what repeats with `tightship runs show`; raise limits.{field} only if the work needs it",
        )


def sample_key(turn: str, number: int) -> str:
    """What a further sample of a turn's answer (from 2) is counted by: it is paid, and counts, like a turn."""
    return f"{turn}/sample/{number}"


def _retry(key: str) -> str:
    """Which declared retries a call lies in: a step that is tried again asks for the same again, within `retries`."""
    if "~" not in key:
        return ""
    return "/".join(part.partition("~")[2] for part in key.split("/"))


@dataclass(slots=True)
class Handoffs:
    """How often control has passed from one agent to another, in a run and in all runs below it.

    One user's request is one task, however many runs it is done in: each of them counts in its own counter and in
    those of the runs above it, so neither a handoff nor a child run nor a restart begins anew.
    """

    run: str
    most: int
    counted: set[str] = field(default_factory=set[str])

    @staticmethod
    def id(run: str, key: str) -> str:
        """What the handoff under this key of a run is counted by."""
        return derived_id("h", run, key)

    def restore(self, entries: Iterable[EntryView]) -> None:
        """Count what a run's entries hold: its own handoffs, and those that its ended children have told of."""
        for entry in entries:
            if entry.kind == kinds.NOTE and entry.body.get("type") == HANDOFF:
                self.counted.add(self.id(entry.run, entry.key))
            elif entry.kind == kinds.SIGNAL:
                self.counted.update(entry.body.get("handoffs", ()))

    def check(self, one: str) -> None:
        """Whether this handoff may be counted here as well.

        Raises:
            LimitReached: that is one handoff too many.
        """
        if one not in self.counted and len(self.counted) >= self.most:
            raise self.reached()

    def reached(self) -> LimitReached:
        """That was one handoff too many."""
        return LimitReached(
            f"control has passed {self.most} times in run {self.run} and the runs below it",
            fix="find out with `tightship runs show` who passes what to whom; raise limits.handoffs only if the "
            "work needs it",
        )


@dataclass(slots=True)
class Messages:
    """How many messages peers have sent to each other, in a run and in all runs below it: one user's request.

    Each run's are counted under its id, where the greatest number that is known counts: what is told again, by a
    resume, a child's end or another process, changes nothing, and nothing takes a sent message back.
    """

    run: str
    most: int
    sent: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def left(self) -> int:
        """How many may still be sent."""
        return max(0, self.most - sum(self.sent.values()))

    def count(self, run: str, messages: int) -> None:
        """So many more have been sent in a run."""
        self.hear({run: self.sent.get(run, 0) + messages})

    def withdraw(self, run: str, messages: int) -> None:
        """So many of them were not sent after all: the store knew of others."""
        self.sent[run] -= messages

    def hear(self, sent: Mapping[str, int]) -> None:
        """What runs have sent so far, as their ledger or their end says."""
        for run, messages in sent.items():
            if messages > self.sent.get(run, 0):
                self.sent[run] = messages

    def restore(self, entries: Iterable[EntryView]) -> None:
        """Count what all entries of a run hold: its own messages, and those that its ended children have told of."""
        own = dict[str, dict[str, int]]()
        for entry in entries:
            if entry.kind == kinds.NOTE and entry.body.get("type") == PEER_TURN:
                own.setdefault(entry.run, {})[entry.key] = int(entry.body.get("messages") or 0)
            elif entry.kind == kinds.SIGNAL:
                self.hear(entry.body.get("messages", {}))
        self.hear({run: sum(turns.values()) for run, turns in own.items()})


class Stopwatch:
    """The seconds that a run may work; time in which it is parked does not count.

    Args:
        clock: where time comes from.
        seconds: the budget, or None for no limit.
        used: what earlier owners of the run have used of it.
        scope: whose budget it is, for refusals.
    """

    __slots__ = ("_clock", "_started", "_used", "scope", "seconds")

    def __init__(self, clock: Clock, seconds: float | None, *, used: float = 0.0, scope: str = "run") -> None:
        self._clock = clock
        self._used = used
        self._started: float | None = None
        self.seconds = seconds
        self.scope = scope

    @property
    def used(self) -> float:
        """Seconds worked so far."""
        running = 0.0 if self._started is None else self._clock.monotonic() - self._started
        return self._used + running

    @property
    def left(self) -> float | None:
        """Seconds left (never below 0), or None without a limit."""
        return None if self.seconds is None else max(0.0, self.seconds - self.used)

    def start(self) -> None:
        """The run works; nothing happens when it did already."""
        if self._started is None:
            self._started = self._clock.monotonic()

    def stop(self) -> None:
        """The run is parked or has ended; nothing happens when it was already."""
        self._used, self._started = self.used, None

    def extend(self, seconds: float) -> None:
        """Somebody granted more time; without a limit nothing changes."""
        if self.seconds is not None:
            self.seconds += seconds

    def check(self) -> None:
        """Whether there is time left.

        Raises:
            OverBudget: there is none; the unit is `seconds`.
        """
        limit = self.seconds
        if limit is not None and self.used >= limit:
            raise OverBudget(
                f"the time budget of {self.scope} is used up: {self.used:.1f} s of {limit:g} s",
                scope=self.scope,
                unit="seconds",
            )
