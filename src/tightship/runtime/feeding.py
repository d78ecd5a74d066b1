"""Feeds of the shared context: what a source delivers becomes writes under the source's name, once each.

A delivery is acknowledged when its write is durable. One that comes again finds its name claimed and changes nothing;
one that is refused is noted and not asked for again; while the store or the broker does not answer, nothing is lost.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tightship.context.feeds import Broker, Delivery, open_broker
from tightship.context.feeds.port import MAX_ID
from tightship.context.feeds.webhook import secret_bytes, verified
from tightship.context.values import seconds_of
from tightship.core.errors import (
    BoundaryError,
    ConflictingWrite,
    InputRejected,
    InvalidArguments,
    NotDeclared,
    TightshipError,
    UnknownName,
    WorkException,
)
from tightship.core.ports import Json, Secrets
from tightship.core.world import Clock
from tightship.runtime.context import WorkspaceContext
from tightship.workflow.context_feeds import FeedSpec, WebhookFeed

BATCH: Final = 256
"""Deliveries that are taken and acknowledged together."""
WAIT: Final = 1.0
"""Seconds for which a quiet broker is waited for at a time."""
PAUSES: Final = (0.2, 5.0)
"""The first and the longest pause (s) before what did not answer is tried again."""
Tell = Callable[[str, str, str], None]
"""Feed, event (`connected`, `refused`, `waits`) and words."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_REFUSED = (BoundaryError, UnknownName, WorkException, InputRejected)
"""What is wrong with a delivery itself, and would be again. ConflictingWrite is not: it found no turn."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What an event says: this value of that key, as of this time, under this name."""

    key: str
    value: Json
    as_of: float
    id: str


class Intake:
    """Turns one feed's deliveries into writes. The feed's name is the source's identity.

    Args:
        context: the shared context. feed: its name. spec: its declaration.
    """

    def __init__(self, context: WorkspaceContext, feed: str, spec: FeedSpec) -> None:
        self._context, self.feed, self.spec = context, feed, spec

    def read(self, delivery: Delivery) -> Pushed | None:
        """What a delivery says; None where the feed's `when` leaves it out.

        Raises:
            BoundaryError, WorkException: it is not what the feed declares.
        """
        spec = self.spec
        most, size = spec.max_bytes, len(delivery.data)
        if most is not None and size > most:
            raise InvalidArguments(
                f"a delivery of {self.feed} has {size:,} bytes, more than its {most:,}",
                fix=f"let its sender push a reference in its place, or raise `max_bytes:` of the feed {self.feed}",
            )
        names = {"event": delivery.event(), "at": delivery.at, "id": delivery.id}
        if spec.when is not None and not spec.when.evaluate(names):
            return None
        key, id = spec.key.evaluate(names), delivery.id if spec.id is None else spec.id.evaluate(names)
        if isinstance(id, int) and not isinstance(id, bool):
            id = str(id)
        if not isinstance(id, str) or not 0 < len(id) <= MAX_ID:
            raise InvalidArguments(f"the name of a delivery of {self.feed} is no text of 1 to {MAX_ID} characters")
        as_of = seconds_of(spec.as_of.evaluate(names), self.feed)
        return Pushed(key, spec.value.evaluate(names), as_of, id)

    async def take(self, delivery: Delivery) -> int | None:
        """Write what a delivery says; the version that stands now, or None where it says nothing.

        Raises:
            BoundaryError, UnknownName, WorkException: it was refused, and noted as that.
            StoreError, ConflictingWrite: it may be tried again.
        """
        try:
            pushed = self.read(delivery)
            return None if pushed is None else await self._write(pushed)
        except ConflictingWrite:
            raise
        except _REFUSED as error:
            if not isinstance(error, NotDeclared):  # that is noted with its key
                await self._context.refused(self.feed, self.spec.tenant, delivery.id, error)
            raise

    async def _write(self, pushed: Pushed) -> int:
        return await self._context.push(
            pushed.key,
            pushed.value,
            source=self.feed,
            as_of=pushed.as_of,
            delivery=pushed.id,
            tenant=self.spec.tenant,
            workflow=self.spec.workflow or "",
        )


class Feeds:
    """All feeds of a workspace.

    Args:
        context: the shared context. specs: the feeds. secrets: where `${NAME}` comes from. clock: time.
        tell: hears what happens to feeds.
    """

    def __init__(
        self,
        context: WorkspaceContext,
        specs: Mapping[str, FeedSpec],
        secrets: Secrets,
        clock: Clock,
        tell: Tell = lambda feed, event, text: None,
    ) -> None:
        self._intakes = {name: Intake(context, name, spec) for name, spec in specs.items()}
        self._secrets, self._clock, self._tell = secrets, clock, tell

    @property
    def webhooks(self) -> dict[str, FeedSpec]:
        """The feeds that come by webhook."""
        return {name: one.spec for name, one in self._intakes.items() if one.spec.webhook is not None}

    @property
    def pulled(self) -> list[str]:
        """The feeds that are asked: tables and brokers."""
        return [name for name, one in self._intakes.items() if one.spec.webhook is None]

    def check_secrets(self) -> None:
        """Before anything is served.

        Raises:
            UnknownName: a secret is not set. InputRejected: one can be guessed.
        """
        for name in self.webhooks:
            self._key(name)

    def _key(self, feed: str) -> bytes:
        """The key with which a feed signs, read when it is used."""
        webhook = self._intakes[feed].spec.webhook
        assert webhook is not None
        try:
            return secret_bytes(self._secrets.get(webhook.secret_name))
        except ValueError as error:
            raise InputRejected(
                f"the secret {webhook.secret_name} of the feed {feed} is no good: {error}",
                fix="openssl rand -base64 32, with the sender as well",
            ) from None

    # --- webhooks --------------------------------------------------------------------------------

    def bound(self, feed: str) -> int:
        """Bytes that a request to a feed may have; where there is no such webhook, as many as by default."""
        intake = self._intakes.get(feed)
        if intake is None or intake.spec.webhook is None:
            return int(WebhookFeed.model_fields["max_bytes"].default)
        return intake.spec.webhook.max_bytes

    def verify(self, feed: str, headers: Mapping[str, str], body: bytes) -> Delivery | None:
        """The delivery of a request, if its feed has signed it within its window; None otherwise.

        Raises:
            UnknownName, InputRejected: about the secret.
        """
        webhook = self._intakes[feed].spec.webhook if feed in self._intakes else None
        if webhook is None:
            return None
        return verified(self._key(feed), headers, body, self._clock.now(), webhook.window)

    async def take(self, feed: str, delivery: Delivery) -> int | None:
        """As `Intake.take`; what is refused is told."""
        try:
            return await self._intakes[feed].take(delivery)
        except _REFUSED as error:
            self._tell(feed, "refused", error.message)
            raise

    # --- brokers and change feeds -----------------------------------------------------------------

    async def follow(self) -> None:
        """Take what brokers and change feeds have, until cancelled."""
        await asyncio.gather(*(self.drain(name, functools.partial(self._open, name)) for name in self.pulled))

    async def drain(self, feed: str, open: Callable[[], Awaitable[Broker]]) -> None:
        """Take what one broker has, until cancelled; what does not answer is tried again.

        Raises:
            InputRejected, UnknownName: the declaration cannot be followed at all.
        """
        pause = PAUSES[0]
        while True:
            try:
                broker = await open()
                try:
                    self._tell(feed, "connected", "")
                    while True:
                        await self.take_some(feed, broker)
                        pause = PAUSES[0]
                finally:
                    await broker.close()
            except (InputRejected, UnknownName):
                raise
            except TightshipError as error:  # what was taken and not acknowledged comes again
                self._tell(feed, "waits", error.message)
                await self._clock.sleep(pause)
                pause = min(2 * pause, PAUSES[1])

    async def take_some(self, feed: str, broker: Broker, seconds: float = WAIT) -> int:
        """Take a batch, write it, acknowledge it; returns how many there were.

        Raises:
            StoreError, ConflictingWrite, Unavailable: those that are not acknowledged come again.
        """
        taken = await broker.take(BATCH, seconds)
        if not taken:
            return 0
        lanes: dict[object, list[Delivery]] = {}
        for delivery in taken:
            lanes.setdefault(self._lane(feed, delivery), []).append(delivery)
        done: list[Delivery] = []
        found = await asyncio.gather(
            *(self._in_order(feed, lane, done) for lane in lanes.values()), return_exceptions=True
        )
        if done:
            await broker.acknowledge(done)
        for error in found:
            if isinstance(error, BaseException):
                raise error
        return len(taken)

    def _lane(self, feed: str, delivery: Delivery) -> object:
        """What concerns one key is written in order; the rest side by side, and committed together."""
        try:
            pushed = self._intakes[feed].read(delivery)
        except _REFUSED:
            return None
        return None if pushed is None else str(pushed.key)

    async def _in_order(self, feed: str, deliveries: Sequence[Delivery], done: list[Delivery]) -> None:
        for delivery in deliveries:
            try:
                await self.take(feed, delivery)
            except ConflictingWrite:
                raise
            except _REFUSED:
                pass  # noted; it would be refused again
            done.append(delivery)

    async def _open(self, feed: str) -> Broker:
        spec = self._intakes[feed].spec
        if spec.postgres is not None:
            try:
                from tightship.context.feeds.changes import ChangeFeed

                return await ChangeFeed.open(self._expanded(spec.postgres.url), feed, spec.postgres)
            except ImportError as error:
                raise InputRejected(
                    f"the Postgres client cannot be imported: {error}", fix="pip install 'tightship[postgres]'"
                ) from None
        assert spec.broker is not None
        url = self._expanded(spec.broker.url)
        return await open_broker(url, spec.broker.stream, spec.broker.subject, spec.broker.group)

    def _expanded(self, url: str) -> str:
        """With secrets in place of `${NAME}`: as they are where one is the whole, else encoded for a URL."""

        def value(match: re.Match[str]) -> str:
            found = self._secrets.get(match[1])
            return found if match[0] == url else quote(found, safe="")

        return _VARIABLE.sub(value, url)
