"""Reads of the shared context: at one position, young enough, and from the source again where they are not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from tightship.context import Declared, Head, Value
from tightship.context.desk import SharedContext
from tightship.context.heads import Place
from tightship.context.values import seconds_of
from tightship.controls.budgets import Amount
from tightship.core import kinds
from tightship.core.errors import DataMissing, GuardRefused, NotDeclared, StaleContext
from tightship.core.ports import FREE, Json, Reply, Request, ToolSpec
from tightship.effects.call import Call
from tightship.effects.doubt import Doubt
from tightship.effects.journal import Body
from tightship.effects.session import Session
from tightship.ledger import Expected, Guards
from tightship.workflow.context_keys import matches

TRIES: Final = 4
"""How often a read goes to the source until what it has is young enough."""
PATIENCE: Final = 30.0
"""Seconds that a snapshot for an action waits for another action on the same values."""


class ContextTool:
    """Stands for an operation of the shared context where a tool is named: its name and nothing else."""

    def __init__(self, name: str) -> None:
        self._spec = ToolSpec(f"context.{name}")

    @property
    def spec(self) -> ToolSpec:
        """The contract."""
        return self._spec

    async def perform(self, request: Request) -> Reply:
        """The ledger is not outside.

        Raises:
            NotDeclared: always.
        """
        raise NotDeclared(f"{self._spec.name} is no tool", fix="use ctx.read, ctx.write, …")

    async def lookup(self, request: Request) -> Reply | None:
        """There is nothing to be found."""
        return None


READ, SNAPSHOT, WRITE = ContextTool("read"), ContextTool("snapshot"), ContextTool("write")


def local_call(tool: ContextTool, key: str, agent: str, args: Mapping[str, Json], turn: str = "", **more: Any) -> Call:
    """An operation as a call: free, and allowed by the key's access list alone."""
    return Call(key, tool, "context", agent, args, frozenset((tool.spec.name,)), turn=turn, **more)


class SharedReads(Doubt):
    """An operation of the shared context on its way through the door, and how it reads.

    Args:
        session: the run. call: the operation. perform: the door, for the tools that values are read from.
    """

    __slots__ = ("_perform", "_read")

    def __init__(self, session: Session, call: Call, perform: Callable[[Call], Awaitable[Json]]) -> None:
        super().__init__(session, call)
        self._perform = perform
        self._read: list[Body] = []

    @property
    def shared(self) -> SharedContext:
        """The workspace's shared context.

        Raises:
            NotDeclared: it has none.
        """
        found = self.session.shared.context
        if found is None:
            raise NotDeclared("this workspace declares no shared context", fix="add `context:` to tightship.yaml")
        return found

    @property
    def now(self) -> float:
        """Store time, s."""
        return self.session.shared.world.clock.now()

    def _settle_body(self, usage: Any, ms: float) -> Body:
        body = super()._settle_body(usage, ms)
        return body | {"context": self._read} if self._read else body

    def locate(self, key: Json) -> tuple[Declared, Place]:
        facts = self.session.facts
        declared = self.shared.declarations.of(key)
        among = self.call.args.get("among")
        if among is not None and not any(matches(pattern, declared.key) is not None for pattern in among):
            raise NotDeclared(
                f"{self.call.agent} does not declare the key {declared.key}",
                fix="name it in the agent's `reads:` or `writes:`",
            )
        place = (declared.scope(facts.tenant, facts.workflow, facts.id), declared.key)
        self._read.append({"scope": place[0], "key": place[1]})
        return declared, place

    # --- reading ---------------------------------------------------------------------------------

    async def read_all(self) -> Json:
        """One value, or several at one position; `gated` ones have no action under way."""
        args = self.call.args
        wanted = [self.locate(key) for key in args["keys"]]
        for declared, _ in wanted:
            declared.check_reader(self.call.agent)
        found = self._pinned(wanted) or await self._fresh(wanted, bool(args.get("gated")))
        if self.call.tool is READ and args.get("required", True) and not found[0]:
            raise DataMissing(
                f"nothing was written under {found[0].key}, or it has run out",
                needed=f"a value for {found[0].key}",
                fix="let one of its writers write it, or read it with required=False",
            )
        return await self._settle_read([value.to_json() for value in found])

    def _pinned(self, wanted: Sequence[tuple[Declared, Place]]) -> list[Value] | None:
        """What a gate's snapshot says, where the call lies below one that has all of it."""
        for prefix, snapshot in self.session.pins.items():
            if self.call.key.startswith(f"{prefix}/") and all(place in snapshot for _, place in wanted):
                now = self.now
                values = [snapshot[place] for _, place in wanted]
                aged = [replace(one, age=max(0.0, now - one.born)) if one else one for one in values]
                self._describe(wanted, aged)
                return aged
        return None

    def _describe(self, wanted: Sequence[tuple[Declared, Place]], values: Sequence[Value], **flags: set[Place]) -> None:
        """What the settle says about each value."""
        max_age = self.call.args.get("max_age")
        self._read = []
        for (_, place), value in zip(wanted, values, strict=True):
            told: Body = {"scope": place[0], "key": place[1], "version": value.version}
            if value:
                told["age"] = round(value.age * 1000)
            if max_age is not None:
                told["max_age"] = max_age
            told |= {name: True for name, places in flags.items() if place in places}
            self._read.append(told)

    async def _fresh(self, wanted: Sequence[tuple[Declared, Place]], gated: bool) -> list[Value]:
        """The values at one position, each young enough; what is not is read from its source again.

        Raises:
            StaleContext: it cannot be, or the source itself is behind. WorkException: the source failed.
        """
        places = [place for _, place in wanted]
        stale, refreshed = set[Place](), set[Place]()
        for number in range(1, TRIES + 1):
            heads = await self._quiet(wanted, places) if gated else await self.shared.heads.read(places)
            now = self.now
            old = [(d, heads[place]) for d, place in wanted if self._is_old(d, heads[place], now, gated)]
            stale |= {(head.scope, head.key) for _, head in old}
            if not old or not self.session.live:  # a rehearsal takes what is there and writes nothing
                values = await self.shared.heads.values([heads[place] for place in places], now)
                self._describe(wanted, values, stale=stale, refreshed=refreshed)
                return values
            for declared, head in old:
                if number == TRIES or not declared.spec.refreshes:
                    self._describe(wanted, await self.shared.heads.values(heads.values(), now), stale=stale)
                    raise self._too_old(declared, head, now)
                await self._refresh(declared, head)
                refreshed.add((head.scope, head.key))
        raise AssertionError("the loop returns or raises")

    def _limit(self, declared: Declared) -> float | None:
        """How old (s) the value of a key may be for this reader."""
        args = self.call.args
        asked = args.get("ages", {}).get(declared.key, args.get("max_age"))
        return declared.spec.max_age if asked is None else asked

    def _is_old(self, declared: Declared, head: Head, now: float, gated: bool) -> bool:
        if not head.holds(now):
            return declared.spec.refreshes
        limit = self._limit(declared)
        if limit is not None and now - head.born > limit:
            return True
        return gated and declared.spec.outside and not head.usable

    def _too_old(self, declared: Declared, head: Head, now: float) -> StaleContext:
        limit = self._limit(declared)
        if limit is not None and now - head.born > limit:
            said = f"{head.key} is {now - head.born:.3g} s old, and its reader accepts {limit:g} s"
        else:
            said = f"{head.key} was acted on since it was read"
        return StaleContext(
            said,
            needed=f"a newer value of {head.key}",
            evidence={"key": head.key, "version": head.version, "as_of": head.born, "writer": head.writer},
            fix=None if declared.spec.source else f"name a `source:` for {declared.pattern}, or write it more often",
        )

    async def _quiet(self, wanted: Sequence[tuple[Declared, Place]], places: Sequence[Place]) -> dict[Place, Head]:
        """The heads once no gated action is under way on what is outside.

        Raises:
            StaleContext: one is for too long.
        """
        outside = [place for declared, place in wanted if declared.spec.outside]
        clock, standing, waited, step = self.session.shared.world.clock, self.session.shared.standing, 0.0, 0.002
        while True:
            heads = await self.shared.heads.read(places)
            busy = [heads[place] for place in outside if heads[place].busy]
            if not busy:
                return heads
            if waited >= PATIENCE:
                raise StaleContext(
                    f"an action on {busy[0].key} has been under way for {waited:.0f} s",
                    needed="find out what became of it",
                )
            with standing.waits(self.session.facts.id):
                await clock.sleep(step)
            if not standing.kept_back:  # else it may be the action of one that is kept back here
                waited += step
            step = min(0.1, step * 1.5)

    async def _settle_read(self, outcome: Json) -> Json:
        journal, call = self.session.journal, self.call
        payload, data = journal.seal(outcome)
        body = self._settle_body(FREE, 0)
        body["out"] = payload.address
        label = self.session.shared.governance.label(call, Reply(outcome))
        if label.integrity:
            body["trust"] = int(label.integrity)
        await journal.go_ahead(kinds.SETTLED, call.key, body, (self.payload, payload))
        journal.saw(call.key, call.agent, self._read)
        return orjson.loads(data)  # its keys in the order in which a replay finds them

    # --- refreshing ------------------------------------------------------------------------------

    async def _refresh(self, declared: Declared, head: Head) -> None:
        """Read a value from its source: one does, whoever else wants it meanwhile waits for the same."""
        name = f"context\0{head.scope}\0{head.key}"
        async with self.session.shared.cache.flight(name) as flight:
            if flight.hit is None:
                flight.fill(str(await self._fetch(declared, head)), size=1, ttl=0)

    async def _fetch(self, declared: Declared, head: Head) -> int:
        session, call, source = self.session, self.call, declared.spec.source
        assert source is not None
        tool = session.tools.get(source.tool)
        if tool is None or tool.spec.effect != "read":
            raise NotDeclared(f"the source of {declared.pattern} is no reading tool: {source.tool!r}")
        names = {"key": head.key, "parts": list(declared.parts)}
        args = {name: expression.evaluate(names) for name, expression in source.with_.items()}
        number, base = 1, f"{call.key}/refresh/{head.key.replace('/', '.')}"
        while f"{base}/{number}" in session.journal.effects:  # what a crash has cut off was read too long ago
            number += 1
        since, asked = await self.shared.heads.ledger.head(session.journal.log), self.now
        price = tool.spec.price
        fetched = Call(
            f"{base}/{number}",
            tool,
            "read",
            call.agent,
            args,
            frozenset((source.tool,)),
            task=call.task,
            deadline=call.deadline,
            ceiling=Amount(price.usd, price.tokens),
            line=call.key,
            fresh=True,
        )
        result = {"result": await self._perform(fetched)}
        value = result["result"] if source.value is None else source.value.evaluate(result)
        as_of = asked if source.as_of is None else seconds_of(source.as_of.evaluate(result), declared.pattern)
        return await self._take(declared, head, value, min(as_of, asked), since, source.tool)

    async def _take(self, declared: Declared, head: Head, value: Json, as_of: float, since: int, source: str) -> int:
        """Write what the source has said, unless something as new is there already."""
        declared.check_value(value)
        journal, heads = self.session.journal, self.shared.heads
        payload = heads.seal(self.session.facts.tenant, value, journal.scope)
        place = (head.scope, head.key)
        while True:
            draft = heads.draft(
                declared,
                head.scope,
                payload,
                source,
                run=self.session.facts.id,
                key=f"{self.call.key}/refresh",
                epoch=journal.epoch,
                as_of=as_of,
                since=since,
            )
            guards = Guards(context=(Expected(*place, head.version),))
            try:
                return (await self.shared.heads.ledger.append(draft, guards=guards, log=journal.log))[0].n
            except GuardRefused:
                head = (await heads.read([place]))[place]
                if head.born >= as_of and head.since >= since:
                    return head.version
