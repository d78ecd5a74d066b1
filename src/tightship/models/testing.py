"""A model whose answers are written down beforehand: for tests of agents and workflows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tightship.core.ports import FREE, Usage
from tightship.models.conversation import Message, ToolCall
from tightship.models.port import ModelReply, ModelRequest, OnText

SCRIPTED = "scripted"


class ScriptedModel:
    """Answers with what the script says, in order, and keeps what it was asked (models.port.Model).

    An answer may be a text, a mapping (the structured answer), a list of `(tool, arguments)` (tool calls), a
    ModelReply, an exception (raised), or a function of the request that gives one of these. The last answer is
    repeated when the script has run out, unless `strict`.

    Args:
        script: the answers.
        usage: what each answer costs, where it is no ModelReply.
        strict: raise AssertionError when the script has run out.

    Attributes:
        requests: what was asked, in order.
    """

    def __init__(self, script: Iterable[Any] = ("",), *, usage: Usage = FREE, strict: bool = False) -> None:
        self._script = deque(script)
        self._usage = usage
        self._strict = strict
        self.requests: list[ModelRequest] = []

    async def request(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        """The next answer of the script.

        Raises:
            AssertionError: a strict script has run out.
            BaseException: whatever the script says.
        """
        self.requests.append(request)
        if not self._script:
            raise AssertionError(f"the model was asked {len(self.requests)} times, more often than scripted")
        answer: Any = self._script.popleft() if len(self._script) > 1 or self._strict else self._script[0]
        if isinstance(answer, Callable):
            answer = answer(request)
        if isinstance(answer, BaseException):
            raise answer
        reply = answer if isinstance(answer, ModelReply) else self._reply(answer)
        if on_text is not None and reply.text:
            on_text(reply.text)
        return reply

    def _reply(self, answer: str | Mapping[str, Any] | Sequence[tuple[str, Mapping[str, Any]]]) -> ModelReply:
        if isinstance(answer, str):
            return ModelReply(Message.assistant(answer), self._usage, "stop", SCRIPTED)
        if isinstance(answer, Mapping):
            return ModelReply(Message.assistant(""), self._usage, "stop", SCRIPTED, output=dict(answer))
        count = len(self.requests)
        calls = [ToolCall(f"call_{count}_{n}", name, args) for n, (name, args) in enumerate(answer)]
        return ModelReply(Message.assistant("", calls), self._usage, "tool_call", SCRIPTED)
