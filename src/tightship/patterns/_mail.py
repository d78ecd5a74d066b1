"""What a peer's turn says, as data: moves on the board and messages, each checked against what there is (F14)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tightship.context.board import Move
from tightship.controls.loops import LoopDetector, LoopLimits
from tightship.core.errors import LoopFound
from tightship.core.ports import Json
from tightship.patterns._settle import alike
from tightship.workflow.types import Shape, shape_of

KINDS: Final = ("tell", "ask", "delegate", "reply")
FIELDS: Final = ("claim", "results", "release", "messages", "done")
"""The fields of a peer's output that say what it does."""

_TEXTS: Final[Mapping[str, Any]] = {"type": ["array", "null"], "items": {"type": "string"}}
_SAYS: Final[Shape] = shape_of(
    {
        "type": "object",
        "properties": {
            "claim": _TEXTS,
            "release": _TEXTS,
            "results": {
                "type": ["array", "null"],
                "items": {"type": "object", "required": ["key", "value"], "properties": {"key": {"type": "string"}}},
            },
            "messages": {
                "type": ["array", "null"],
                "items": {
                    "type": "object",
                    "required": ["to", "kind"],
                    "properties": {
                        "to": {"type": "string"},
                        "kind": {"type": "string"},
                        "about": {"type": ["string", "null"]},
                        "re": {"type": ["string", "null"]},
                        "text": {"type": ["string", "null"], "maxLength": 20_000},
                    },
                },
            },
            "done": {"type": ["boolean", "null"]},
        },
    }
)


@dataclass(frozen=True, slots=True)
class Message:
    """What one peer says to another.

    Attributes:
        id: unique in the step; a reply names it in `re`. kind: tell, ask, delegate (with a claim that passes) or reply.
        about: a sub-problem's key. value: with a reply, the sender's own answer to that sub-problem, if `answers`.
    """

    id: str
    source: str
    target: str
    kind: Literal["tell", "ask", "delegate", "reply"]
    about: str = ""
    re: str = ""
    text: str = ""
    data: Json = None
    value: Json = None
    answers: bool = False

    def to_json(self) -> dict[str, Json]:
        """As its receiver sees it."""
        told: dict[str, Json] = {"id": self.id, "from": self.source, "kind": self.kind}
        told |= {name: value for name in ("about", "re", "text") if (value := getattr(self, name))}
        if self.data is not None:
            told["data"] = self.data
        return {**told, "value": self.value} if self.answers else told


@dataclass(slots=True)
class Said:
    """A peer's output, read.

    Attributes:
        moves: what it does on the board, in the order in which it is judged. messages: what it sends.
        done: it has nothing more to do unless something comes. problems: what is refused, in words for it.
    """

    moves: list[Move] = field(default_factory=list[Move])
    messages: list[Message] = field(default_factory=list[Message])
    done: bool = False
    problems: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Json]:
        """What it comes to, without ids of messages: by this it is told whether it was said before."""
        messages = [{**_told(one.to_json()), "to": one.target} for one in self.messages]
        moves = [{"move": one.kind, "item": one.item, "value": one.value} for one in self.moves]
        return {"messages": messages, "moves": moves}


def heard(inbox: Sequence[Mapping[str, Any]], done: int) -> dict[str, Json]:
    """What a peer goes by in a turn, in the same way: the messages, and how many sub-problems it knows to be done."""
    return {"inbox": [_told(one) for one in inbox], "done": done}


def _told(message: Mapping[str, Any]) -> dict[str, Json]:
    return {name: value for name, value in message.items() if name not in ("id", "re", "from")} | {
        "by": message["from"]
    }


@dataclass(frozen=True, slots=True)
class Circle:
    """What a peer may name: others, sub-problems, messages that it has got; and how many it may still send."""

    me: str
    others: Sequence[str]
    items: Mapping[str, Json]
    got: Mapping[str, str]
    left: int


def read_said(output: Json, circle: Circle, number: int) -> Said:
    """A peer's output as moves and messages; what lies outside its circle is left out and named."""
    said = Said(problems=[str(misfit) for misfit in _SAYS.misfits(output)])
    if said.problems or not isinstance(output, Mapping):
        said.problems = said.problems or ["the output is no object"]
        return said
    said.done = bool(output.get("done"))
    claims = [Move("claim", one) for one in output.get("claim") or ()]
    results = [Move("result", one["key"], one["value"]) for one in output.get("results") or ()]
    releases = [Move("release", one) for one in output.get("release") or ()]
    said.messages = list(_messages(output.get("messages") or (), circle, number, said.problems))
    gives = [Move("give", one.about, to=one.target) for one in said.messages if one.kind == "delegate"]
    for move in (*claims, *results, *gives, *releases):
        if move.item in circle.items:
            said.moves.append(move)
        else:
            said.problems.append(f"{move.kind}: {move.item!r} is no sub-problem on the board")
    return said


def _messages(
    asked: Sequence[Mapping[str, Any]], circle: Circle, number: int, problems: list[str]
) -> Iterator[Message]:
    for index, one in enumerate(asked, 1):
        wrong = _wrong(one, circle)
        if not wrong and index > circle.left:
            wrong = "you have sent as many messages as you may"
        if wrong:
            problems.append(f"messages[{index - 1}]: {wrong}")
            continue
        yield Message(
            f"{circle.me}-{number}-{index}",
            circle.me,
            one["to"],
            one["kind"],
            one.get("about") or "",
            one.get("re") or "",
            one.get("text") or "",
            one.get("data"),
            one.get("value"),
            one["kind"] == "reply" and bool(one.get("about")) and "value" in one,
        )


def _wrong(one: Mapping[str, Any], circle: Circle) -> str:
    """Why a message may not go out; empty when it may."""
    if one["to"] not in circle.others:
        return f"{one['to']!r} is no peer of {circle.me}; there are {', '.join(circle.others) or 'none'}"
    if one["kind"] not in KINDS:
        return f"{one['kind']!r} is no kind of message; there are {', '.join(KINDS)}"
    about = one.get("about")
    if about and about not in circle.items:
        return f"about: {about!r} is no sub-problem on the board"
    if one["kind"] == "delegate" and not about:
        return "a delegated sub-problem is named in `about`"
    if one["kind"] == "reply" and circle.got.get(one.get("re") or "") != one["to"]:
        return f"re: {one.get('re')!r} is no message from {one['to']}; a reply names what it answers"
    return ""


class Chatter:
    """Finds out, in one peer's own order of things, that they only ask or delegate in circles (F1).

    Between two of them it counts how often the direction changes, so several messages at once are one; and for each
    sub-problem, how often it has come back, whatever way it has taken round.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._known: set[str] = set()
        self._pairs: dict[frozenset[str], LoopDetector] = {}
        self._last: dict[frozenset[str], str] = {}
        self._came: Counter[str] = Counter()

    def heard(self, message: Message | Mapping[str, Any], target: str) -> None:
        """A message has come or goes out.

        Raises:
            LoopFound: asks and delegated work only go round, and nothing new was learned.
        """
        told = message.to_json() if isinstance(message, Message) else message
        if told["kind"] not in ("ask", "delegate"):
            self.learned([told.get("text"), told.get("data"), told.get("value")])
            return
        source = str(told["from"])
        pair = frozenset((source, target))
        if self._last.get(pair) != source:
            self._last[pair] = source
            self._pairs.setdefault(pair, LoopDetector()).handoff(str(told["id"]), source, target)
        if told["kind"] == "delegate" and target == self._name:
            self._returned(str(told["about"]))

    def _returned(self, item: str) -> None:
        self._came[item] += 1
        if self._came[item] >= LoopLimits().cycles:
            raise LoopFound(
                f"{item} was delegated to {self._name} {self._came[item]} times, and nothing new was learned",
                fix="let one of the peers do it or give it back; the way it took stands in `tightship runs show`",
            )

    def learned(self, what: Json) -> None:
        """Something is known that may be new."""
        told = alike(what)
        if told not in self._known:
            self._known.add(told)
            self._pairs.clear()
            self._last.clear()
            self._came.clear()
