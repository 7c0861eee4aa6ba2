"""Bounds of connections: slow and idle clients are cut, and do not keep others from being answered."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from consumer.http.connections import BOUNDS, Bounds
from consumer.http.server import HttpServer
from consumer.settings.sections import Http
from tests.fakes.observed import FakeMetrics, FakeObserved, FakeStatus
from tests.statuses import a_status

LONG, SHORT = 3600.0, 0.05
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


class Large(FakeMetrics):
    """A scrape that no socket buffer takes at once."""

    def scrape(self, accept: str) -> tuple[bytes, str]:
        return b"x" * 50_000_000, "text/plain"


@asynccontextmanager
async def a_server(connections: int = 10, seconds: float = LONG) -> AsyncIterator[HttpServer]:
    status = FakeStatus(a_status)
    server = HttpServer(Http(port=0), FakeObserved(), Large(), status, Bounds(connections, seconds))
    async with server, asyncio.timeout(30):
        yield server


@asynccontextmanager
async def a_client(server: HttpServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1000)
    try:
        yield reader, writer
    finally:
        writer.close()


async def until_cut(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the connection ends, in whichever way."""
    got = b""
    try:
        while more := await reader.read(65_536):
            got += more
    except ConnectionError:
        pass
    return got


async def test_a_connection_serves_one_request() -> None:
    """A connection is closed after its response, whatever the client asks for."""
    async with a_server() as server, a_client(server) as (reader, writer):
        writer.write(GET + b"Connection: keep-alive\r\n\r\n")
        got = await until_cut(reader)
        assert got.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in got


@pytest.mark.parametrize(
    "sent", [b"", b"GET", GET, GET + b"X: " + b"y" * 5000], ids=["nothing", "word", "line", "head"]
)
async def test_a_client_that_sends_slowly_is_cut(sent: bytes) -> None:
    """A connection on which no whole request arrives in time ends without an answer."""
    async with a_server(seconds=SHORT) as server, a_client(server) as (reader, writer):
        writer.write(sent)
        assert await until_cut(reader) == b""


async def test_a_client_that_reads_slowly_is_cut() -> None:
    """A client that does not read a response in time gets only what the sockets' buffers hold of it."""
    async with a_server(seconds=SHORT) as server, a_client(server) as (reader, writer):
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"  # the reader's limit then stops it from reading on
        async with a_client(server) as (later, _):
            assert await until_cut(later) == b""
        assert len(await until_cut(reader)) < 50_000_000


async def test_idle_clients_keep_nobody_out() -> None:
    """Beyond the limit the oldest connections are cut, and new ones are answered."""
    async with a_server(connections=3) as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(8)]
        async with a_client(server) as (reader, writer):
            writer.write(GET + b"\r\n")
            assert (await until_cut(reader)).startswith(b"HTTP/1.1 200 ")
        for reader, _ in idle[:5]:
            assert await until_cut(reader) == b""
        for _, writer in idle:
            writer.close()


@pytest.mark.parametrize(
    "head",
    [b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", GET + b"X: " + b"y" * 10_000, GET + b"X: y\r\n" * 200],
    ids=["line", "field", "fields"],
)
async def test_a_large_head_is_refused(head: bytes) -> None:
    """A line, a field or a number of fields beyond the limits is refused at once."""
    async with a_server() as server, a_client(server) as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert (await until_cut(reader)).split()[1] in (b"400", b"431")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /evil\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://[evil/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/9.9 evil\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01evil\r\n\r\n",
        b"evil" * 30_000 + b" / HTTP/1.1\r\n\r\n",
        GET + b"evil\xff: x\r\n\r\n",
        GET + b"X: evil\x00\r\n\r\n",
        GET + b"Host: evil\r\n\r\n",
        GET + b"Expect: evil\r\n\r\n",
        GET + b"Content-Length: -1evil\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\n\r\nevil\r\n",
    ],
    ids=["path", "address", "version", "tls", "method", "name", "value", "hosts", "expect", "length", "chunk"],
)
async def test_a_request_that_cannot_be_read(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A request that is no HTTP gets a client error, and nothing of it comes back or into the log."""
    async with a_server() as server, a_client(server) as (reader, writer):
        writer.write(sent)
        got = await until_cut(reader)
    assert got.startswith((b"HTTP/1.0 4", b"HTTP/1.1 4"))
    assert b"evil" not in got
    assert warnings_in(caplog) == []


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n", b"evil"),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"evil\r\n"),
    ],
    ids=["gzip", "chunk"],
)
async def test_a_body_that_cannot_be_read(head: bytes, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A request is answered whatever its body is, and the log does not speak of it."""
    async with a_server() as server, a_client(server) as (reader, writer):
        writer.write(GET + head)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.write(body)
        assert b"ok\n" in await until_cut(reader)
    assert warnings_in(caplog) == []


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PUT", "DELETE", "TRACE"])
async def test_another_method_is_refused(method: str) -> None:
    """A method that changes something, or that asks what may be done, gets 405."""
    async with a_server() as server, a_client(server) as (reader, writer):
        writer.write(method.encode() + b" /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await until_cut(reader)).startswith(b"HTTP/1.1 405 ")


async def test_of_requests_in_a_row_the_first_is_answered() -> None:
    """Requests that are sent without waiting for a response get one response."""
    async with a_server() as server, a_client(server) as (reader, writer):
        writer.write((GET + b"\r\n") * 100)
        assert (await until_cut(reader)).count(b"HTTP/1.1 200 ") == 1


async def test_a_burst_keeps_nobody_out() -> None:
    """A request is answered though more connections than the limit are opened right after its own."""
    async with a_server(BOUNDS.connections) as server, a_client(server) as (reader, writer):
        writer.write(GET + b"\r\n")
        burst = [socket.socket() for _ in range(BOUNDS.connections + 40)]
        for each in burst:  # without a turn of the event loop, so that all wait to be accepted at once
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", server.port))
        assert (await until_cut(reader)).startswith(b"HTTP/1.1 200 ")
        for each in burst:
            each.close()


async def test_another_host_is_refused() -> None:
    """A request for a name that is not of this machine gets 403, and nothing of the request back."""
    async with a_server() as server, a_client(server) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        got = await until_cut(reader)
        assert got.startswith(b"HTTP/1.1 403 ")
        assert b"http.allowed_hosts" in got
        assert b"evil" not in got


@pytest.mark.parametrize("host", ["::1", "::"])
async def test_ipv6(host: str) -> None:
    """The server answers on an IPv6 address."""
    async with HttpServer(Http(host=host, port=0), FakeObserved(), FakeMetrics(), FakeStatus(a_status)) as server:
        reader, writer = await asyncio.open_connection("::1", server.port)
        writer.write(GET + b"\r\n")
        assert (await until_cut(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()
