"""An agent's hands on the shared context: read, snapshot, write, compare and set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tightship.context import Value
from tightship.core.errors import InvalidArguments
from tightship.core.ports import Json
from tightship.effects.call import Call
from tightship.effects.shared import READ, SNAPSHOT, WRITE, local_call
from tightship.workflow.units import parse_duration


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write.

    Attributes:
        version: the position of the value that stands now.
        end: `written`; after a conflict `overrode`, `merged`, or `asked` (a person decides; the other value stands
            until then); `rehearsed` where nothing is real.
        item: the inbox item of a person who was asked, or empty.
    """

    version: int
    end: str
    item: str = ""


class Snapshot(Mapping[str, Value]):
    """Values that stood together at one position of the ledger."""

    def __init__(self, values: Sequence[Value]) -> None:
        self._values = {value.key: value for value in values}

    @property
    def position(self) -> int:
        """The position: none of the values has changed between its own version and this."""
        return max((value.version for value in self._values.values()), default=0)

    def __getitem__(self, key: str) -> Value:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class SharedHands(ABC):
    """The part of an agent's context that works with the shared one."""

    __slots__ = ()

    @property
    @abstractmethod
    def turn(self) -> Any:
        """What this turn's contexts share."""

    @abstractmethod
    def next_key(self, what: str) -> str:
        """The key of this task's next effect of a kind."""

    @abstractmethod
    async def perform(self, call: Call) -> Json:
        """Bring a call to the door."""

    async def read(self, key: str, *, max_age: float | str | None = None, required: bool = True) -> Value:
        """A value of the shared context.

        Args:
            key: as declared in `context:` of tightship.yaml.
            max_age: how old it may be, in seconds or as `250ms`; without it as declared. Its age counts from the
                source's as-of time where there is one. What is older is read from its source again.
            required: whether it is an error that there is none; otherwise it comes with version 0, and is false.

        Raises:
            DataMissing: nothing was written, or it has run out. StaleContext: it is older, and no source is younger.
            NotDeclared: there is no such key, or this agent may not read it. WorkException: the source failed.
        """
        args: dict[str, Json] = {"keys": [key], **_max_age(max_age)}
        if not required:
            args["required"] = False
        return Value.from_json((await self._local(READ, args))[0])

    async def snapshot(self, keys: Sequence[str], *, max_age: float | str | None = None) -> Snapshot:
        """Several values as they stood together at one position; keys without a value come with version 0.

        Raises:
            as `read`.
        """
        args = {"keys": list(dict.fromkeys(keys)), **_max_age(max_age)}
        return Snapshot([Value.from_json(one) for one in await self._local(SNAPSHOT, args)])

    async def write(
        self, key: str, value: Json, *, as_of: float | datetime | None = None, sources: Sequence[str | int] = ()
    ) -> Written:
        """Write a value, based on the version that this turn has read (else its agent, else its run).

        Args:
            key: a key that names this agent among its `writers`.
            value: of the declared type.
            as_of: the source's time (s since 1970, or a datetime with a zone) of outside data.
            sources: versions and addresses that it was made from.

        Raises:
            ConflictingWrite: somebody else has written meanwhile, and the key's rule lets them win.
            NotDeclared: this agent may not write it. InvalidArguments: type, size or time are wrong.
        """
        return await self._write(key, value, as_of, sources)

    async def compare_and_set(
        self,
        key: str,
        value: Json,
        *,
        expect: int,
        as_of: float | datetime | None = None,
        sources: Sequence[str | int] = (),
    ) -> Written:
        """Write a value if the key stands at this version (0: nothing was written yet); no rule softens it.

        Raises:
            ConflictingWrite: it stands at another one. InvalidArguments: the key never had that version.
            as `write`.
        """
        if isinstance(expect, bool) or not isinstance(expect, int) or expect < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArguments(f"{expect!r} is no version", fix="expect a version that ctx.read gave, or 0")
        return await self._write(key, value, as_of, sources, expect=expect)

    async def read_among(self, key: str, among: Sequence[str], *, max_age: float | str | None = None) -> Value:
        """A value, where the key is among those of a declaration; with version 0 where there is none.

        Raises:
            as `read`, but for DataMissing.
        """
        args = {"keys": [key], "required": False, "among": list(among), **_max_age(max_age)}
        return Value.from_json((await self._local(READ, args))[0])

    async def set_among(self, key: str, among: Sequence[str], value: Json, *, expect: int) -> Written:
        """As `compare_and_set`, where the key is among those of a declaration."""
        return await self._write(key, value, None, (), expect=expect, among=list(among))

    async def _write(
        self, key: str, value: Json, as_of: float | datetime | None, sources: Sequence[str | int], **more: Json
    ) -> Written:
        args: dict[str, Json] = {"key": key, "value": value, **more}
        if as_of is not None:
            args["as_of"] = as_of.timestamp() if isinstance(as_of, datetime) else as_of
        if sources:
            args["sources"] = list(sources)
        done = await self._local(WRITE, args)
        return Written(done["version"], done["end"], done.get("item", ""))

    async def _local(self, tool: Any, args: Mapping[str, Json]) -> Any:
        turn, key = self.turn, self.next_key("context")
        call = local_call(tool, key, turn.agent, args, turn.key, deadline=turn.deadline, line=turn.line)
        call.task = f"agent:{turn.agent}"
        return await self.perform(call)


def _max_age(given: float | str | None) -> dict[str, Json]:
    if given is None:
        return {}
    try:
        return {"max_age": parse_duration(given)}
    except ValueError as error:
        raise InvalidArguments(f"max_age: {error}", fix="write seconds, or text such as 250ms") from None
