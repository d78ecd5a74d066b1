"""One run's side of the ledger: what it has recorded so far, and the appending of more under its epoch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from tightship.context.board import BOARD
from tightship.core import kinds
from tightship.core.errors import StaleOwner, StoreError, TightshipError
from tightship.core.ports import Json
from tightship.ledger import Draft, Entry, Guards, Ledger, Line, SealedPayload
from tightship.ledger.vault import ScopeKeys, encode

Body = dict[str, Any]
Listener = Callable[[str, str, Mapping[str, Any]], None]
MOST_AHEAD = 16
"""Entries of one run that may be on their way to the disk while it goes on."""


class Read(NamedTuple):
    """One value of the shared context, as an agent has read or written it; `max_age` (s) where it said one."""

    agent: str
    scope: str
    key: str
    version: int
    max_age: float | None = None


class Ahead(NamedTuple):
    """An entry that its run has gone on from; `lost` is called when it could not be written."""

    future: asyncio.Future[list[Entry]]
    body: Body
    lost: Callable[[], None] | None


class Journal:
    """What a run's entries say, indexed by key, and its pen.

    Attributes:
        effects: the final settle of each effect (attempts that were followed by another are not final).
        admitted: admits without a settle, with their store time: what a crash has left open.
        broken: why nothing more can be written.
        line: the order of its entries on their way to the disk.
        ahead: entries that the run has gone on from before they were on the disk, by kind and key.
        again: the last attempt of each effect that was to be tried again and has no final settle yet.
        turns, nodes, decided, notes: recorded outputs, decisions and notes by key.
        actions: settled writes, by key, with the positions at which they were settled.
        undone: keys of actions whose undo was settled.
        signals: the mailbox, in order of the log.
        by_hand: what a person did in place of a step, by the step's key. edits: changes of bound values, in order.
        anew: how often a step was to begin anew, by its key.
        reads: what was read and written of the shared context, by the key of the effect.
        written: the versions that were written, by the key of the effect.
        entries: all of them, in the order in which they were taken in.
        settled: every settle, failed attempts included: what the run has cost.
        listener: is told of each entry as it is appended, and of what others do to the run as it is taken in.
    """

    def __init__(self, ledger: Ledger, run: str, epoch: int, log: str, scope: str) -> None:
        self.ledger = ledger
        self.run, self.epoch, self.log, self.scope = run, epoch, log, scope
        self.effects: dict[str, Body] = {}
        self.admitted: dict[str, tuple[Body, float]] = {}
        self.again: dict[str, Body] = {}
        self.broken: TightshipError | None = None
        self.line = Line()
        self.ahead: dict[tuple[str, str], Ahead] = {}
        self.turns: dict[str, Body] = {}
        self.nodes: dict[str, Body] = {}
        self.decided: dict[str, Json] = {}
        self.notes: dict[str, Body] = {}
        self.opened: dict[str, Body] = {}
        self.closed: dict[str, Body] = {}
        self.extended: list[Body] = []
        self.granted: set[str] = set()
        self.actions: dict[str, int] = {}
        self.undone: dict[str, str] = {}
        self.reads: dict[str, list[Read]] = {}
        self.written: dict[str, int] = {}
        self.signals: list[Entry] = []
        self.by_hand: dict[str, Body] = {}
        self.edits: list[Entry] = []
        self.anew: dict[str, int] = {}
        self.settled: list[Body] = []
        self.entries: list[Entry] = []
        self.seconds = 0.0
        self.listener: Listener | None = None
        self._sealed: dict[str, tuple[str, bytes | None]] = {}
        self._lost: ScopeKeys | None = None

    # --- replaying -------------------------------------------------------------------------------

    def load(self, entries: Iterable[Entry], sealed: Mapping[str, tuple[str, bytes | None]]) -> None:
        """Take in a run's entries; `sealed` holds the payloads that a replay may ask for."""
        self._sealed.update(sealed)
        for entry in entries:
            self.index(entry)

    def index(self, entry: Entry) -> None:
        """Take in one entry."""
        self.entries.append(entry)
        kind, key, body = entry.kind, entry.key, entry.body
        if kind == kinds.SETTLED and body.get("cls") == "context":
            self._index_shared(key, body)
        elif kind == kinds.SETTLED:
            self._index_settled(key, body, entry.n)
        elif kind == kinds.ADMITTED:
            self.admitted[key] = (body, entry.at)
        elif kind == kinds.TURN:
            self.turns[key] = body
        elif kind == kinds.NODE:
            self.nodes[key] = body
        elif kind == kinds.DECIDED:
            self.decided[key] = body.get("value")
        elif kind == kinds.NOTE:
            self.notes[key] = body
        elif kind == kinds.SIGNAL:
            self._index_signal(entry)
        elif kind == kinds.CONTEXT:
            self._index_written(entry)
        elif kind == kinds.PARKED:
            self.seconds += body.get("seconds", 0.0)
        else:
            self._index_people(kind, key, body)
        if self.listener is not None and kind in (kinds.SIGNAL, kinds.CLOSED):
            self.listener(kind, key, body)

    def _index_written(self, entry: Entry) -> None:
        body = entry.body
        if body["scope"].startswith(BOARD):
            return  # nobody decides on a board's heads but the board itself
        if "since" not in body and entry.epoch:  # a refresh is nobody's write, and a person's is no effect of the run
            self.written[entry.key] = entry.n
            self.reads.setdefault(entry.key, [Read(body["writer"], body["scope"], body["key"], entry.n)])

    def _index_people(self, kind: str, key: str, body: Body) -> None:
        if kind == kinds.OPENED and "detached" not in body:  # what the run does not wait for outlives it
            self.opened[body["item"]] = body
        elif kind == kinds.CLOSED:
            self.closed.setdefault(body["item"], body)
        elif kind == kinds.EXTENDED:
            self.extended.append(body)
            self.granted.add(key)

    def saw(self, key: str, agent: str, reads: Iterable[Mapping[str, Any]]) -> None:
        """Remember what an effect has read of the shared context."""
        if key not in self.reads:
            found = [one for one in reads if "version" in one]
            self.reads[key] = [
                Read(agent, one["scope"], one["key"], one["version"], one.get("max_age")) for one in found
            ]

    def gate_of(self, key: str) -> list[list[Any]]:
        """The values of the shared context on which an admitted action is based alone."""
        admitted = self.admitted.get(key)
        body = admitted[0] if admitted is not None else self.again.get(key, {})
        return body.get("gate", [])

    def _index_shared(self, key: str, body: Body) -> None:
        """The settle of an operation of the shared context: nothing was admitted."""
        self.effects[key] = body
        if "copied" not in body:
            self.settled.append(body)
        self.saw(key, body["agent"], body.get("context", ()))
        if "wrote" in body:  # taken over by a fork
            self.written[key] = body["wrote"]

    def _index_signal(self, entry: Entry) -> None:
        self.signals.append(entry)
        body = entry.body
        if body["type"] == "do":
            self.by_hand.setdefault(body["key"], body)
        elif body["type"] == "edit":
            self.edits.append(entry)
        for key in body.get("again", ()):
            self.anew[key] = self.anew.get(key, 0) + 1

    def begun_before(self, key: str, n: int) -> bool:
        """Whether anything was recorded at or below a key before a position."""
        below = f"{key}/"
        return any(entry.n < n and (entry.key == key or entry.key.startswith(below)) for entry in self.entries)

    def _index_settled(self, key: str, body: Body, n: int) -> None:
        opened = self.admitted.pop(key, None)
        if "copied" not in body:  # what a fork has taken over cost another run
            self.settled.append(body)
        if body.get("again"):
            self.again[key] = body if opened is None else {**opened[0], **body}
            return
        begun = self.again.pop(key, None)
        self.effects[key] = body
        if opened is None and begun is not None and begun.get("not_after"):
            opened = (begun, 0.0)  # found out after all, with no further attempt
        if opened is None:
            return
        admit = opened[0]
        for name in ("args", "said", "after", "replied"):  # written once, with the admit
            if name in admit:
                body.setdefault(name, admit[name])
        if "out" not in body:
            return
        if admit["cls"] == "write":
            self.actions[key] = n
            if "undo" in admit:
                body["undo"] = admit["undo"]
            if "claim" in admit:
                body["claim"] = admit["claim"]
        elif admit["cls"] == "undo":
            self.undone[admit["undoes"]] = key

    def needed(self, entries: Iterable[Entry]) -> list[str]:
        """Addresses of the payloads that a replay of these entries may ask for."""
        found: list[str] = []
        for entry in entries:
            if entry.kind in (kinds.SETTLED, kinds.TURN, kinds.NODE, kinds.STARTED):
                found.extend(entry.body[name] for name in ("out", "input") if entry.body.get(name))
            elif entry.kind == kinds.ADMITTED and entry.body["cls"] in ("write", "undo"):
                found.append(entry.body["args"])
            elif entry.kind == kinds.SIGNAL and entry.body.get("value"):
                found.append(entry.body["value"])
        return found

    def unfinished(self) -> list[tuple[str, Body]]:
        """Effects that were begun and have no final settle, with what was admitted: of those that cost or write.

        One whose settle is on its way to the disk is finished: the run has gone on from it.
        """
        open_ = {key: body for key, body in self.again.items() if "not_after" in body}
        open_ |= {key: body for key, (body, _) in self.admitted.items() if key not in open_}
        return [(key, body) for key, body in open_.items() if (kinds.SETTLED, key) not in self.ahead]

    def costs(self) -> list[Body]:
        """Every settle, those on their way to the disk included."""
        return [*self.settled, *(one.body for (kind, _), one in self.ahead.items() if kind == kinds.SETTLED)]

    # --- values ----------------------------------------------------------------------------------

    async def value(self, address: str) -> Json:
        """Open a payload of this run."""
        if address in self._sealed:
            return self.ledger.unseal(address, self._sealed)
        return await self.ledger.value(address)

    def seal(self, value: Json) -> tuple[SealedPayload, bytes]:
        """Seal a value for this run; returns it with its canonical bytes.

        Raises:
            PayloadTooLarge: over the limit. TypeError: no JSON.
        """
        data = encode(value)
        return self.seal_data(data), data

    def seal_data(self, data: bytes) -> SealedPayload:
        """Seal canonical bytes for this run."""
        return self.ledger.vault.seal(self.scope, data, keys=self._lost)

    def lose(self) -> None:
        """A key of the scope is being destroyed: what is sealed from now on can be read by nobody either."""
        self._lost = self.ledger.vault.lost(self.scope)

    def rescope(self, scope: str) -> None:
        """Seal in another scope from now on."""
        self.scope, self._lost = scope, None

    # --- writing ---------------------------------------------------------------------------------

    def append(
        self,
        kind: str,
        key: str,
        body: Body,
        payloads: tuple[SealedPayload, ...] = (),
        guards: Guards | None = None,
    ) -> asyncio.Future[list[Entry]]:
        """Append an entry under this run's epoch, without taking it in.

        After a failure of the store nothing more is written: what an agent would do in the belief that an effect has
        failed might be wrong. The run stays as its ledger says.

        Raises (through the future, or at once after an earlier failure):
            StaleOwner: the run has another owner now. GuardRefused: a guard did not hold. StoreError: the disk.
        """
        if self.broken is not None:
            raise self.broken
        if self.listener is not None:
            self.listener(kind, key, body)
        draft = Draft(self.run, kind, key, body, self.epoch, payloads)
        return self.ledger.append(draft, guards=guards, log=self.log, line=self.line)

    async def record(
        self,
        kind: str,
        key: str,
        body: Body,
        payloads: tuple[SealedPayload, ...] = (),
        guards: Guards | None = None,
    ) -> None:
        """Append an entry and take it in, also when whoever asked for it is cut off meanwhile.

        Raises:
            as `append`; CancelledError once the outcome is known.
        """
        future = self.append(kind, key, body, payloads, guards)
        try:
            await future
        finally:
            self._take_in(future)

    async def record_all(self, *drafts: Draft, guards: Guards | None = None) -> list[Entry]:
        """Append several entries together and take them in.

        Raises:
            as `record`.
        """
        if self.broken is not None:
            raise self.broken
        future = self.ledger.append(*drafts, guards=guards, log=self.log, line=self.line)
        try:
            entries = await future
        finally:
            self._take_in(future)
        if self.listener is not None:
            for draft in drafts:
                self.listener(draft.kind, draft.key, draft.body)
        return entries

    async def go_ahead(
        self,
        kind: str,
        key: str,
        body: Body,
        payloads: tuple[SealedPayload, ...] = (),
        lost: Callable[[], None] | None = None,
    ) -> None:
        """Append what happened inside the run, and go on before it is on the disk.

        Nobody outside can tell the difference: whatever leaves the run (an admitted call, a park, an end) is appended
        later, one writer commits in the order of appending, and it is waited for. A process that dies loses no more
        than otherwise, since the entry is on its way as early. After a failure nothing more can be appended; `lost` is
        called when it was this entry that could not.

        Source: external synchrony (E. B. Nightingale et al., "Rethink the Sync", OSDI 2006).

        Raises:
            as `append`, when an earlier one has failed.
        """
        try:
            future = self.append(kind, key, body, payloads)
        except TightshipError:
            if lost is not None:
                lost()
            raise
        self.ahead[kind, key] = Ahead(future, body, lost)
        future.add_done_callback(self._catch_up)
        if len(self.ahead) > MOST_AHEAD:
            await asyncio.wait([next(iter(self.ahead.values())).future])

    def _catch_up(self, _: asyncio.Future[list[Entry]]) -> None:
        """Take in what has come to the disk, in the order of appending."""
        for name, one in list(self.ahead.items()):
            if not one.future.done():
                return
            del self.ahead[name]
            self._take_in(one.future)
            error = one.future.exception()
            if isinstance(error, TightshipError):
                self.broken = error
                if one.lost is not None:
                    one.lost()

    async def landed(self, kind: str, key: str) -> None:
        """Wait for an entry that the run has gone on from.

        Raises:
            the error, when it could not be appended.
        """
        one = self.ahead.get((kind, key))
        if one is not None:
            await one.future
            self._catch_up(one.future)

    async def landed_below(self, key: str) -> None:
        """Wait for what the run has gone on from below a key: from then on its actions are all known.

        Raises:
            as `drain`.
        """
        names = list(self.ahead)
        below = [number for number, (_, at) in enumerate(names) if at.startswith(f"{key}/")]
        if below:  # they come to the disk in this order
            waited = [self.ahead[name][0] for name in names[: below[-1] + 1]]
            await asyncio.wait(waited)
            self._catch_up(waited[-1])
        if self.broken is not None:
            raise self.broken

    async def drain(self) -> None:
        """Wait for all of them.

        Raises:
            what has kept an entry from the disk: the run must not end or park as if it were there.
        """
        while self.ahead:
            await asyncio.wait([one.future for one in self.ahead.values()])
        if self.broken is not None:
            raise self.broken

    def _take_in(self, future: asyncio.Future[list[Entry]]) -> None:
        if not future.done():  # the event loop is being thrown away under us
            return
        error = future.exception()
        if error is None:
            for entry in future.result():
                self.index(entry)
        elif isinstance(error, (StoreError, StaleOwner)):
            self.broken = error

    async def decide(self, key: str, value: Json) -> Json:
        """Record a decision; what comes back is what a replay will give."""
        if key in self.decided:
            return self.decided[key]
        await self.record(kinds.DECIDED, key, {"value": value})
        return orjson.loads(orjson.dumps(value))
