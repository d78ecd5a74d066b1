"""Outside systems are told what waits for people: at least once, under one name, until it arrives or time is over.

The ledger is the truth. What is to be told follows from the inbox; each attempt is an entry before it is sent, which
says when the next may begin, and another with what came of it. So the back-off survives a crash, is the same on every
store and for any number of workers, and whoever dies between sending and recording has the same name sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx2

from tightship.context.feeds.webhook import secret_bytes, sign
from tightship.core import kinds
from tightship.core.errors import GuardRefused, TightshipError
from tightship.core.ports import Secrets
from tightship.ledger import DEFAULT_LOG, Draft, Guards, Ledger
from tightship.review.inbox import InboxItem
from tightship.review.notices import UNFINISHED, events, message, pause, webhook_id
from tightship.workflow.notify import Notify, NotifyWebhook, refused_url

AT_ONCE: Final = 4
"""Requests to one target that are under way at a time; a slow one delays no other target."""
MANY: Final = 500
"""Deliveries of one target that this process has in hand."""
OVERLAP: Final = 60.0
"""Seconds before the last look that are looked at again."""

Row = Mapping[str, Any]
_NEW: Final[Row] = {"state": "failed", "next": 0.0, "attempts": 0, "why": ""}
Name = tuple[str, str, str]
"""Target, item, event."""


def due(target: str, now: float) -> list[tuple[str, str, Any]]:
    """The conditions for what a target is to be told by now (s).

    One `=` on the target would have SQLite look through all that it was ever told, in place of what is unfinished.
    """
    return [("target", "in", [target]), ("state", "in", UNFINISHED), ("next", "<=", now)]


class Deliveries:
    """Tells the targets of a workspace. Closed with `close`.

    Args:
        ledger: where the inbox is. targets: what `notify:` says. secrets: gives the place where secrets come from.
    """

    def __init__(self, ledger: Ledger, targets: Mapping[str, Notify], secrets: Callable[[], Secrets]) -> None:
        self._ledger, self.targets, self._secrets = ledger, targets, secrets
        self._clock = ledger.world.clock
        self._places = {name: asyncio.Semaphore(AT_ONCE) for name in targets}
        self._looked: dict[str, float] = {}
        """Up to when what has been opened was taken in hand, by target (s)."""
        self._failed: set[str] = set()
        """Targets of which something was not begun: it is found by looking through all once more."""
        self._in_hand: dict[Name, asyncio.Task[None]] = {}
        self._client: httpx2.AsyncClient | None = None

    async def look(self) -> None:
        """Take in hand what is due. Nothing is waited for but the store: requests are made beside it."""
        if self._client is None:
            self._client = await self._ledger.off_loop(self._open)  # reads certificates
        for target, spec in self.targets.items():
            await self._look(target, spec)

    async def close(self) -> None:
        """End it; what is under way is sent again later."""
        tasks = list(self._in_hand.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None and self._ledger.world.transport is None:  # the world's own is others' too
            await self._client.aclose()
        self._client = None

    # --- what is due -----------------------------------------------------------------------------

    async def _look(self, target: str, spec: Notify) -> None:
        now = self._clock.now()
        room = MANY - sum(name[0] == target for name in self._in_hand)
        for row in await self._ledger.select("deliveries", due(target, now), [("next", "asc")], max(room, 1)):
            room -= self._take((target, row["item"], row["event"]), spec, row["since"])
        since = self._looked.get(target)
        if since is None or target in self._failed:
            self._failed.discard(target)  # first: what fails during this look is for the next one
            since = await self._first_seen(target, spec, now)
        upto = now - OVERLAP
        for name, at in sorted((await self._new(target, spec, since)).items(), key=lambda one: one[1]):
            if room <= 0:
                upto = min(upto, at)
                break
            room -= self._take(name, spec, at)
        self._looked[target] = max(since, upto)

    async def _first_seen(self, target: str, spec: Notify, now: float) -> float:
        """From when on a target is told: not of what had waited for longer than `within` when it was declared."""
        rows = await self._ledger.select("deliveries", [("target", "=", target), ("item", "=", "")])
        if rows:
            return float(rows[0]["since"])
        body = {"target": target, "item": "", "event": "", "state": "declared", "since": now - spec.within}
        with contextlib.suppress(GuardRefused):  # another worker was first
            await self._ledger.append(
                Draft("", kinds.DELIVERY, target, body), guards=Guards(delivers=(target, "", "", 0))
            )
        return now - spec.within

    async def _new(self, target: str, spec: Notify, since: float) -> dict[Name, float]:
        """What is to be told of open items that have come since then, and was not begun."""
        rows: dict[str, Row] = {}
        for column in ("opened_at", "noticed_at"):  # a worker of an earlier version does not write the latter
            where: list[tuple[str, str, Any]] = [("state", "=", "open"), (column, ">=", since)]
            where += [("role", "in", spec.roles)] if spec.roles else []
            rows |= {row["item"]: row for row in await self._ledger.select("inbox", where)}
        found = {
            (target, item, event): at
            for item, row in rows.items()
            for event, at in events(row, spec.on, spec.roles).items()
        }
        begun = await self._chunks("deliveries", "item", {name[1] for name in found}, [("target", "=", target)])
        for row in begun:
            found.pop((target, row["item"], row["event"]), None)
        runs = await self._chunks("runs", "id", {rows[name[1]]["run"] for name in found}, [("live", "=", 0)])
        rehearsed = {row["id"] for row in runs}
        return {name: at for name, at in found.items() if rows[name[1]]["run"] not in rehearsed}

    async def _chunks(
        self, table: str, column: str, values: set[str], where: Sequence[tuple[str, str, Any]]
    ) -> list[Row]:
        listed, found = sorted(values), list[Row]()
        for start in range(0, len(listed), 500):
            found += await self._ledger.select(table, [*where, (column, "in", listed[start : start + 500])])
        return found

    def _take(self, name: Name, spec: Notify, since: float) -> bool:
        if name in self._in_hand:
            return False
        task = self._in_hand[name] = asyncio.ensure_future(self._hold(name, spec, since))
        task.add_done_callback(lambda _: self._in_hand.pop(name, None))
        return True

    async def _hold(self, name: Name, spec: Notify, since: float) -> None:
        try:
            async with self._places[name[0]]:
                await self._deliver(name, spec, since)
        except Exception as error:  # its defect, or the store's, ends neither the others nor the worker
            self._failed.add(name[0])
            what = error if isinstance(error, TightshipError) else type(error).__name__
            logging.getLogger(__name__).warning("%s is told of %s later: %s", name[0], name[1], what)

    # --- one delivery ----------------------------------------------------------------------------

    async def _deliver(self, name: Name, spec: Notify, since: float) -> None:
        """Begin the next attempt, make it, and record what came of it."""
        rows = await self._ledger.select("inbox", [("item", "=", name[1])])
        item = InboxItem.from_row(rows[0])
        columns = zip(("target", "item", "event"), ("=", "=", "="), name, strict=True)
        [row] = await self._ledger.select("deliveries", list(columns)) or [_NEW]
        now = self._clock.now()
        if row["state"] not in UNFINISHED or row["next"] > now:
            return
        before, attempt = row["attempts"], row["attempts"] + 1
        if not item.open:
            await self._record(name, item, {"state": "withdrawn"}, before)
            return
        lease = now + 2 * spec.webhook.timeout  # nobody else begins the next while this may be under way
        begun = {"state": "sending", "attempt": attempt, "since": since, "next": lease, "why": row["why"]}
        if not await self._record(name, item, begun, before):
            return
        [run] = await self._ledger.select("runs", [("id", "=", item.run)]) or [{}]
        why = await self._send(spec.webhook, webhook_id(*name), message(item, name[2], run, since))
        if not why:
            await self._record(name, item, {"state": "delivered"}, None)
            return
        again = self._clock.now() + pause(attempt)
        if again <= since + spec.within:
            await self._record(name, item, {"state": "failed", "next": again, "why": why}, attempt)
        elif await self._record(name, item, {"state": "given up", "why": why}, attempt):
            text = "%s was not told of %s within %g s (%d attempts): %s"
            logging.getLogger(__name__).warning(text, name[0], name[1], spec.within, attempt, why)

    async def _record(self, name: Name, item: InboxItem, body: dict[str, Any], attempts: int | None) -> bool:
        """Append where it stands; whether nobody else was at it meanwhile (what has arrived is recorded anyway)."""
        guards = None if attempts is None else Guards(delivers=(*name, attempts))
        named = dict(zip(("target", "item", "event"), name, strict=True))
        draft = Draft(item.run, kinds.DELIVERY, "", {**named, **body})
        try:
            await self._ledger.append(draft, guards=guards, log=item.log or DEFAULT_LOG)
        except GuardRefused:
            return False
        return True

    # --- the request -----------------------------------------------------------------------------

    def _open(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=self._ledger.world.transport,
            limits=httpx2.Limits(max_connections=AT_ONCE * len(self.targets), max_keepalive_connections=0),
            trust_env=False,
            follow_redirects=False,
        )

    async def _send(self, webhook: NotifyWebhook, id: str, body: bytes) -> str:
        """Why it did not arrive, without a word of the URL, the secret or the answer; empty when it did."""
        secrets = self._secrets()
        try:
            url = secrets.get(webhook.url_name) if webhook.url_name else webhook.url
            key = secret_bytes(secrets.get(webhook.secret_name))
        except TightshipError:
            return f"{webhook.url_name + ' or ' if webhook.url_name else ''}{webhook.secret_name} is not set"
        except ValueError as error:
            return f"{webhook.secret_name} is no good: {error}"
        if why := refused_url(url, webhook.insecure_http):
            return f"nothing is sent to the URL: {why}"
        headers = {"content-type": "application/json", "user-agent": "tightship"}
        headers |= sign(key, id, int(self._clock.now()), body)
        return await self._exchange(url, headers, body, webhook.timeout)

    async def _exchange(self, url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> str:
        assert self._client is not None
        try:
            async with asyncio.timeout(seconds):
                async with self._client.stream("POST", url, content=body, headers=headers, timeout=seconds) as answer:
                    status = answer.status_code  # its body is not read
        except (TimeoutError, httpx2.TimeoutException):
            return f"no answer within {seconds:g} s"
        except Exception as error:  # whatever breaks an exchange: its text may hold the URL
            return type(error).__name__
        finally:
            self._client.cookies.clear()
        return "" if 200 <= status < 300 else f"answered {status}"
