"""Bounds of the connections to the HTTP server."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import web


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

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a connection that was accepted."""
        others = [each for each in self._server.connections if each.transport is not None]
        for oldest in others[: max(0, len(others) + 1 - self._bounds.connections)]:
            _cut(oldest)
        protocol = self._server()
        asyncio.get_running_loop().call_later(self._bounds.seconds, _cut, protocol)
        return protocol


async def serve_one_request(_request: web.Request, response: web.StreamResponse) -> None:
    """Have the connection end with its response."""
    response.force_close()
    response.headers["Connection"] = "close"


def _cut(protocol: web.RequestHandler) -> None:
    if protocol.transport is not None:
        protocol.transport.abort()
