"""Bounds of the connections to the HTTP server."""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

ACCEPTED_AT_ONCE = 4
"""Connections accepted in one round of the event loop. A request is answered within some ten rounds: with more at once,
a burst would have its connection cut before."""
WAITING = 128
"""Connections that the system keeps until they are accepted."""


class Bounds(NamedTuple):
    """How many connections there are at once, and how many seconds one may last."""

    connections: int = 64
    seconds: float = 10.0


BOUNDS = Bounds()


class Connections:
    """Makes the protocol of each new connection of a server; owned by the HttpServer.

    A connection serves one request and lasts ``seconds`` at most: a client that sends or reads slowly is cut. Beyond
    ``connections`` the oldest is cut and not the new one refused, so that idle clients cannot keep ``/healthz`` from
    being answered.
    """

    def __init__(self, server: web.Server, bounds: Bounds) -> None:
        self._server = server
        self._bounds = bounds

    async def listen(self, sock: socket.socket) -> asyncio.Server:
        """Accept the connections of a listening socket."""
        server = await asyncio.get_running_loop().create_server(self, sock=sock, backlog=ACCEPTED_AT_ONCE)
        sock.listen(WAITING)  # asyncio has one number for both
        return server

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a connection that was accepted."""
        others = [each for each in self._server.connections if each.transport is not None]
        for oldest in others[: max(0, len(others) + 1 - self._bounds.connections)]:
            _cut(oldest)
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"access_log": None, "lingering_time": 1.0, "auto_decompress": False}
        protocol = _Connection(self._server, loop=loop, **options)
        loop.call_later(self._bounds.seconds, _cut, protocol)
        return protocol


class _Connection(web.RequestHandler):
    """A connection whose client may send anything: nothing of it comes back, or into the log."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the response to a request that cannot be read, or whose handler raised."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size:
            raise ConnectionError("a part of a response was sent")
        response = web.Response(status=status, text=f"{status} {HTTPStatus(status).phrase}\n")
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log an exception, unless it is about the request's body."""
        if not isinstance(kw.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **kw)


async def serve_one_request(_request: web.Request, response: web.StreamResponse) -> None:
    """Have the connection end with its response, which has nothing of the request in it."""
    if isinstance(response, web.HTTPExpectationFailed):
        response.text = "417 Expectation Failed\n"
    response.force_close()
    response.headers["Connection"] = "close"


def _cut(protocol: web.RequestHandler) -> None:
    if protocol.transport is not None:
        protocol.transport.abort()
