"""What `tightship context listen` serves: signed webhooks over HTTP, and whoever is followed beside them."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from tightship.cli._http import address, is_loopback, listening, serve_until
from tightship.cli._shell import Shell
from tightship.core.errors import (
    BoundaryError,
    ConflictingWrite,
    InputRejected,
    NotDeclared,
    StoreError,
    TightshipError,
    UnknownName,
    WorkException,
)

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from tightship.context.feeds import Delivery
    from tightship.ledger import Ledger
    from tightship.runtime.feeding import Feeds

CONNECTIONS: Final = 256
BODY_SECONDS: Final = 10.0
"""How long a request may take to send its body."""
PLACE: Final = "127.0.0.1:8788"
"""Where webhooks come in when nothing else is said."""
_FRESH: Final = 1.0
"""Seconds for which one look at the store answers all who ask for its health."""


async def listen(shell: Shell, place: str, behind_tls: bool) -> None:
    """Take what the feeds push until told to stop.

    Args:
        place: where webhooks come in, and who asks for its health; empty where nothing is said.
        behind_tls: TLS ends in front of it.

    Raises:
        InputRejected: other machines reach the place, and what they send would go in the clear.
    """
    from tightship.cli._open import open_leniently
    from tightship.cli._work import stoppable

    host, port = address(place or PLACE)
    if not behind_tls and not is_loopback(host):
        raise InputRejected(
            f"{host} can be reached from other machines, and what they push would go over the network in the clear",
            where="--listen",
            fix="listen on 127.0.0.1 behind a proxy with TLS; where TLS ends in front of this process on another"
            " machine, say so with --behind-tls",
        )
    stop = asyncio.Event()
    workspace = open_leniently(shell.folder)
    try:
        feeds = workspace.context.feeds(lambda feed, event, text: _tell(shell, feed, event, text))
        if not workspace.files.config.feeds:
            raise InputRejected("there is no feed to listen to", fix="declare one under `feeds:` in tightship.yaml")
        feeds.check_secrets()
        ledger = await workspace.ledger()
        await ledger.poll()
        app = build_app(feeds, Health(ledger)) if place or feeds.webhooks else None
        async with stoppable(shell, stop, quiet=True):
            await _until(shell, stop, feeds, app, host, port)
    finally:
        await workspace.close()
    shell.line({"event": "stopped"})
    shell.say("stopped")


async def _until(shell: Shell, stop: asyncio.Event, feeds: Feeds, app: Starlette | None, host: str, port: int) -> None:
    following = asyncio.ensure_future(feeds.follow())
    stopped = asyncio.ensure_future(stop.wait())
    following.add_done_callback(lambda _: stop.set() if feeds.pulled else None)
    try:
        if app is not None:
            with listening(host, port) as listener:
                name = f"[{host}]" if ":" in host else host
                url = f"http://{name}:{listener.getsockname()[1]}"
                _ready(shell, feeds, url)
                await serve_until(stop, app, listener, CONNECTIONS)
        else:
            _ready(shell, feeds, "")
            await stopped
    finally:
        stopped.cancel()
        following.cancel()
        await asyncio.wait({following, stopped})
    if not following.cancelled() and (error := following.exception()) is not None:
        raise error


def _ready(shell: Shell, feeds: Feeds, url: str) -> None:
    shell.line({"event": "ready", "url": url, "webhooks": sorted(feeds.webhooks), "pid": os.getpid()})
    for feed in sorted(feeds.webhooks):
        shell.say(f"POST {url}/context/{feed} takes what {feed} signs")
    for feed in sorted(feeds.pulled):
        shell.say(f"{feed} is followed")
    shell.say("Ctrl-C ends it")


def _tell(shell: Shell, feed: str, event: str, text: str) -> None:
    shell.line({"event": event, "feed": feed, "text": text})
    shell.note(f"{feed}: {event}{f': {text}' if text else ''}")


# --- HTTP --------------------------------------------------------------------------------------------


class Health:
    """Whether the store can be read: one look for all who ask within a second."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = asyncio.Lock()
        self._last: tuple[float, bool] | None = None

    async def good(self) -> bool:
        """Look, unless somebody just has."""
        now = asyncio.get_running_loop().time
        async with self._lock:
            if self._last is None or now() - self._last[0] >= _FRESH:
                try:
                    await self._ledger.select("context", limit=1)
                except TightshipError:  # its words are for the log of whoever runs this, not for the network
                    self._last = (now(), False)
                else:
                    self._last = (now(), True)
            return self._last[1]


def build_app(feeds: Feeds, health: Health) -> Starlette:
    """`POST /context/FEED`, and `/healthz` for whoever starts and stops this process.

    Whoever has not signed is told nothing, not even whether there is such a feed.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route

    async def take(request: Request) -> Response:
        feed = request.path_params["feed"]
        try:
            body = await asyncio.wait_for(_body(request, feeds.bound(feed)), BODY_SECONDS)
        except TimeoutError:
            return _refused(408, "the body did not come in time")
        if body is None:
            return _refused(413, "the body is too large")
        try:
            delivery = feeds.verify(feed, request.headers, body)
        except TightshipError:  # its words are for the log of whoever runs this
            return _refused(503, "this feed cannot be verified now")
        if delivery is None:
            return _refused(401, "not signed by a declared feed, or too long ago")
        status, told = await _taken(feeds, feed, delivery)
        return JSONResponse(told, status)

    async def ask(_: Request) -> Response:
        good = await health.good()
        return PlainTextResponse("ok\n" if good else "the store cannot be read\n", 200 if good else 503)

    return Starlette(routes=[Route("/context/{feed}", take, methods=["POST"]), Route("/healthz", ask)])


async def _taken(feeds: Feeds, feed: str, delivery: Delivery) -> tuple[int, dict[str, object]]:
    try:
        return 200, {"version": await feeds.take(feed, delivery)}
    except NotDeclared:
        return 403, {"error": "not_declared"}
    except (ConflictingWrite, StoreError):
        return 503, {"error": "try_again"}
    except (BoundaryError, UnknownName, WorkException) as error:
        return 422, {"error": error.code, "message": error.message[:500]}


def _refused(status: int, text: str) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": text}, status)


async def _body(request: Request, bound: int) -> bytes | None:
    """The body, or None where it is longer than the feed allows; nothing beyond that is kept."""
    read = bytearray()
    async for part in request.stream():
        read += part
        if len(read) > max(bound, 1):
            return None
    return bytes(read)
