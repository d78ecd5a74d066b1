"""A tool whose answers are written down beforehand: for tests of agents and workflows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from tightship.core.ports import Reply, Request, ToolSpec

Answer = Any


class ScriptedTool:
    """Answers with what the script says, in order, and keeps what it was asked.

    An answer may be a value, a Reply, an exception (raised), or a function of the request that gives one of these.
    The last answer is repeated when the script has run out, unless `strict`.

    Args:
        spec: the contract, or just a name.
        script: the answers.
        strict: raise AssertionError when the script has run out.

    Attributes:
        calls: the requests to perform, in order.
        lookups: the requests to look up, in order.
        done: what `lookup` finds, by request key; a test may change it.
    """

    def __init__(self, spec: ToolSpec | str, script: Iterable[Answer] = (None,), *, strict: bool = False) -> None:
        self._spec = ToolSpec(spec) if isinstance(spec, str) else spec
        self._script = deque(script)
        self._strict = strict
        self.calls: list[Request] = []
        self.lookups: list[Request] = []
        self.done: dict[str, Reply] = {}

    @property
    def spec(self) -> ToolSpec:
        """The contract."""
        return self._spec

    async def perform(self, request: Request) -> Reply:
        """The next answer of the script.

        Raises:
            AssertionError: a strict script has run out.
            BaseException: whatever the script says.
        """
        self.calls.append(request)
        if not self._script:
            raise AssertionError(f"{self._spec.name} was called {len(self.calls)} times, more often than scripted")
        answer = self._script.popleft() if len(self._script) > 1 or self._strict else self._script[0]
        if isinstance(answer, Callable):
            answer = answer(request)
        if isinstance(answer, BaseException):
            raise answer
        reply = answer if isinstance(answer, Reply) else Reply(answer, self._spec.price)
        self.done[request.key] = reply
        return reply

    async def lookup(self, request: Request) -> Reply | None:
        """The reply that was given for this request's key, or None."""
        self.lookups.append(request)
        return self.done.get(request.key)
