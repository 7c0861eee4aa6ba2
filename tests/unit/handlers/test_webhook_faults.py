"""Servers that refuse, fail, are slow, or are away: what becomes of the events."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
import trustme
from aiohttp import web

from consumer import Pause, Reject, Retry, testing
from consumer.errors import SinkError, place_of
from consumer.handlers.answers import DeliveryError, failure_of, wait_of
from consumer.handlers.webhook import Webhook
from consumer.record import Record
from consumer.routes.load import load_handler
from consumer.settings.sections import RouteSettings
from schemas.session import Session
from tests.unit.handlers.files import some
from tests.unit.handlers.receiver import HOST, Received, Receiver, raw_server, receiver

LARGE = b"x" * 5_000_000


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with receiver() as found:
        yield found


def hook(url: str, *, retry: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """The table of a route that sends to a URL."""
    handler = "consumer.handlers.webhook:Webhook"
    return {"hook": {"handler": handler, "options": {"url": url} | options, "retry": retry or {}}}


def a_record() -> Record:
    return Record("t", 0, 7, 1, None, b"{}")


async def error_of(url: str, event: Any = None, **options: Any) -> BaseException:
    """Send one event and return what is raised; it names neither the URL nor the event."""
    async with Webhook(url, **options) as send:
        with pytest.raises(Exception) as caught:
            await send(event or some(1)[0], a_record())
    assert url not in place_of(caught.value)
    assert "hidden" not in place_of(caught.value)
    return caught.value


@pytest.mark.parametrize("status", [400, 401, 404, 410, 413, 422])
async def test_a_refused_event_is_a_dead_letter(server: Receiver, status: int) -> None:
    """A 4xx makes a dead letter at once, with the status as its code, and others go on."""
    first, second = some(2)
    server.answers = [web.Response(status=status, text="hidden")]
    async with testing.consumer(routes=hook(server.url)) as app:
        await app.give(first, second)
        assert app.outcomes == [("hook", "dead_lettered"), ("hook", "handled")]
        (letter,) = app.dead_letters
        assert (letter.reason, letter.code, letter.attempts) == ("rejected", f"http_{status}", 1)
        assert "hidden" not in str(letter.headers)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_asks_for_a_wait(server: Receiver, status: int) -> None:
    """A Retry-After is followed, as often as it comes, and counts no attempt."""
    server.answers = [web.Response(status=status, headers={"Retry-After": "30"}) for _ in range(8)]
    async with testing.consumer(routes=hook(server.url, retry={"attempts": 1})) as app:
        await app.give(*some(1))
        await app.advance(29)
        assert len(server.received) == 1
        await app.advance(30 * 8 - 29)
        assert app.outcomes == [("hook", "handled")]
        assert {type(call.error) for call in app.calls[:-1]} == {Retry}
    assert len(server.received) == 9
    assert len(set(server.ids)) == 1


async def test_too_many_requests_without_a_time(server: Receiver) -> None:
    """A 429 without Retry-After is retried by the growing waits, without limit."""
    server.answers = [web.Response(status=429) for _ in range(8)]
    async with testing.consumer(routes=hook(server.url, retry={"attempts": 1})) as app:
        await app.give(*some(1))
        await app.advance(300)
        assert app.outcomes == [("hook", "handled")]


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504])
async def test_a_server_that_fails_is_asked_again(server: Receiver, status: int) -> None:
    """A 5xx is retried by the policy; then the record is a dead letter, and the next one is sent."""
    server.answers = [web.Response(status=status, text="hidden") for _ in range(3)]
    async with testing.consumer(routes=hook(server.url, retry={"attempts": 3})) as app:
        await app.give(*some(2))
        await app.advance(60)
        assert app.outcomes == [("hook", "dead_lettered"), ("hook", "handled")]
        (letter,) = app.dead_letters
        assert (letter.reason, letter.attempts) == ("exhausted", 3)
        assert str(app.calls[0].error) == f"options.url answered with status {status}"


@pytest.mark.parametrize("batch", [False, True])
async def test_a_server_that_fails_may_hold(server: Receiver, *, batch: bool) -> None:
    """With DeliveryError in pause_on a 5xx holds the partition, and a refused record is still a dead letter."""
    server.answers = [web.Response(status=500) for _ in range(8)]
    server.answer = lambda request: web.Response(status=422 if b'"bad"' in request.body else 204)
    routes = hook(server.url, retry={"attempts": 2}, batch=batch)
    routes["hook"]["pause_on"] = ["consumer.handlers.webhook:DeliveryError"]
    async with testing.consumer(routes=routes) as app:
        await app.give(Session(datetime.now(UTC), session_id="bad"), *some(1))
        await app.advance(600)
        assert [outcome for _, outcome in app.outcomes] == ["dead_lettered", "handled"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(server: Receiver, status: int) -> None:
    """A redirect holds its partition: no event goes to another address, and none is a dead letter."""
    async with receiver() as other:
        server.answers = [web.Response(status=status, headers={"Location": other.url}) for _ in range(8)]
        async with testing.consumer(routes=hook(server.url, retry={"attempts": 1})) as app:
            await app.give(*some(1))
            assert isinstance(app.calls[0].error, SinkError)
            await app.advance(300)
            assert app.outcomes == [("hook", "handled")]
        assert not other.received


async def test_an_outage_loses_nothing(server: Receiver) -> None:
    """While the server is away the partition pauses, without limit; then each event is delivered, in order."""
    async with testing.consumer(routes=hook(server.url, retry={"attempts": 1})) as app:
        await app.give(*some(2))
        await server.stop()
        await app.give(*some(3))
        await app.advance(600)
        assert [outcome for _, outcome in app.outcomes] == ["handled"] * 2 + ["waiting"] * 3
        assert isinstance(app.calls[-1].error, Pause)
        await server.start()
        await app.advance(60)
        assert [outcome for _, outcome in app.outcomes] == ["handled"] * 5
        assert not app.dead_letters
    assert server.ids == [f"session-events-0-{offset}" for offset in range(5)]


async def test_an_answer_that_does_not_come(server: Receiver) -> None:
    """A request without an answer in time counts as an attempt, and is sent again."""
    over = asyncio.Event()

    async def never(_: Received) -> web.Response:
        await over.wait()
        return web.Response()

    server.answer = never
    error = await error_of(server.url, timeout_seconds=1.0)
    assert isinstance(error, DeliveryError)
    assert not isinstance(error, Pause)
    assert str(error) == "options.url gave no answer within options.timeout_seconds"
    over.set()


async def test_a_connection_that_is_not_made() -> None:
    """A server whose queue of connections is full is away: its events are held."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):  # more than the queue holds
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        error = await error_of(f"http://{HOST}:{address[1]}/", timeout_seconds=0.2)
    assert isinstance(error, SinkError)
    assert "cannot be reached within half of options.timeout_seconds" in str(error)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200", "closed the connection without an answer"),
        (b"SSH-2.0-hidden\r\n\r\n", "answers, but not with HTTP"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"hidden" * 20_000 + b"\r\n\r\n", "answers, but not with HTTP"),
    ],
)
async def test_what_is_no_answer(answer: bytes, named: str) -> None:
    """A connection without an answer in HTTP is an outage."""
    async with raw_server(answer) as url:
        error = await error_of(url)
    assert isinstance(error, SinkError)
    assert named in str(error)


async def test_refused_unknown_and_untrusted(server: Receiver) -> None:
    """The message says which failure it was: no listener, no such name, a certificate, TLS against plain HTTP."""
    assert "did not complete the TLS handshake" in str(await error_of(server.url.replace("http:", "https:")))
    await server.stop()
    assert "cannot be connected to" in str(await error_of(server.url))
    assert "has a host name that is unknown here" in str(await error_of("http://hidden.invalid/"))


async def test_a_certificate_that_is_not_trusted() -> None:
    """A server with a certificate of an unknown authority gets no event."""
    import ssl  # noqa: PLC0415 - only here

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert(HOST).configure_cert(context)
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(1))
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0, ssl=context) as tls:
        error = await error_of(f"https://{HOST}:{tls.sockets[0].getsockname()[1]}/")
    assert "has a certificate that is not trusted here" in str(error)
    assert not any(got)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",  # closed within its body
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf",
    ],
)
async def test_the_status_decides(answer: bytes) -> None:
    """An accepted event is handled, whatever the body of the answer is."""
    async with raw_server(answer) as url, Webhook(url) as send:
        await send(some(1)[0], a_record())


async def test_an_endless_answer() -> None:
    """A body that does not end takes no longer than the time limit, and a long one is not read to its end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    async with raw_server(head + b"x", stay=True) as url, Webhook(url, timeout_seconds=1.0) as send:
        await send(some(1)[0], a_record())
    async with raw_server(head + LARGE) as url, Webhook(url) as send:
        await send(some(1)[0], a_record())


async def test_a_body_that_is_refused_before_its_end() -> None:
    """An event that the server refuses while it is still sent is rejected, and does not count as an outage."""
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    event = Session(timestamp=datetime.now(UTC), source="hidden" * 2_000_000)
    async with raw_server(answer, read=1000) as url:
        error = await error_of(url, event)
    assert isinstance(error, Reject)
    assert error.code == "http_413"


async def test_the_guilty_record_of_a_batch(server: Receiver) -> None:
    """When a batch is refused, its records are sent singly, and only the refused one becomes a dead letter."""
    events = some(12)
    bad = events[5].session_id

    def answer(request: Received) -> web.Response:
        return web.Response(status=422 if any(each["session_id"] == bad for each in request.json) else 204)

    server.answer = answer
    async with testing.consumer(routes=hook(server.url, batch=True)) as app:
        await app.give(*events)
        await app.advance(60)
        assert [outcome for _, outcome in app.outcomes].count("handled") == 11
        (letter,) = app.dead_letters
        assert (letter.record.offset, letter.code) == (5, "http_422")


async def test_a_batch_waits_as_a_whole(server: Receiver) -> None:
    """A batch that is to wait, or meets an outage, is sent again whole."""
    server.answers = [web.Response(status=429, headers={"Retry-After": "5"}), web.Response(status=301)]
    async with testing.consumer(routes=hook(server.url, batch=True)) as app:
        await app.give(*some(4))
        await app.advance(60)
        assert app.outcomes == [("hook", "handled")] * 4
    assert len(server.ids) == 3
    assert len(set(server.ids)) == 1


async def test_connections_are_bounded_and_used_again(server: Receiver) -> None:
    """Many calls share the connections; a request that waits for one does not use up its time."""
    under_way, most = 0, 0

    async def slow(_: Received) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.8)
        under_way -= 1
        return web.Response(text="done")

    server.answer = slow
    async with Webhook(server.url, connections=2, timeout_seconds=1.2) as send:
        await asyncio.gather(*(send(each, a_record()) for each in some(4)))  # longer than the limit in all
    assert (len(server.received), most, len(server.connections)) == (4, 2, 2)


async def test_a_call_without_a_connection_ends(server: Receiver) -> None:
    """A call that gets no connection in time is retried, and counts no attempt."""
    async with Webhook(server.url, connections=1, timeout_seconds=0.05) as send:
        await send._free.acquire()  # another request is under way
        with pytest.raises(Retry):
            await send(some(1)[0], a_record())
    assert not server.received


@pytest.mark.parametrize(("route_seconds", "limit"), [(None, 240.0), (300.0, 300.0)])
def test_the_watchdog_follows_the_time_limit(route_seconds: float | None, limit: float) -> None:
    """A long time limit of requests makes no daemon look stalled; that of the route comes first, and is longer."""
    options = {"url": "https://hidden/", "timeout_seconds": 120}
    route = RouteSettings("hook", "consumer.handlers.webhook:Webhook", options=options, timeout_seconds=route_seconds)
    assert load_handler(route, "routes[0]", {}, 1).timeout_seconds == limit


async def test_a_cancelled_call_frees_its_connection(server: Receiver) -> None:
    """A call that a time limit or a stop cancels leaves the connection to others."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def never(_: Received) -> web.Response:
        begun.set()
        await over.wait()
        return web.Response()

    server.answer = never
    async with Webhook(server.url, connections=1) as send:
        call = asyncio.ensure_future(send(some(1)[0], a_record()))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        over.set()
        await send(some(1)[0], a_record())


async def test_a_handler_that_was_not_entered(server: Receiver) -> None:
    """Without its connections a handler holds what it gets."""
    with pytest.raises(SinkError, match="not open"):
        await Webhook(server.url)(some(1)[0], a_record())


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 5000, 3600.0),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90.0),
        (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0.0),
        (format_datetime(datetime.fromtimestamp(NOW + 86_400, UTC), usegmt=True), 3600.0),
        ("Wed, 15 Nov 2023 00:00:00 -0000", 1_700_006_400 - NOW if NOW + 3600 > 1_700_006_400 else 3600.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("Mon, 99 Foo 99999999999999 99:99:99 GMT", None),
        ("Wed, 15 Nov 2023 00:00:00 +99999999999", None),
    ],
)
def test_how_long_to_wait(text: str, seconds: float | None) -> None:
    """Retry-After is read as seconds or a date, and never means more than an hour; any other text means nothing."""
    assert wait_of(text, NOW) == seconds


def test_every_status_has_a_meaning() -> None:
    """Only a 2xx is a success, and only a 4xx of a single record rejects it."""
    for status in range(100, 1000):
        alone, batch = (failure_of(status, "", NOW, alone=each) for each in (True, False))
        assert (alone is None) == (batch is None) == (200 <= status < 300)
        assert isinstance(alone, Reject) == (400 <= status < 500 and status not in (408, 425, 429))
        assert not isinstance(batch, Reject)
