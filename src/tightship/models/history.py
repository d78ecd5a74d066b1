"""Bounded conversations (F4): what is left out of a request when a turn grows long, and what never is.

What never is: the instructions with objective and constraints, the declared facts, and each tool call together with its
answer. It is a pure function of the messages, so a replay leaves out the same. Once the bound is passed, the past is
cut to half of it; so cuts are rare, and what they add to the ledger is linear in what is said.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import orjson

from tightship.core.errors import LimitReached
from tightship.core.ports import Json
from tightship.models.conversation import Conversation, Message

BYTES_A_TOKEN: Final = 3
"""Bytes that count as one token: prose has 4 and more, JSON and code about 3."""
HEAD: Final = 2
"""The messages that a turn begins with: instructions and task."""
_LINE: Final = 160
_SHORTEST: Final = 80
_DEPTH: Final = 6
_CUT: Final = " … [{0} characters left out]"


@dataclass(frozen=True, slots=True)
class HistoryPolicy:
    """How a conversation is bounded.

    Attributes:
        tokens: the most that is sent, by `tokens_of`.
        keep: facts that are always in it: paths of inputs (`order.id`), or fields of what tools gave.
        compact: what becomes of the rest: dropped, or told in a line each.
    """

    tokens: int
    keep: tuple[str, ...] = ()
    compact: Literal["drop", "summarise"] = "drop"


@dataclass(frozen=True, slots=True)
class Compaction:
    """What was left out: messages, tokens before and after, shortened answers of tools, and the facts carried on."""

    dropped: int
    before: int
    after: int
    shortened: int
    facts: tuple[str, ...]

    def as_json(self) -> dict[str, Json]:
        """As a note of the run holds it."""
        return {
            "dropped": self.dropped,
            "before": self.before,
            "after": self.after,
            "shortened": self.shortened,
            "facts": list(self.facts),
        }


def tokens_of(messages: Collection[Message]) -> int:
    """The tokens of messages, counted as bytes of their JSON by `BYTES_A_TOKEN`."""
    return sum(-(-len(orjson.dumps(message.as_json())) // BYTES_A_TOKEN) for message in messages)


def units(messages: Sequence[Message]) -> list[list[Message]]:
    """The messages in pieces that are never torn: what a model said, with the answers to it and to its tool calls."""
    found: list[list[Message]] = []
    for message in messages:
        if message.role == "assistant" or not found:
            found.append([message])
        else:
            found[-1].append(message)
    return found


def fact(value: Json, path: str) -> tuple[Json, bool]:
    """What stands at a dotted path of a value, and whether anything does."""
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None, False
        value = value[part]
    return value, True


def fit_inputs(given: Mapping[str, Json], keep: Collection[str], room: int) -> dict[str, Json]:
    """Inputs that fit into so many tokens: what is not declared as a fact is shortened, the longest first.

    Raises:
        LimitReached: the declared facts alone do not fit.
    """
    kept = {path.partition(".")[0] for path in keep}
    texts = {name: value for name, value in given.items() if name not in kept}
    fitted = dict(given)
    while _size(fitted) > room:
        longest = max(texts, key=lambda name: (_size(texts[name]), name), default=None)
        if longest is None or _size(texts[longest]) * BYTES_A_TOKEN <= _SHORTEST:
            raise LimitReached(
                f"the inputs do not fit into {room} tokens",
                fix="raise `history.tokens`, or name fewer inputs in `history.keep`",
            )
        value = texts[longest]
        text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        over = (_size(fitted) - room) * BYTES_A_TOKEN
        texts[longest] = fitted[longest] = _cut(text, max(0, min(len(text) // 2, len(text) - over)))
    return fitted


@dataclass(slots=True)
class History:
    """One turn's conversation under a policy. It carries what earlier cuts have kept.

    Attributes:
        policy: the policy. facts: what was found of the declared facts in answers of tools, the latest value of each.
    """

    policy: HistoryPolicy
    facts: dict[str, Json] = field(default_factory=dict[str, Json])
    _outline: list[str] = field(default_factory=list[str])
    _recap: Message | None = None

    def fit(self, conversation: Conversation) -> tuple[Conversation, Compaction | None]:
        """The conversation as it is sent, and what was left out, if anything.

        Raises:
            LimitReached: what may not be left out does not fit.
        """
        messages = conversation.messages()
        before = tokens_of(messages)
        if before <= self.policy.tokens:
            return conversation, None
        head, rest = messages[:HEAD], [one for one in messages[HEAD:] if one is not self._recap]
        pieces = units(rest)
        self._learn(rest)
        last = pieces.pop() if pieces else []
        fixed = tokens_of(head) + tokens_of(last) + self._room_for_recap()
        kept: list[list[Message]] = []
        while pieces and fixed + tokens_of(pieces[-1]) <= self.policy.tokens // 2:
            kept.insert(0, pieces.pop())
            fixed += tokens_of(kept[0])
        self._tell([one for piece in pieces for one in piece])
        self._recap = self._recapped(self._outline)
        front = [*head, self._recap, *(one for piece in kept for one in piece)]
        last, shortened = self._shortened(last, self.policy.tokens - tokens_of(front))
        made = Conversation.of([*front, *last])
        dropped = sum(len(piece) for piece in pieces)
        return made, Compaction(dropped, before, tokens_of(made.messages()), shortened, tuple(sorted(self.facts)))

    def _learn(self, messages: Sequence[Message]) -> None:
        """Find the declared facts in what tools gave."""
        for message in messages:
            if message.role != "tool" or not self.policy.keep:
                continue
            try:
                value = orjson.loads(message.content)
            except orjson.JSONDecodeError:
                continue
            for path in self.policy.keep:
                found, there = _anywhere(value, path)
                if there:
                    self.facts[path] = found

    def _tell(self, dropped: Sequence[Message]) -> None:
        if self.policy.compact != "summarise":
            return
        for message in dropped:
            calls = "; ".join(f"{call.name}({_line(call.args)})" for call in message.calls)
            said = " ".join(message.content.split())
            who = message.name or message.role
            text = f"{who}: {' '.join(part for part in (said, calls) if part)}"
            self._outline.append(text if len(text) <= _LINE else f"{text[: _LINE - 1]}…")
        while self._outline and tokens_of([self._recapped(self._outline)]) > self._room_for_recap():
            del self._outline[0]

    def _room_for_recap(self) -> int:
        outline = self.policy.tokens // 8 if self.policy.compact == "summarise" else 0
        return outline + tokens_of([self._recapped(())])

    def _recapped(self, lines: Sequence[str]) -> Message:
        parts = ["Earlier parts of this conversation were left out."]
        if self.facts:
            parts.append("What they established (data):")
            parts += [f"- {name} = {orjson.dumps(self.facts[name]).decode()}" for name in sorted(self.facts)]
        if lines:
            parts += ["What was said, in short (data):", *(f"- {line}" for line in lines)]
        return Message.user("\n".join(parts))

    def _shortened(self, last: list[Message], room: int) -> tuple[list[Message], int]:
        """The last piece, its answers of tools cut, the longest first, until it fits."""
        cut = set[int]()
        fitted = list(last)
        while tokens_of(fitted) > room:
            tools = [n for n, one in enumerate(fitted) if one.role == "tool" and len(one.content) > _SHORTEST]
            longest = max(tools, key=lambda n: (len(fitted[n].content), n), default=None)
            if longest is None:
                raise LimitReached(
                    f"what may not be left out of a conversation does not fit into {self.policy.tokens} tokens",
                    fix="raise `history.tokens`, shorten the instructions, or name fewer facts in `history.keep`",
                )
            whole = last[longest].content
            over = (tokens_of(fitted) - room) * BYTES_A_TOKEN
            length = len(fitted[longest].content)
            keep = max(0, min(length // 2, length - over))
            fitted[longest] = replace(last[longest], content=_cut(whole, keep))
            cut.add(longest)
        return fitted, len(cut)


def _cut(text: str, length: int) -> str:
    return text[:length] + _CUT.format(len(text) - length)


def _size(value: Json) -> int:
    return -(-len(orjson.dumps(value)) // BYTES_A_TOKEN)


def _line(args: Mapping[str, Any] | None) -> str:
    return "" if args is None else orjson.dumps(args, option=orjson.OPT_SORT_KEYS).decode()


def _anywhere(value: Json, path: str, depth: int = 0) -> tuple[Json, bool]:
    """What stands at a path, at the top of a value or anywhere inside; the first in reading order."""
    found, there = fact(value, path)
    if there or depth >= _DEPTH:
        return found, there
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for one in inner:
        found, there = _anywhere(one, path, depth + 1)
        if there:
            return found, True
    return None, False
