"""Heads of the shared context in the ledger: reading them at one position, and the entries that move them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from tightship.context.declared import Declared
from tightship.context.values import Value
from tightship.core import kinds
from tightship.core.errors import PayloadErased
from tightship.core.ports import Json
from tightship.ledger import DEFAULT_LOG, Draft, Ledger, SealedPayload
from tightship.ledger.store import current
from tightship.ledger.vault import encode, names_of

Place = tuple[str, str]
"""Scope and key."""
_TOGETHER: Final = 1000
"""Keys that one selection asks for."""


@dataclass(frozen=True, slots=True)
class Head:
    """The row of a key: `version` 0 when nothing was written. Times are store time (s), 0 for none."""

    scope: str
    key: str
    version: int = 0
    at: float = 0.0
    as_of: float = 0.0
    ends: float = 0.0
    since: int = 0
    value: str = ""
    writer: str = ""
    run: str = ""
    sources: str = "[]"
    labels: str = "[]"
    busy: int = 0
    used: int = 0
    used_at: float = 0.0

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Head:
        """The head of a table's row."""
        return cls(**{name: row[name] for name in cls.__slots__})

    @property
    def born(self) -> float:
        """The time from which its age counts."""
        return self.as_of or self.at

    @property
    def usable(self) -> bool:
        """Whether a gated action may be decided on it: nothing is under way on it, or has settled since it was read."""
        row = {name: getattr(self, name) for name in ("since", "used", "as_of", "used_at")}
        return not self.busy and current(row)

    def holds(self, now: float) -> bool:
        """Whether there is a value whose time has not run out."""
        return self.version > 0 and (not self.ends or now < self.ends)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A selection that several wait for."""

    done: asyncio.Future[dict[Place, Head]]
    places: set[Place] = field(default_factory=set[Place])


class Heads:
    """The heads, as the ledger's projection has them."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._waiting: deque[_Reading] = deque()
        self._reader: asyncio.Task[None] | None = None

    async def read(self, places: Sequence[Place]) -> dict[Place, Head]:
        """The heads of these keys, all at one position: one selection sees one committed state.

        They all stand at the largest of their versions, since none of them has been written after its own. Who asks
        while another selection is under way is answered by the next one, together with all others who do.
        """
        if not self.ledger.in_threads:
            found = await self._select(places)
        else:
            if not self._waiting or len(self._waiting[-1].places) >= _TOGETHER:
                self._waiting.append(_Reading(asyncio.get_running_loop().create_future()))
            reading = self._waiting[-1]
            reading.places.update(places)
            if self._reader is None or self._reader.done():
                self._reader = asyncio.ensure_future(self._read_waiting())
            found = await asyncio.shield(reading.done)
        return {place: found.get(place) or Head(*place) for place in places}

    async def _read_waiting(self) -> None:
        while self._waiting:
            reading = self._waiting.popleft()
            try:
                reading.done.set_result(await self._select(reading.places))
            except Exception as error:
                reading.done.set_exception(error)
                reading.done.exception()  # whoever has asked may have gone
            except BaseException:
                reading.done.cancel()
                raise

    async def _select(self, places: Collection[Place]) -> dict[Place, Head]:
        keys = sorted({key for _, key in places})
        scopes = sorted({scope for scope, _ in places})
        rows = await self.ledger.select("context", [("scope", "in", scopes), ("key", "in", keys)])
        return {(row["scope"], row["key"]): Head.from_row(row) for row in rows}

    async def values(self, heads: Iterable[Head], now: float) -> list[Value]:
        """The heads with their values opened; what has run out or was erased is no value any more."""
        listed = list(heads)
        standing = [head.value for head in listed if head.holds(now)]
        opened = await self.ledger.values(standing, erased=_ERASED) if standing else {}
        return [self._value(head, opened, now) for head in listed]

    @staticmethod
    def _value(head: Head, opened: Mapping[str, Any], now: float) -> Value:
        if not head.holds(now) or opened[head.value] is _ERASED:
            return Value(head.key, None, 0, 0.0, None, "", "", 0.0)
        return Value(
            head.key,
            opened[head.value],
            head.version,
            head.at,
            head.as_of or None,
            head.writer,
            head.run,
            max(0.0, now - head.born),
            head.ends - head.at if head.ends else None,
            tuple(orjson.loads(head.sources)),
            tuple(orjson.loads(head.labels)),
        )

    async def at(self, place: Place, version: int, log: str = DEFAULT_LOG) -> Json:
        """The value that a key had at a version; None where there is none, or it was erased.

        Raises:
            KeyError: this key never had that version.
        """
        if version == 0:
            return None
        entries = await self.ledger.entries(version - 1, 1, log)
        body = entries[0].body if entries and entries[0].n == version and entries[0].kind == kinds.CONTEXT else {}
        if (body.get("scope"), body.get("key")) != place:
            raise KeyError(version)
        try:
            return await self.ledger.value(body["value"])
        except PayloadErased:
            return None

    def seal(self, tenant: str, value: Json, around: str = "") -> SealedPayload:
        """A value sealed with the tenant's key and those of the data subjects of the run that writes it.

        The run's own key is left out: the value outlives the run, and is erased with its subjects.
        """
        subjects = [name for name in names_of(around) if name.startswith("subject:")] if around else []
        vault = self.ledger.vault
        return vault.seal(vault.scope({f"tenant:{tenant}", *subjects}), encode(value))

    def draft(
        self,
        declared: Declared,
        scope: str,
        payload: SealedPayload,
        writer: str,
        *,
        run: str = "",
        key: str = "",
        epoch: int = 0,
        as_of: float | None = None,
        sources: Sequence[str | int] = (),
        base: int | None = None,
        since: int | None = None,
        claim: str = "",
    ) -> Draft:
        """The entry of a write."""
        body: dict[str, Any] = {"scope": scope, "key": declared.key, "value": payload.address, "writer": writer}
        if as_of is not None:
            body["as_of"] = as_of
        if sources:
            body["sources"] = list(sources)
        if declared.spec.ttl is not None:
            body["ttl"] = declared.spec.ttl
        if base is not None:
            body["base"] = base
        if since is not None:
            body["since"] = since
        if claim:
            body["claim"] = claim
        return Draft(run, kinds.CONTEXT, key, body, epoch, (payload,))


_ERASED: Any = object()
