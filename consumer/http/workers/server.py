"""The HTTP server of the parent of several workers: their health, their page, and where Prometheus finds them."""

from __future__ import annotations

import os
import re
import socket
import time
from importlib.metadata import version
from typing import Self

from aiohttp import web

from consumer.http.answering import Answering, html, json, probe
from consumer.http.hosts import host_of
from consumer.http.workers.asking import Asking
from consumer.http.workers.facts import Supervised
from consumer.http.workers.page import WorkersPage, load_workers_page
from consumer.http.workers.status import WorkersStatus, judged, status_of
from consumer.settings.sections import Settings, address_of

NAME = re.compile(r"[a-z0-9._:-]{1,253}")
"""What a host may be made of in an answer; anything else in a request does not come back."""
NO_METRICS = "the metrics are those of the workers; Prometheus finds them by http_sd_configs at /targets\n"


class WorkersServer:
    """Serves GET requests while it is entered; owned by the parent process."""

    def __init__(self, settings: Settings, supervised: Supervised) -> None:
        self._settings = settings
        self._supervised = supervised
        self._started_at = time.time()
        self._asking = Asking(settings.http, supervised)
        self._page: WorkersPage
        answers = {
            "/": self._workers_page,
            "/status.json": self._status_json,
            "/targets": self._targets,
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/metrics": self._metrics,
        }
        self._answering = Answering(settings.http, answers)

    @property
    def port(self) -> int:
        """The port; while it is entered, the one that was taken for 0."""
        return self._answering.port

    async def __aenter__(self) -> Self:
        self._page = load_workers_page()
        await self._answering.__aenter__()
        await self._asking.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._asking.__aexit__()
        await self._answering.__aexit__()

    async def _read(self) -> WorkersStatus:
        answers, at = await self._asking.statuses(), time.time()
        workers = [status_of(facts, answer, at) for facts, answer in answers]
        stopping = self._supervised.stopping
        return WorkersStatus(
            at=at,
            verdict=judged(workers, self._started_at, stopping=stopping),
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("session-consumer"),
            started_at=self._started_at,
            client_id=self._settings.kafka.client_id,
            group_id=self._settings.kafka.group_id,
            stopping=stopping,
            workers=workers,
        )

    async def _workers_page(self, request: web.Request) -> web.Response:
        return html(self._page.render(await self._read(), self._host(request)), self._page.policy)

    async def _status_json(self, _request: web.Request) -> web.Response:
        return json(await self._read())

    async def _targets(self, request: web.Request) -> web.Response:
        """Answer in the form of Prometheus' HTTP service discovery: each worker whose port is known."""
        host = self._host(request)
        return json(
            [
                {"targets": [address_of(host, each.port)], "labels": {"worker": str(each.number)}}
                for each in self._supervised.facts
                if each.port is not None
            ]
        )

    async def _health(self, _request: web.Request) -> web.Response:
        return probe(await self._asking.unhealthy())

    async def _readiness(self, _request: web.Request) -> web.Response:
        return probe(await self._asking.unready())

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(status=404, text=NO_METRICS)

    def _host(self, request: web.Request) -> str:
        """Return the host by which the client reaches this machine; that of the settings if it names none."""
        host = host_of(request.headers.get("Host", ""))
        return host if NAME.fullmatch(host) else self._settings.http.host
