"""What stands where the real outside would be: the practice company behind its connector, generated answers elsewhere.

Nothing here can reach a real system. Every tool is seen through a `Tap`, which notes what was asked, and at which a
drill breaks things: it raises what a connector would raise (core.ports.Tool).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from tightship.core.ports import FREE, Json, Reply, Request, Tool, ToolSpec
from tightship.core.world import Clock
from tightship.models.rehearsal import rehearsed

LATENCY = 0.05
"""Seconds (of the drill's clock) that an undisturbed call takes."""


class Practice(Protocol):
    """A company to practise on, behind an HTTP transport of its own."""

    @property
    def operations(self) -> Collection[str]:
        """The names of its operations."""
        ...

    @property
    def transport(self) -> Any:
        """An httpx2 transport that answers for it, whatever the address, and signs in by itself."""
        ...

    def state(self) -> Mapping[str, Json]:
        """Its business state in canonical form: equal when the same has been done to it."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


MakePractice = Callable[[Path | None, Clock], Practice]
"""A practice company: in memory, or in a file that outlives a process; with the clock that it lives by."""
Ask = Callable[[], Awaitable[Reply]]
Trouble = Callable[["Tap", Request, Ask], Awaitable[Reply]]
"""What a drill does to a call: ask (or not), and return or raise what comes of it."""


async def calm(tap: Tap, request: Request, ask: Ask) -> Reply:
    """Nothing is broken."""
    return await ask()


@dataclass(slots=True)
class Asked:
    """One attempt at a tool, as it reached the outside. `done`: it was answered."""

    name: str
    effect: str
    args: Mapping[str, Json]
    run: str
    key: str
    agent: str
    attempt: int
    done: bool = False


@dataclass(slots=True)
class Outside:
    """All of the outside in one scene.

    Attributes:
        trouble: what is broken now. asked: every attempt that came this far, in order.
        made: what stand-ins have written, by tool and key; `journal` keeps it over the end of a process.
    """

    practice: Practice
    trouble: Trouble = calm
    asked: list[Asked] = field(default_factory=list[Asked])
    made: dict[str, Json] = field(default_factory=dict[str, Json])
    journal: Path | None = None

    def load(self) -> None:
        """What an earlier process has written."""
        if self.journal is not None and self.journal.exists():
            for line in self.journal.read_bytes().splitlines():
                entry = orjson.loads(line)
                self.made[entry["key"]] = entry["value"]

    def write(self, key: str, value: Json) -> None:
        """A stand-in has written something."""
        self.made[key] = value
        if self.journal is not None:
            with self.journal.open("ab") as file:
                file.write(orjson.dumps({"key": key, "value": value}) + b"\n")

    def state(self) -> dict[str, Json]:
        """What the outside has come to: equal when the same was done to it, in whatever order."""
        stood = sorted(orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode() for value in self.made.values())
        return {**self.practice.state(), "stand-ins": stood}

    def writes(self) -> list[Asked]:
        """The writes that were answered."""
        return [one for one in self.asked if one.done and one.effect == "write"]


class Tap:
    """A tool that is looked at, and broken, on its way (core.ports.Tool)."""

    def __init__(self, inner: Tool, outside: Outside, limit: float | None = None) -> None:
        self.inner = inner
        self.outside = outside
        timeout = inner.spec.timeout if limit is None else min(limit, inner.spec.timeout)
        self.spec_: ToolSpec = replace(inner.spec, requests_per_second=None, timeout=timeout)

    @property
    def spec(self) -> ToolSpec:
        """The contract; a drill may have changed its price."""
        return self.spec_

    async def perform(self, request: Request) -> Reply:
        """One attempt."""
        spec = self.spec_
        asked = Asked(
            spec.name, spec.effect, dict(request.args), request.run, request.key, request.agent, request.attempt
        )
        self.outside.asked.append(asked)

        async def ask() -> Reply:
            await asyncio.sleep(LATENCY)
            reply = await self.inner.perform(request)
            asked.done = True
            return reply

        return await self.outside.trouble(self, request, ask)

    async def lookup(self, request: Request) -> Reply | None:
        """Whether it was done: nothing is broken here."""
        return await self.inner.lookup(request)


class StandIn:
    """A tool made from its contract alone: answers that fit it, and a memory of what was written under which key.

    It keeps what the contract promises: a write under a key that was used is not done again where the contract says so.
    """

    def __init__(self, spec: ToolSpec, outside: Outside) -> None:
        self.spec = spec
        self._outside = outside
        self._done: dict[str, Reply] = {}

    async def perform(self, request: Request) -> Reply:
        """An answer of the declared shape.

        Raises:
            WrongShape: the declared shape admits no value that the generator finds.
        """
        spec, args = self.spec, orjson.dumps(dict(request.args), option=orjson.OPT_SORT_KEYS)
        seed = hashlib.sha256(spec.name.encode() + b"\x1f" + args).hexdigest()
        value = None if spec.output_schema is None else rehearsed(spec.output_schema, seed)
        reply = Reply(value, spec.price)
        if spec.effect == "write":
            self._outside.load()  # another process may have written meanwhile
            name = self._name(request)
            if spec.idempotency == "none" and name in self._outside.made:
                name = f"{name}#{len(self._outside.made)}"
            self._outside.write(name, [spec.name, dict(request.args)])
        return reply

    async def lookup(self, request: Request) -> Reply | None:
        """The answer, if it was done."""
        if self._name(request) not in self._outside.made:
            return None
        value = None if self.spec.output_schema is None else rehearsed(self.spec.output_schema, "looked up")
        return Reply(value, FREE)

    def _name(self, request: Request) -> str:
        return f"{self.spec.name}\x1f{request.key}"
