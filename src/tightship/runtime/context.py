"""The shared context from outside of runs: people read and set it, sources push into it, programs follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from tightship.context import AgesProjection, ContextProjection, Declarations, Declared, Follower, Heads, Value
from tightship.context.counted import Counted, Stats, counted
from tightship.context.heads import Head, Place
from tightship.context.listing import Listing, listed
from tightship.core import kinds
from tightship.core.errors import ConflictingWrite, GuardRefused, InvalidArguments, NotDeclared, TightshipError
from tightship.core.ports import Json, Projection, Secrets
from tightship.core.world import World
from tightship.ledger import Draft, Expected, Guards, Ledger
from tightship.review.inbox import ANYBODY
from tightship.runtime.pushing import Push, delivery_claim, lost_to
from tightship.workflow.config import WorkspaceConfig
from tightship.workflow.context_keys import check_pattern

if TYPE_CHECKING:
    from tightship.runtime.feeding import Feeds, Tell

ROUNDS: Final = 20
_STANDING: Final = 10_000
"""Keys whose version this process remembers from its own last push."""


def context_projections() -> list[Projection]:
    """The tables of the shared context."""
    return [ContextProjection(), AgesProjection()]


class WorkspaceContext:
    """`Workspace.context`. It works beside a process that executes.

    Args:
        config: the workspace's settings: keys, feeds and roles. open: opens the ledger. world: the clock.
        secrets: gives the place where secrets come from.
    """

    def __init__(
        self,
        config: WorkspaceConfig,
        open: Callable[[], Awaitable[Ledger]],
        world: World,
        secrets: Callable[[], Secrets],
    ) -> None:
        self.declarations = Declarations(config.context)
        self._roles = config.roles
        self._feeds = config.feeds
        self._open = open
        self._world = world
        self._secrets = secrets
        self._standing: dict[Place, Head] = {}
        self._pushing: dict[Place, asyncio.Future[None]] = {}
        self._heads: Heads | None = None

    # --- reading ---------------------------------------------------------------------------------

    async def get(self, key: str, *, tenant: str = "default", workflow: str = "", run: str = "") -> Value:
        """A value as it stands, whatever its age; false, with version 0, when there is none.

        Args:
            key: a declared key. tenant, workflow, run: whose, as far as the key's scope needs it.

        Raises:
            UnknownName: no such key. InvalidArguments: its workflow or run is not named.
        """
        declared, place = self._place(key, tenant, workflow, run)
        heads = await self._read()
        head = (await heads.read([place]))[declared.scope(tenant, workflow, run), declared.key]
        return (await heads.values([head], self._world.clock.now()))[0]

    async def list(self, pattern: str = "") -> list[tuple[str, Value]]:
        """Every value with its scope, by key and scope; those whose keys match a pattern, where one is given.

        Raises:
            InvalidArguments: it is no pattern.
        """
        return (await self.page(pattern, limit=None)).values

    async def page(
        self, pattern: str = "", *, limit: int | None = 100, after: tuple[str, str] | None = None
    ) -> Listing:
        """Some of these values, and where the next page begins.

        However much is written, no more than `LOOKED` rows are read beside those that are given.

        Args:
            limit: how many at most; None for all. after: `next` of the page before.

        Raises:
            InvalidArguments: it is no pattern.
        """
        heads = await self._read()
        found, behind = await listed(heads.ledger, _pattern(pattern) if pattern else "", limit, after)
        values = await heads.values(found, self._world.clock.now())
        return Listing([(head.scope, value) for head, value in zip(found, values, strict=True)], behind)

    async def stats(self, key: str = "") -> list[Stats]:
        """What is counted of every key, or of one (a pattern is allowed)."""
        return (await self.counted(key, limit=None)).stats

    async def counted(self, key: str = "", *, limit: int | None = 100, after: tuple[str, str] | None = None) -> Counted:
        """What is counted of some of these keys, and where the next page begins; it reads as `page` does.

        Args:
            key: a key or a pattern; empty for all. limit: how many at most; None for all.
            after: `next` of the page before.

        Raises:
            InvalidArguments: it is no key and no pattern.
        """
        return await counted(await self._open(), _pattern(key) if key else "", limit, after)

    # --- following -------------------------------------------------------------------------------

    async def watch(
        self, key: str = "", *, tenant: str = "default", workflow: str = "", run: str = ""
    ) -> AsyncGenerator[Value]:
        """Each change of a key, or of all keys of a pattern, from now on: `async for value in ws.context.watch(key)`.

        Without a key: of all keys, in every scope.

        A reader who is slow is told the newest value and skips what was overwritten.
        """
        follower = await self.follow(key, tenant=tenant, workflow=workflow, run=run)
        async with follower.following(), aclosing(follower.changes()) as changes:
            async for value in changes:
                yield value

    async def follow(self, key: str = "", *, tenant: str = "default", workflow: str = "", run: str = "") -> Follower:
        """A local copy of a key, or of all keys of a pattern, which knows when it has heard nothing for 250 ms."""
        heads = await self._read()
        if not key:
            return Follower(heads, self._world.clock)
        pattern = _pattern(key)
        declared = self.declarations.of(pattern.replace("*", "_"))  # any one part stands for the star
        scope = declared.scope(tenant, workflow, run)
        return Follower(heads, self._world.clock, pattern, scope)

    # --- writing ---------------------------------------------------------------------------------

    async def set(
        self,
        key: str,
        value: Json,
        *,
        by: str,
        expect: int | None = None,
        tenant: str = "default",
        workflow: str = "",
        run: str = "",
    ) -> int:
        """A person writes a value; returns its version.

        Args:
            by: the person; one of the roles among the key's `writers` has to be theirs.
            expect: the version that it replaces; without it, whatever stands.

        Raises:
            NotDeclared: this person may not. InvalidArguments: type or size. ConflictingWrite: another version stands.
        """
        declared, place = self._place(key, tenant, workflow, run)
        role = self._role(declared, by)
        if role is None:
            await self._denied(place, by)
            raise NotDeclared(
                f"{by} holds no role that may write {key}",
                fix=f"let one of these write it: {', '.join(declared.spec.writers) or 'nobody'}",
            )
        declared.check_value(value)
        return await self._replace(declared, place, value, by, tenant, expect)

    async def push(
        self,
        key: str,
        value: Json,
        *,
        source: str,
        as_of: float,
        delivery: str = "",
        tenant: str = "default",
        workflow: str = "",
        run: str = "",
    ) -> int:
        """An outside system says what a value is now: the port of webhooks, change feeds and brokers.

        What comes out of order (an older `as_of` than what stands) is recorded as a conflict and changes nothing.

        Args:
            source: the system's identity, one of the key's `feeds`; whoever calls has authenticated it.
            as_of: the source's time, s since 1970.
            delivery: the source's own name for this push: one that was pushed before changes nothing.

        Returns: the version that stands now.

        Raises:
            NotDeclared: this source may not push it. InvalidArguments: type, size, or a time in the future.
        """
        declared, place = self._place(key, tenant, workflow, run)
        if source not in declared.spec.feeds:
            await self._denied(place, source)
            declared.check_feed(source)
        declared.check_value(value)
        declared.check_as_of(as_of, self._world.clock.now())
        heads = await self._ready(tenant)
        push = Push(heads, declared, place, value, source, as_of, tenant, delivery)
        before = self._pushing.get(place)
        mine = self._pushing[place] = asyncio.get_running_loop().create_future()
        try:
            if before is not None:
                await asyncio.wait({before})  # pushes of one key do not stand in each other's way
            return await self._pushed(heads, place, push)
        finally:
            mine.set_result(None)
            if self._pushing.get(place) is mine:
                del self._pushing[place]

    async def _pushed(self, heads: Heads, place: Place, push: Push) -> int:
        known = self._standing.pop(place, None)
        for _ in range(ROUNDS):
            found = await push.attempt(known or (await heads.read([place]))[place], certain=known is None)
            if found is not None:
                self._standing[place] = found
                if len(self._standing) > _STANDING:
                    del self._standing[next(iter(self._standing))]
                return found.version
            known = None
        raise ConflictingWrite(f"{place[1]} is written so often that no write finds its turn")

    async def refused(self, feed: str, tenant: str, delivery: str, error: TightshipError) -> None:
        """Note that a delivery was refused for what it says."""
        heads = await self._ready(tenant)
        body = {"type": "feed.refused", "feed": feed, "error": error.code}
        body["delivery"] = delivery_claim(heads.ledger, tenant, feed, delivery)
        await heads.ledger.append(Draft("", kinds.NOTE, "", body))

    def feeds(self, tell: Tell = lambda feed, event, text: None) -> Feeds:
        """The declared feeds, to be served (`tightship context listen` does).

        Args:
            tell: hears what happens: the feed, `connected`, `refused` or `waits`, and words.
        """
        from tightship.runtime.feeding import Feeds

        return Feeds(self, self._feeds, self._secrets(), self._world.clock, tell)

    async def _ready(self, tenant: str) -> Heads:
        """The heads, with the tenant's key in memory: sealing does not wait for it on the event loop."""
        heads = await self._read()
        await heads.ledger.own_keys(f"tenant:{tenant}")
        return heads

    async def _read(self) -> Heads:
        ledger = await self._open()
        if self._heads is None or self._heads.ledger is not ledger:
            self._heads = Heads(ledger)
            self._standing.clear()
        return self._heads

    async def _replace(
        self, declared: Declared, place: Place, value: Json, writer: str, tenant: str, expect: int | None
    ) -> int:
        heads = await self._ready(tenant)
        payload = heads.seal(tenant, value)
        for _ in range(ROUNDS):
            head = (await heads.read([place]))[place]
            if expect is not None and expect != head.version:
                body = lost_to(head, "expect", writer, expect, payload.address)
                await heads.ledger.append(Draft("", kinds.CONFLICT, "", body, payloads=(payload,)))
                raise ConflictingWrite(f"{place[1]} stands at version {head.version}, written by {head.writer}")
            draft = heads.draft(declared, place[0], payload, writer, base=head.version)
            try:
                guards = Guards(context=(Expected(*place, head.version),))
                return (await heads.ledger.append(draft, guards=guards))[0].n
            except GuardRefused:
                continue
        raise ConflictingWrite(f"{place[1]} is written so often that no write finds its turn")

    async def _denied(self, place: Place, who: str) -> None:
        """Who was not allowed to is counted."""
        body = {"type": "context.denied", "scope": place[0], "key": place[1], "by": who}
        await (await self._open()).append(Draft("", kinds.NOTE, "", body))

    def _role(self, declared: Declared, by: str) -> str | None:
        for name in declared.spec.writers:
            people = [one.strip().casefold() for one in self._roles.get(name, ())]
            if by.strip() and (by.strip().casefold() in people or ANYBODY in people):
                return name
        return None

    def _place(self, key: str, tenant: str, workflow: str, run: str) -> tuple[Declared, Place]:
        declared = self.declarations.of(key)
        return declared, (declared.scope(tenant, workflow, run), declared.key)


def _pattern(text: str) -> str:
    try:
        return check_pattern(text)
    except ValueError as error:
        raise InvalidArguments(str(error)) from None
