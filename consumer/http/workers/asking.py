"""What the workers answer over HTTP: asked when somebody asks the parent, at most once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from consumer.errors import KafkaUnreachableError
from consumer.http.ask import NoStatusError, StatusClient
from consumer.http.status import Status
from consumer.http.workers.facts import Supervised, WorkerFacts
from consumer.settings.sections import Http

FRESH_SECONDS = 1.0
"""Age up to which answers are used again: many clients of the parent are one client of the workers."""
START_SECONDS = 60.0
"""Time after which a worker that has not opened its handlers counts as unhealthy."""


class Asking:
    """Asks all workers at once while it is entered; owned by the parent's HTTP server."""

    def __init__(self, http: Http, supervised: Supervised) -> None:
        self._http = http
        self._supervised = supervised
        self._client = StatusClient()
        self._locks: dict[str, asyncio.Lock] = {}
        self._kept: dict[str, tuple[float, Sequence[Any], list[Any]]] = {}
        """For each path the time of the answers, the processes that were asked, and the answers."""

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__()

    async def unhealthy(self) -> str | None:
        """Return why ``/healthz`` of the parent fails: the reasons of all workers; None if it does not fail."""
        return _joined(await self._all("/healthz", self._health))

    async def unready(self) -> str | None:
        """Return why ``/readyz`` of the parent fails; None if it does not fail."""
        if self._supervised.stopping:
            return "stopping"
        return _joined(await self._all("/readyz", self._readiness))

    async def statuses(self) -> list[tuple[WorkerFacts, Status | str]]:
        """Return what is known of each worker, and its status or why it gave none."""
        return await self._all("/status.json", self._status)

    async def _all(self, path: str, ask: Callable[[WorkerFacts], Awaitable[Any]]) -> list[Any]:
        async with self._locks.setdefault(path, asyncio.Lock()):
            facts = self._supervised.facts
            processes = [(each.pid, each.serving) for each in facts]
            at, asked, answers = self._kept.get(path, (float("-inf"), (), []))
            if time.monotonic() - at >= FRESH_SECONDS or asked != processes:
                answers = await asyncio.gather(*map(ask, facts))
                self._kept[path] = time.monotonic(), processes, answers
            return answers

    async def _health(self, worker: WorkerFacts) -> str | None:
        if worker.state != "ended" and not worker.serving:
            waited = time.time() - worker.since
            late = f"worker {worker.number}: has not opened its handlers for {waited:.0f} s"
            return late if waited > START_SECONDS else None
        if worker.state == "ended" and worker.exit_code == KafkaUnreachableError.exit_code:
            return None  # an outage of the brokers, which no other process would end
        return await self._probe(worker, "/healthz")

    async def _readiness(self, worker: WorkerFacts) -> str | None:
        if worker.state != "ended" and not worker.serving:
            return f"worker {worker.number}: starting"
        return await self._probe(worker, "/readyz")

    async def _probe(self, worker: WorkerFacts, path: str) -> str | None:
        if worker.state == "ended":
            return f"worker {worker.number}: exited with {worker.exit_code}, and is started again"
        try:
            reason = await self._client.probe(self._url(worker, path))
        except NoStatusError as error:
            reason = str(error)
        return None if reason is None else f"worker {worker.number}: {reason}"

    async def _status(self, worker: WorkerFacts) -> tuple[WorkerFacts, Status | str]:
        if worker.state == "ended" or not worker.serving:
            return worker, ""
        try:
            return worker, await self._client.ask(self._url(worker, "/status.json"))
        except NoStatusError as error:
            return worker, str(error)

    def _url(self, worker: WorkerFacts, path: str) -> str:
        return f"http://{self._http.own_address(worker.port)}{path}"


def _joined(reasons: list[str | None]) -> str | None:
    return "\n".join(each for each in reasons if each is not None) or None
