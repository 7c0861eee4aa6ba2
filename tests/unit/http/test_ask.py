"""Asking a daemon for its status: addresses, answers that are none, limits, and foreign text."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from consumer.http import ask as asked
from consumer.http.ask import NoStatusError, StatusClient, read_status, status_url
from consumer.http.server import HttpServer
from consumer.http.status import Status, Verdict
from consumer.settings.sections import Http
from tests.fakes.observed import FakeMetrics, FakeObserved, FakeStatus
from tests.statuses import AT, a_halt, a_status, a_troubled_status
from tests.unit.process.consumers import a_free_port

ADDRESSES = {
    "worker-1:8000": "http://worker-1:8000/status.json",
    "worker-1": "http://worker-1:8000/status.json",
    "[::1]:8001": "http://[::1]:8001/status.json",
    "http://worker-1:8000": "http://worker-1:8000/status.json",
    "http://worker-1:8000/": "http://worker-1:8000/status.json",
    "http://worker-1:8000/status.json": "http://worker-1:8000/status.json",
    "https://proxy.example/sessions": "https://proxy.example/sessions/status.json",
    "HTTP://proxy.example/sessions/status.json": "http://proxy.example/sessions/status.json",
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address(text: str) -> None:
    """Scheme, port and path may be left out; the port is then 8000, and with a scheme that of the scheme."""
    assert status_url(text) == ADDRESSES[text]


@pytest.mark.parametrize(
    "text",
    ["", ":8000", "::1", "a:b", "a:99999", "ftp://a", "file:///etc/passwd", "http://me:word@a:1", "http://a?x=1"],
)
def test_no_address(text: str) -> None:
    """What is no address of a daemon is refused, also one with a password."""
    with pytest.raises(ValueError):
        status_url(text)


def encoded(**changes: Any) -> bytes:
    """Return a status as a daemon sends it, with changed fields; None removes one."""
    found = msgspec.to_builtins(a_troubled_status()) | changes
    kept = {name: value for name, value in found.items() if name not in changes or value is not None}
    return msgspec.json.encode(kept)


def test_a_status_is_read() -> None:
    """A status arrives as it was, without what ``top`` does not show; fields that are not known are ignored."""
    sent = a_troubled_status()
    expected = msgspec.structs.replace(sent, settings={}, history=[])
    assert read_status(msgspec.json.encode(sent)) == expected
    assert read_status(encoded(added={"later": [1]})) == expected


NONE = {
    "nothing": (b"", "No daemon"),
    "HTML": (b"<html>", "No daemon"),
    "deep": (b"[" * 100_000, "No daemon"),
    "a list": (b"[]", "No daemon"),
    "another object": (b'{"status": "ok"}', "No daemon"),
    "not UTF-8": (b'{"versions": "\xff"}', "No daemon"),
    "an earlier version": (b'{"versions": {}, "state": "running"}', "Other version"),
    "a renamed field": (encoded(brokers=None), "Other version"),
    "another type": (encoded(routes={}), "Other version"),
    "no verdict": (encoded(verdicts=[]), "Other version"),
    "a time without date": (encoded(at=1e12), "Other version"),
    "a number without end": (encoded(records_consumed=10**300), "Other version"),
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_status(name: str) -> None:
    """An answer that is no status says whether another program or another version gave it."""
    body, word = NONE[name]
    with pytest.raises(NoStatusError) as raised:
        read_status(body)
    assert raised.value.word == word
    assert raised.value.todo


FOREIGN = "a\x1b[31m\x07\r\n\x9b2J\u202eb\u200bc\x7f"


def test_control_characters_are_removed() -> None:
    """No text of a status keeps a character that a terminal follows or that turns the direction of text."""
    sent = a_status(
        halts=[msgspec.structs.replace(a_halt(1), topic=FOREIGN, mend=FOREIGN)],
        state=FOREIGN,
        commits={FOREIGN: 1},
    )
    read = read_status(msgspec.json.encode(sent))
    assert (read.state, read.halts[0].topic, read.halts[0].mend) == ("a[31m2Jbc",) * 3
    assert list(read.commits) == ["a[31m2Jbc"]
    assert msgspec.json.encode(read).decode().isprintable()


Served = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def failure_of(serve: Served) -> NoStatusError:
    """Ask a server that answers as ``serve`` does."""

    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        answered.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, StatusClient() as client:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NoStatusError) as raised:
            await client.ask(status_url(f"127.0.0.1:{port}"))
        await answered.wait()
        return raised.value


def answering(status: str, body: bytes = b"secret") -> Served:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body))

    return serve


ANSWERS = {
    "404 Not Found": "No daemon",
    "302 Found\r\nLocation: http://127.0.0.1:1/status.json": "HTTP 302",
    "503 secret": "HTTP 503",
    "200 OK": "No daemon",
    "403 Forbidden": "Forbidden",
    "200 OK\r\nContent-Encoding: gzip": "No daemon",
}


@pytest.mark.parametrize("status", ANSWERS)
async def test_another_answer(status: str) -> None:
    """Another answer than a status is named, nothing of it is repeated, and no redirect is followed."""
    failure = await failure_of(answering(status))
    assert failure.word == ANSWERS[status]
    assert "secret" not in f"{failure} {failure.todo}"


async def test_a_program_without_http() -> None:
    """A server that speaks another protocol, or closes the connection, is named so."""

    async def banner(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-secret\r\n")

    async def nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        pass

    async def half(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"a')

    assert [(await failure_of(each)).word for each in (banner, nothing, half)] == ["No HTTP", "Closed", "Closed"]


async def test_a_slow_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that arrives byte by byte is given up after the limit of the whole question."""
    monkeypatch.setattr(asked, "SECONDS", 0.3)

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"[")
            await writer.drain()
            await asyncio.sleep(0.02)

    assert (await failure_of(drip)).word == "Timed out"


async def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer larger than the limit is no status, and is not read to its end."""
    monkeypatch.setattr(asked, "MAX_BYTES", 100_000)

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"[" * 10_000)
            await writer.drain()

    assert (await failure_of(flood)).word == "No daemon"


async def test_nothing_listens() -> None:
    """A refused connection and an unknown name are told apart."""
    async with StatusClient() as client:
        for text, word in ((f"127.0.0.1:{a_free_port()}", "Refused"), ("nowhere.invalid:1", "Unknown name")):
            with pytest.raises(NoStatusError) as raised:
                await client.ask(status_url(text))
            assert raised.value.word == word


def a_server(status: Callable[[], Status], http: Http) -> HttpServer:
    return HttpServer(http, FakeObserved(), FakeMetrics(), FakeStatus(status))


async def test_the_daemons_own_server() -> None:
    """The daemon's HTTP server gives its status, under the names that it answers."""
    verdict = Verdict("Halted", "bad", "one partition is halted", "Move past it", "a command", "", AT)
    sent = msgspec.structs.replace(a_troubled_status(), verdicts=[verdict])
    async with a_server(lambda: sent, Http(port=0)) as server, StatusClient() as client:
        found = await client.ask(status_url(f"127.0.0.1:{server.port}"))
        assert (found.verdicts, found.partitions) == ([verdict], sent.partitions)
    other = Http(host="0.0.0.0", port=0, allowed_hosts=["status.example"])
    async with a_server(lambda: sent, other) as server, StatusClient() as client:
        client._session.headers["Host"] = "pod.example"
        with pytest.raises(NoStatusError, match="does not answer to this name") as raised:
            await client.ask(status_url(f"127.0.0.1:{server.port}"))
        assert "http.allowed_hosts" in raised.value.todo
