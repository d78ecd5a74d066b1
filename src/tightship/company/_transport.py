"""The service without a network, for simulations and tests that bring their own event loop."""

from __future__ import annotations

import asyncio

import httpx2
from starlette.types import ASGIApp

from tightship.company._faults import ConnectionDropped


class InProcessTransport(httpx2.AsyncBaseTransport):
    """An httpx2 transport that calls the application directly, on the running event loop and its clock.

    A dropped connection becomes httpx2.RemoteProtocolError and a call that exceeds the client's read time-out
    httpx2.ReadTimeout, as over TCP; the application's task is cancelled then, as when a client leaves.

    Parameters: `app` is what `build_app` returned.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._inner = httpx2.ASGITransport(app=app)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request. Raises: httpx2.RemoteProtocolError, httpx2.ReadTimeout."""
        limit = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(limit):
                return await self._inner.handle_async_request(request)
        except ConnectionDropped as error:
            message = "Server disconnected without sending a response."
            raise httpx2.RemoteProtocolError(message, request=request) from error
        except TimeoutError as error:
            raise httpx2.ReadTimeout("The server did not answer in time.", request=request) from error
