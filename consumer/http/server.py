"""The daemon's HTTP server: metrics, health probes, the status page and its data."""

from __future__ import annotations

from typing import Protocol, Self

from aiohttp import web

from consumer.http.answering import Answering, html, json, probe
from consumer.http.connections import BOUNDS, Bounds
from consumer.http.page import Page, load_page
from consumer.http.status import Status
from consumer.observe.observed import Observed
from consumer.settings.sections import Http


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
        self._observed = observed
        self._metrics = metrics
        self._status = status
        self._page: Page
        answers = {
            "/": self._status_page,
            "/status.json": self._status_json,
            "/metrics": self._scrape,
            "/healthz": self._health,
            "/readyz": self._readiness,
        }
        self._answering = Answering(settings, answers, bounds)

    @property
    def port(self) -> int:
        """The port; while it is entered, the one that was taken for 0."""
        return self._answering.port

    async def __aenter__(self) -> Self:
        self._page = load_page()
        await self._answering.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._answering.__aexit__()

    async def _scrape(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics.scrape(request.headers.get("Accept", ""))
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def _status_page(self, _request: web.Request) -> web.Response:
        return html(self._page.render(self._status.read()), self._page.policy)

    async def _status_json(self, _request: web.Request) -> web.Response:
        return json(self._status.read())

    async def _health(self, _request: web.Request) -> web.Response:
        return probe(self._observed.unhealthy)

    async def _readiness(self, _request: web.Request) -> web.Response:
        return probe(self._observed.unready)
