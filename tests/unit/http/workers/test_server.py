"""The HTTP server of the parent: it asks real servers of workers, and answers for all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from consumer.cli import healthcheck
from consumer.http.ask import NoStatusError, read_status
from consumer.http.server import HttpServer
from consumer.http.status import Status
from consumer.http.workers import asking
from consumer.http.workers.facts import WorkerFacts
from consumer.http.workers.server import WorkersServer
from consumer.http.workers.status import WorkersStatus
from consumer.settings.sections import Http, Kafka, Settings
from tests.fakes.observed import FakeMetrics, FakeObserved, FakeStatus
from tests.fakes.workers import FakeSupervised, ended, some_facts, starting
from tests.statuses import a_partition, a_status, a_troubled_status


class Fleet:
    """Servers of workers, and their parent's."""

    def __init__(self, settings: Settings) -> None:
        self.observed: list[FakeObserved] = []
        self.statuses: list[Status] = []
        self.asked = 0
        self.supervised = FakeSupervised()
        self.server = WorkersServer(settings, self.supervised)

    def reads(self, index: int) -> Callable[[], Status]:
        def read() -> Status:
            self.asked += 1
            return self.statuses[index]

        return read

    async def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
            return answer.status, await answer.text(), answer.headers["Content-Type"]

    async def status(self) -> WorkersStatus:
        _, body, kind = await self.get("/status.json")
        assert kind == "application/json"
        return msgspec.json.decode(body, type=WorkersStatus)


@asynccontextmanager
async def a_fleet(*facts: WorkerFacts | None, **settings: Any) -> AsyncIterator[Fleet]:
    """Serve a parent; None stands for a worker that serves too."""
    fleet = Fleet(msgspec.structs.replace(Settings(http=Http(port=0)), **settings))
    found = fleet.supervised.facts = list[WorkerFacts]()
    async with AsyncExitStack() as opened:
        for number, given in enumerate(facts, 1):
            each = given
            fleet.observed.append(FakeObserved())
            fleet.statuses.append(a_status())
            if each is None:
                status = FakeStatus(fleet.reads(number - 1))
                server = HttpServer(Http(port=0), fleet.observed[-1], FakeMetrics(), status)
                await opened.enter_async_context(server)
                each = some_facts(number, server.port)
            found.append(each)
        await opened.enter_async_context(fleet.server)
        yield fleet


@pytest.fixture(autouse=True)
def always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is used twice."""
    monkeypatch.setattr(asking, "FRESH_SECONDS", 0.0)


async def test_healthy_while_every_worker_is() -> None:
    """/healthz and /readyz return 503 with the reasons of all workers that fail, each with its number."""
    async with a_fleet(None, None, None) as fleet:
        assert (await fleet.get("/healthz"))[:2] == (200, "ok\n")
        assert (await fleet.get("/readyz"))[:2] == (200, "ok\n")
        fleet.observed[0].unready = fleet.observed[2].unready = "halted: t-0"
        fleet.observed[1].unhealthy = "stalled: a call"
        assert (await fleet.get("/healthz"))[:2] == (503, "worker 2: stalled: a call\n")
        assert (await fleet.get("/readyz"))[:2] == (503, "worker 1: halted: t-0\nworker 3: halted: t-0\n")


async def test_a_worker_that_is_started_again_is_named() -> None:
    async with a_fleet(None, ended(2, 9)) as fleet:
        for path in ("/healthz", "/readyz"):
            assert (await fleet.get(path))[:2] == (503, "worker 2: exited with 137, and is started again\n")


async def test_an_outage_of_the_brokers_is_healthy() -> None:
    """A worker whose start reached no broker waits for the next start: it is not ready, and nobody is to end it."""
    async with a_fleet(None, ended(2, 9, code=69)) as fleet:
        assert (await fleet.get("/healthz"))[:2] == (200, "ok\n")
        assert (await fleet.get("/readyz"))[:2] == (503, "worker 2: exited with 69, and is started again\n")


async def test_a_start_is_healthy_for_a_minute() -> None:
    """A worker that opens its handlers is healthy and not ready; after a minute it is unhealthy."""
    async with a_fleet(starting(1), None) as fleet:
        assert (await fleet.get("/healthz"))[:2] == (200, "ok\n")
        assert (await fleet.get("/readyz"))[:2] == (503, "worker 1: starting\n")
        fleet.supervised.facts = [starting(1, seconds=61.0)]
        assert (await fleet.get("/healthz"))[:2] == (503, "worker 1: has not opened its handlers for 61 s\n")


async def test_a_worker_that_does_not_answer() -> None:
    """A worker whose port is closed, or that another program has, is unhealthy, and the page says so."""
    async with a_fleet(some_facts(1, 1)) as fleet:  # port 1 is closed
        status, reason, _ = await fleet.get("/healthz")
        assert (status, reason) == (503, "worker 1: refused the connection: nothing listens there\n")
        (worker,) = (await fleet.status()).workers
        assert (worker.verdict.word, worker.records_per_second) == ("No answer", None)


async def test_a_stop_is_not_ready() -> None:
    async with a_fleet(None) as fleet:
        fleet.supervised.stopping = True
        assert (await fleet.get("/readyz"))[:2] == (503, "stopping\n")
        assert (await fleet.status()).verdict.word == "Draining"


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("worker-host.internal:8000", "worker-host.internal"),
        ("10.0.3.8", "10.0.3.8"),
        ("[fd00::8]:8000", "[fd00::8]"),
        ("<script>", "0.0.0.0"),
        ("a b", "0.0.0.0"),
        ("", "0.0.0.0"),
    ],
)
async def test_targets(header: str, host: str) -> None:
    """Prometheus gets each worker whose port is known, under the name by which it reached the parent."""
    http = Http(host="0.0.0.0", port=0)
    async with a_fleet(some_facts(1, 8001), ended(2, 8002), starting(3), http=http) as fleet:
        _, body, kind = await fleet.get("/targets", Host=header)
        assert kind == "application/json"
        assert json.loads(body) == [
            {"targets": [f"{host}:8001"], "labels": {"worker": "1"}},
            {"targets": [f"{host}:8002"], "labels": {"worker": "2"}},
        ]


async def test_metrics_are_those_of_the_workers() -> None:
    async with a_fleet(None) as fleet:
        status, body, _ = await fleet.get("/metrics")
        assert (status, "/targets" in body) == (404, True)


async def test_other_names_are_not_answered() -> None:
    """A parent on a loopback address answers its own names; probes answer to any, without the reason."""
    async with a_fleet(ended(1)) as fleet:
        assert (await fleet.get("/targets", Host="evil.example"))[0] == 403
        assert (await fleet.get("/healthz", Host="evil.example"))[:2] == (503, "failed\n")


async def test_the_page_shows_all_workers() -> None:
    """A row for each worker with its verdict and numbers, a link to its page, and the worst first of all."""
    async with a_fleet(None, None, ended(3), starting(4)) as fleet:
        partitions = [a_partition(number, lag_records=1_000 + number, lag_seconds=2.5) for number in range(3)]
        fleet.statuses[1] = a_status(partitions=partitions, records_per_second=2_000.0)
        body = (await fleet.get("/", Host="localhost:1"))[1]
        first, second = (each.port for each in fleet.supervised.facts[:2])
        assert f'href="http://localhost:{first}/"' in body
        assert f'href="http://localhost:{second}/"' in body
        assert 'data-l="lag">3,003<' in body
        assert '<b id="serving">2 of 4</b>' in body
        assert '<b id="restarts">3</b>' in body
        assert "Worker 3: It exited with 137, and others take its partitions over." in body
        assert 'class="state bad"' in body


async def test_the_worst_verdict_is_the_headline() -> None:
    async with a_fleet(None, None, None) as fleet:
        assert (await fleet.status()).verdict.word == "Running"
        fleet.statuses[1] = fleet.statuses[2] = a_troubled_status()
        status = await fleet.status()
        worst = fleet.statuses[1].verdicts[0]
        assert (status.verdict.word, status.verdict.tone, status.verdict.todo) == (worst.word, worst.tone, worst.todo)
        assert status.verdict.sentence == f"Worker 2 (and 1 more): {worst.sentence}"


async def test_everything_is_escaped() -> None:
    """Names are text on the page, whatever they are made of."""
    bad = "<img src=x onerror=alert(1)>"
    async with a_fleet(None, kafka=Kafka(client_id=bad, group_id=bad)) as fleet:
        verdict = msgspec.structs.replace(a_status().verdicts[0], sentence=bad)
        fleet.statuses[0] = msgspec.structs.replace(a_status(), verdicts=[verdict])
        assert bad not in (await fleet.get("/"))[1]


async def test_many_clients_are_one_to_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests at the same time ask each worker once."""
    monkeypatch.setattr(asking, "FRESH_SECONDS", 60.0)
    async with a_fleet(None, None) as fleet:
        answers: Sequence[Any] = await asyncio.gather(*(fleet.get("/status.json") for _ in range(20)))
        assert {status for status, *_ in answers} == {200}
        assert fleet.asked == 2


async def test_an_end_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of a process are not used again after its end."""
    monkeypatch.setattr(asking, "FRESH_SECONDS", 60.0)
    async with a_fleet(None, None) as fleet:
        assert (await fleet.get("/healthz"))[0] == 200
        assert (await fleet.status()).verdict.word == "Running"
        fleet.supervised.facts = [fleet.supervised.facts[0], ended(2)]
        assert (await fleet.get("/healthz"))[0] == 503
        assert (await fleet.status()).verdict.word == "Restarting"


async def test_the_health_check_of_the_image_asks_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command_line = tmp_path / "cmdline"
    monkeypatch.setattr(healthcheck, "DAEMON", command_line)
    async with a_fleet(None) as fleet:
        words = ["session-consumer", "run", "--workers", "1", "--set", f"http.port={fleet.server.port}"]
        command_line.write_text("".join(f"{word}\0" for word in words))
        assert await asyncio.to_thread(healthcheck.main) == 0
        fleet.observed[0].unhealthy = "stalled"
        assert await asyncio.to_thread(healthcheck.main) == 1


async def test_top_says_that_this_is_a_parent() -> None:
    async with a_fleet(None) as fleet:
        body = (await fleet.get("/status.json"))[1]
    with pytest.raises(NoStatusError, match="is the parent of several workers"):
        read_status(body.encode())


async def test_a_tone_of_another_version() -> None:
    """A verdict that this version has no colour for is shown as a warning."""
    async with a_fleet(None) as fleet:
        verdict = msgspec.structs.replace(a_status().verdicts[0], tone="violet")
        fleet.statuses[0] = msgspec.structs.replace(a_status(), verdicts=[verdict])
        status, page, _ = await fleet.get("/")
        assert (status, "%23c98a00" in page) == (200, True)
