"""Conversations with models: immutable, shared, appended in O(1), so that n turns cost O(n) to store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from tightship.core.ports import Json

Role = Literal["system", "user", "assistant", "tool"]
_ROLES = frozenset({"system", "user", "assistant", "tool"})


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model asks for.

    Attributes:
        id: the provider's id of the call; the tool's answer carries it.
        name: the tool.
        args: the arguments; None when what the model wrote is no JSON object, then `malformed` holds it.
        malformed: what the model wrote instead of arguments.
    """

    id: str
    name: str
    args: Mapping[str, Json] | None
    malformed: str | None = None

    def as_json(self) -> dict[str, Json]:
        """The call as JSON."""
        made: dict[str, Json] = {"id": self.id, "name": self.name, "args": self.args}
        return made if self.malformed is None else {**made, "malformed": self.malformed}


@dataclass(frozen=True, slots=True)
class Thinking:
    """A piece of a model's reasoning. `raw` is the provider's own form: it must go back unchanged to be accepted."""

    text: str
    raw: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        role: who speaks.
        content: the text.
        calls: the tool calls of an assistant's message, in the order of the reply.
        call_id: of a tool's answer: the call it answers.
        name: of a tool's answer: the tool.
        thinking: the reasoning before an assistant's message.
    """

    role: Role
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    name: str | None = None
    thinking: tuple[Thinking, ...] = ()

    @classmethod
    def system(cls, content: str) -> Message:
        """Instructions."""
        return cls("system", content)

    @classmethod
    def user(cls, content: str) -> Message:
        """What is asked."""
        return cls("user", content)

    @classmethod
    def assistant(cls, content: str, calls: Iterable[ToolCall] = ()) -> Message:
        """What the model said."""
        return cls("assistant", content, tuple(calls))

    @classmethod
    def tool(cls, call: ToolCall, value: Json) -> Message:
        """A tool's answer to a call; values other than text are written as JSON."""
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        return cls("tool", text, call_id=call.id, name=call.name)

    def as_json(self) -> dict[str, Json]:
        """The message as JSON, without what is empty."""
        made: dict[str, Json] = {"role": self.role, "content": self.content}
        if self.calls:
            made["calls"] = [call.as_json() for call in self.calls]
        if self.call_id is not None:
            made["call_id"] = self.call_id
        if self.name is not None:
            made["name"] = self.name
        if self.thinking:
            made["thinking"] = [{"text": part.text, "raw": dict(part.raw)} for part in self.thinking]
        return made

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Message:
        """The message that `as_json` wrote; a plain `{"role", "content"}` is one too.

        Raises:
            ValueError: it is none.
        """
        role, content = raw.get("role"), raw.get("content", "")
        if role not in _ROLES or not isinstance(content, str):
            raise ValueError(f"a message has a role ({', '.join(sorted(_ROLES))}) and a text as content")
        try:
            calls = tuple(
                ToolCall(call["id"], call["name"], call["args"], call.get("malformed")) for call in raw.get("calls", ())
            )
            thinking = tuple(Thinking(part["text"], part["raw"]) for part in raw.get("thinking", ()))
        except (KeyError, TypeError) as error:
            raise ValueError(f"a message is not whole: {error}") from None
        return cls(role, content, calls, raw.get("call_id"), raw.get("name"), thinking)


class Conversation:
    """A list of messages that shares its past with every conversation it grew from.

    Attributes:
        parent: the conversation without the last message; None for the empty one.
        message: the last message; None for the empty one.
    """

    __slots__ = ("_digest", "_length", "message", "parent")

    def __init__(self) -> None:
        self.parent: Conversation | None = None
        self.message: Message | None = None
        self._length = 0
        self._digest: bytes | None = b""

    @classmethod
    def of(cls, messages: Iterable[Message]) -> Conversation:
        """The conversation of these messages."""
        made = cls()
        for message in messages:
            made = made.append(message)
        return made

    def append(self, message: Message) -> Conversation:
        """This conversation and one message more; this one stays as it is. O(1)."""
        made = Conversation.__new__(Conversation)
        made.parent = self
        made.message = message
        made._length = self._length + 1
        made._digest = None
        return made

    def extend(self, messages: Iterable[Message]) -> Conversation:
        """This conversation and these messages."""
        made = self
        for message in messages:
            made = made.append(message)
        return made

    def nodes(self) -> Iterator[Conversation]:
        """This node and its past, newest first, without the empty one."""
        node: Conversation | None = self
        while node is not None and node.message is not None:
            yield node
            node = node.parent

    def messages(self) -> list[Message]:
        """All messages, oldest first. O(n)."""
        found = [node.message for node in self.nodes() if node.message is not None]
        found.reverse()
        return found

    @property
    def digest(self) -> str:
        """SHA-256 over all messages (hex); counted once for each node, so n turns cost O(n) in all."""
        pending: list[Conversation] = []
        node: Conversation = self
        while node._digest is None and node.parent is not None:
            pending.append(node)
            node = node.parent
        known = node._digest or b""
        for node in reversed(pending):
            message = node.message
            assert message is not None
            known = hashlib.sha256(known + orjson.dumps(message.as_json(), option=orjson.OPT_SORT_KEYS)).digest()
            node._digest = known
        return known.hex()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages())

    def __bool__(self) -> bool:
        return self._length > 0

    def __repr__(self) -> str:
        return f"Conversation({self._length} messages)"
