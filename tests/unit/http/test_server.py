"""The HTTP port as a client sees it: answers, headers and refusals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from consumer.errors import ConsumerError
from consumer.http.server import HttpServer
from consumer.settings.sections import Http
from tests.fakes.observed import FakeMetrics, FakeObserved, FakeStatus
from tests.statuses import a_troubled_status


class Client:
    """A server on a free port, and a client for it."""

    def __init__(self, server: HttpServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def ask(self, path: str, method: str = "GET", **options: Any) -> tuple[int, str, aiohttp.ClientResponse]:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with self.session.request(method, url, **options) as answer:
            return answer.status, await answer.text(), answer


def a_server(port: int = 0) -> HttpServer:
    return HttpServer(Http(port=port), FakeObserved(unready="stopping"), FakeMetrics(), FakeStatus(a_troubled_status))


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    async with a_server() as server, aiohttp.ClientSession() as session:
        yield Client(server, session)


async def test_the_page(client: Client) -> None:
    """The page is HTML with headers against caching, framing, sniffing and foreign scripts."""
    status, text, answer = await client.ask("/")
    assert (status, answer.content_type, answer.charset) == (200, "text/html", "utf-8")
    assert text.startswith("<!doctype html>")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"].startswith("'sha256-")
    assert policy["style-src"].startswith("'sha256-")


async def test_the_same_as_data(client: Client) -> None:
    """``/status.json`` holds the data that the page shows."""
    status, text, answer = await client.ask("/status.json")
    assert (status, answer.content_type, answer.headers["Cache-Control"]) == (200, "application/json", "no-store")
    found = json.loads(text)
    assert found["state"] == "running"
    assert found["halts"][0]["command"].startswith("kafka-consumer-groups.sh ")
    assert [each["partition"] for each in found["partitions"]] == list(range(12))
    assert len(found["history"]) == 300


PATHS = ["/", "/status.json", "/metrics", "/healthz", "/readyz"]


@pytest.mark.parametrize("path", PATHS)
async def test_head(client: Client, path: str) -> None:
    """HEAD answers like GET, without a body; any other method is refused."""
    asked, headed = await client.ask(path), await client.ask(path, "HEAD")
    assert headed[0] == asked[0]
    assert headed[1] == ""
    assert headed[2].content_type == asked[2].content_type
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await client.ask(path, method))[0] == 405


OTHERS = ["10.1.2.3:8000", "pod.example", "[fd00::7]:8000"]


@pytest.mark.parametrize("host", OTHERS)
@pytest.mark.parametrize("http", [Http(port=0), Http(host="0.0.0.0", port=0, allowed_hosts=["status.example"])])
async def test_a_probe_under_any_name(http: Http, host: str) -> None:
    """A probe is answered whatever its Host is; other names get no reason, and no other path."""
    observed = FakeObserved(unready="halted: t-0")
    headers = {"Host": host}
    async with (
        HttpServer(http, observed, FakeMetrics(), FakeStatus(a_troubled_status)) as server,
        aiohttp.ClientSession() as session,
    ):
        client = Client(server, session)
        found = {path: (await client.ask(path, headers=headers))[:2] for path in PATHS}
        assert (await client.ask("/readyz"))[:2] == (503, "halted: t-0\n")
    assert (found.pop("/healthz"), found.pop("/readyz")) == ((200, "ok\n"), (503, "failed\n"))
    assert {status for status, _ in found.values()} == {403}


@pytest.mark.parametrize("path", ["/favicon.ico", "/status", "/page.css", "/<script>", "/../etc/passwd", "/%00"])
async def test_an_unknown_path(client: Client, path: str) -> None:
    """An unknown path is a plain 404 that repeats nothing of the request."""
    status, text, answer = await client.ask(path)
    assert (status, answer.content_type) == (404, "text/plain")
    assert "script" not in text


async def test_a_port_that_is_taken(client: Client) -> None:
    """A port in use is named, with the setting to change."""
    with pytest.raises(ConsumerError, match=rf"http\.port: cannot listen on 127\.0\.0\.1:{client.server.port}"):
        async with a_server(client.server.port):
            pass
