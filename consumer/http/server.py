"""The daemon's HTTP server: metrics, health probes, the status page and its data."""

from __future__ import annotations

from typing import Protocol, Self

import msgspec
from aiohttp import web

from consumer.errors import ConsumerError
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

    def __init__(self, settings: Http, observed: Observed, metrics: Scraped, status: Readable) -> None:
        self.port = settings.port
        self._settings = settings
        self._observed = observed
        self._metrics = metrics
        self._status = status
        self._page: Page
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        self._page = load_page()
        app = web.Application()
        app.router.add_get("/", self._status_page)
        app.router.add_get("/status.json", self._status_json)
        app.router.add_get("/metrics", self._scrape)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._readiness)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConsumerError(
                f"http.host, http.port: cannot listen on {self._settings.host}:{self._settings.port}"
                f" ({error.strerror}); choose another port, or 0 for a free one"
            ) from error
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

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
