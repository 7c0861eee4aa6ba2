"""The daemon's HTTP server: metrics, health probes, the status page and its data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, Self, cast

import msgspec
from aiohttp import web

from consumer.http.connections import BOUNDS, Bounds, Connections, serve_one_request
from consumer.http.hosts import Hosts
from consumer.http.listen import listen
from consumer.http.page import Page, load_page
from consumer.http.status import Status
from consumer.observe.observed import Observed
from consumer.settings.sections import Http

UNCACHED = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PROBES = {"/healthz", "/readyz"}


class Scraped(Protocol):
    """Where a scrape comes from."""

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the body and its content type for an ``Accept`` header."""


class Readable(Protocol):
    """Where the status comes from."""

    def read(self) -> Status:
        """Return the status of now."""


class HttpServer:
    """Serves GET requests while it is entered; owned by the daemon."""

    def __init__(
        self, settings: Http, observed: Observed, metrics: Scraped, status: Readable, bounds: Bounds = BOUNDS
    ) -> None:
        self.port = settings.port
        self._settings = settings
        self._bounds = bounds
        self._hosts = Hosts(settings)
        self._observed = observed
        self._metrics = metrics
        self._status = status
        self._page: Page
        self._runner: web.AppRunner | None = None
        self._listening: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        self._page = load_page()
        sockets = listen(self._settings)
        self.port = sockets[0].getsockname()[1]
        app = web.Application(middlewares=[self._answer_known_hosts])
        app.on_response_prepare.append(serve_one_request)
        app.router.add_get("/", self._status_page)
        app.router.add_get("/status.json", self._status_json)
        app.router.add_get("/metrics", self._scrape)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._readiness)
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
    async def _answer_known_hosts(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._hosts.answers(request.headers.get("Host")):
            return await handler(request)
        if request.path in PROBES:  # a probe of Kubernetes names the pod's address; the reason is left out
            answer = await handler(request)
            return web.Response(status=answer.status, text="ok\n" if answer.status == 200 else "failed\n")
        return web.Response(status=403, text="this Host is not answered; http.allowed_hosts names those that are\n")

    async def _scrape(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics.scrape(request.headers.get("Accept", ""))
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def _status_page(self, _request: web.Request) -> web.Response:
        headers = {**UNCACHED, "Content-Security-Policy": self._page.policy}
        body = self._page.render(self._status.read())
        response = web.Response(text=body, content_type="text/html", charset="utf-8", headers=headers)
        response.enable_compression()
        return response

    async def _status_json(self, _request: web.Request) -> web.Response:
        body = msgspec.json.encode(self._status.read())
        response = web.Response(body=body, content_type="application/json", headers=UNCACHED)
        response.enable_compression()
        return response

    async def _health(self, _request: web.Request) -> web.Response:
        return _probe(self._observed.unhealthy)

    async def _readiness(self, _request: web.Request) -> web.Response:
        return _probe(self._observed.unready)


def _probe(reason: str | None) -> web.Response:
    return web.Response(status=503 if reason else 200, text=f"{reason or 'ok'}\n")
