"""Answers to GET requests on the HTTP port, within its bounds, for the Host headers that are known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, cast

import msgspec
from aiohttp import web

from consumer.http.connections import BOUNDS, Bounds, Connections, serve_one_request
from consumer.http.hosts import Hosts
from consumer.http.listen import listen
from consumer.settings.sections import Http

UNCACHED = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PROBES = {"/healthz", "/readyz"}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Answering:
    """Listens while it is entered; owned by a server, which says what each path answers."""

    def __init__(self, settings: Http, answers: Mapping[str, Answer], bounds: Bounds = BOUNDS) -> None:
        self.port = settings.port
        self._settings = settings
        self._answers = answers
        self._bounds = bounds
        self._hosts = Hosts(settings)
        self._runner: web.AppRunner | None = None
        self._listening: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        sockets = listen(self._settings)
        self.port = sockets[0].getsockname()[1]
        app = web.Application(middlewares=[self._answer_known_hosts])
        app.on_response_prepare.append(serve_one_request)
        for path, answer in self._answers.items():
            app.router.add_get(path, answer)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        connections = Connections(cast(web.Server, self._runner.server), self._bounds)
        self._listening = [await connections.listen(each) for each in sockets]
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._listening:
            each.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _answer_known_hosts(self, request: web.Request, handler: Answer) -> web.StreamResponse:
        if self._hosts.answers(request.headers.get("Host")):
            return await handler(request)
        if request.path in PROBES:  # a probe of Kubernetes names the pod's address; the reason is left out
            answer = await handler(request)
            return web.Response(status=answer.status, text="ok\n" if answer.status == 200 else "failed\n")
        return web.Response(status=403, text="this Host is not answered; http.allowed_hosts names those that are\n")


def html(body: str, policy: str) -> web.Response:
    """Return a page with its Content-Security-Policy."""
    headers = {**UNCACHED, "Content-Security-Policy": policy}
    response = web.Response(text=body, content_type="text/html", charset="utf-8", headers=headers)
    response.enable_compression()
    return response


def json(value: Any) -> web.Response:
    """Return a value as JSON."""
    response = web.Response(body=msgspec.json.encode(value), content_type="application/json", headers=UNCACHED)
    response.enable_compression()
    return response


def probe(reason: str | None) -> web.Response:
    """Return 200, or 503 with the reason."""
    return web.Response(status=503 if reason else 200, text=f"{reason or 'ok'}\n")
