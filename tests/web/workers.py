"""The page of several workers for pictures and tests: each state of a worker once."""

from __future__ import annotations

from typing import Self

from aiohttp import web

from consumer.http.answering import Answering, html
from consumer.http.workers.page import load_workers_page
from consumer.http.workers.status import WorkersStatus, judged, status_of
from consumer.settings.sections import Http
from tests.fakes.workers import some_facts
from tests.statuses import AT, a_partition, a_status
from tests.web.states import hold

HOST = "consumer-1.internal"


def some_workers(*, trouble: bool = True) -> WorkersStatus:
    """Return four workers; with trouble one holds records, one ended and one starts."""
    partitions = [
        a_partition(number, state="reading", lag_records=210 + 40 * number, lag_seconds=0.3) for number in range(4)
    ]
    running = a_status(partitions=partitions)
    facts = [some_facts(number, 8000 + number, since=AT - 11_520.0) for number in range(1, 5)]
    workers = [status_of(each, running, AT) for each in facts]
    if trouble:
        gone = some_facts(
            3,
            8003,
            pid=None,
            state="ended",
            serving=False,
            since=AT - 2.0,
            restarts=4,
            exit_code=137,
            starts_at=AT + 6.0,
        )
        begun = some_facts(4, 8004, state="starting", serving=False, since=AT - 1.4, restarts=1, exit_code=70)
        workers[1:] = [status_of(facts[1], hold(), AT), status_of(gone, "", AT), status_of(begun, "", AT)]
    return WorkersStatus(
        at=AT,
        verdict=judged(workers, AT - 11_522.0, stopping=False),
        host=HOST,
        pid=4100,
        version="0.2.0",
        started_at=AT - 11_522.0,
        client_id="session-consumer",
        group_id="session-consumer",
        stopping=False,
        workers=workers,
    )


class ServedWorkers:
    """The page on a free port, with a status that a test sets."""

    def __init__(self) -> None:
        self.status = some_workers()
        self._page = load_workers_page()
        self._answering = Answering(Http(port=0), {"/": self._answer})

    async def _answer(self, _request: web.Request) -> web.Response:
        return html(self._page.render(self.status, "localhost"), self._page.policy)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._answering.port}/"

    async def __aenter__(self) -> Self:
        await self._answering.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._answering.__aexit__()
