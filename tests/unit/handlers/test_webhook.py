"""Requests of the webhook: their bodies, identities, signatures and headers."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest

from consumer import testing
from consumer.errors import SettingsError
from consumer.handlers.webhook import Webhook
from consumer.record import Position, Record
from tests.unit.handlers.files import some
from tests.unit.handlers.receiver import Receiver, receiver

KEY = b"0123456789abcdef0123456789abcdef"
WHSEC = "whsec_" + base64.b64encode(KEY).decode()


class Order(msgspec.Struct):
    order_id: int
    total: float


@dataclass
class Point:
    x: int


class Row(TypedDict):
    name: str


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with receiver() as found:
        yield found


def hook(server: Receiver, **options: Any) -> dict[str, Any]:
    """The table of a route that sends to a server."""
    return {"hook": {"handler": "consumer.handlers.webhook:Webhook", "options": {"url": server.url} | options}}


def as_json(event: Any) -> Any:
    return json.loads(msgspec.json.encode(event))


async def test_each_event_is_one_request(server: Receiver) -> None:
    """Each event is the JSON body of one request, named by topic, partition and offset, and committed then."""
    events = some(3)
    async with testing.consumer(routes=hook(server)) as app:
        await app.give(*events, partition=2)
        await app.commit()
        assert app.outcomes == [("hook", "handled")] * 3
        assert list(app.committed.values()) == [3]
    assert [each.json for each in server.received] == list(map(as_json, events))
    assert server.ids == [f"session-events-2-{offset}" for offset in range(3)]
    assert {each.headers["content-type"] for each in server.received} == {"application/json"}


@pytest.mark.parametrize("secret", [WHSEC, KEY.decode()])
async def test_a_request_is_signed(server: Receiver, secret: str) -> None:
    """A receiver with the key computes the same signature, whichever way the secret is written."""
    async with testing.consumer(routes=hook(server, secret=secret)) as app:
        await app.give(*some(2))
    assert len(server.received) == 2
    for each in server.received:
        assert each.headers["webhook-signature"] == each.signature(KEY)


async def test_a_large_event_arrives_whole(server: Receiver) -> None:
    """An event that is written in pieces arrives with its signature."""
    event = msgspec.structs.replace(some(1)[0], prompt_name="x" * 900_000, agent_name="y" * 900_000)
    async with Webhook(server.url, secret=WHSEC) as send:
        await send(event, Record("session-events", 0, 0, 1, None, b""))
    (request,) = server.received
    assert request.json == as_json(event)
    assert request.headers["webhook-signature"] == request.signature(KEY)


async def test_without_a_secret_nothing_is_signed(server: Receiver) -> None:
    """A request without a secret has an identity and a time, and no signature."""
    async with testing.consumer(routes=hook(server)) as app:
        await app.give(*some(1))
    (request,) = server.received
    assert "webhook-signature" not in request.headers
    assert int(request.headers["webhook-timestamp"]) > 0


async def test_a_batch_is_one_array(server: Receiver) -> None:
    """A batch is one signed request with an array; its identity differs from that of another batch that begins so."""
    events = some(5)
    routes = hook(server, batch=True, secret=WHSEC)
    for count in (5, 4, 1):
        async with testing.consumer(routes=routes) as app:
            await app.give(*events[:count])
            await app.advance(1)
            assert app.outcomes == [("hook", "handled")] * count
    assert [each.json for each in server.received] == [list(map(as_json, events[:count])) for count in (5, 4, 1)]
    five, four, one = server.ids
    assert one == "session-events-0-0"
    assert five != four
    assert all(each.startswith("session-events-0-0-") for each in (five, four))
    assert all(each.headers["webhook-signature"] == each.signature(KEY) for each in server.received)


async def test_the_same_batch_has_the_same_identity(server: Receiver) -> None:
    """A batch that is sent again after a restart is known to the receiver."""
    for _ in range(2):
        async with testing.consumer(routes=hook(server, batch=True)) as app:
            await app.give(*some(5))
    assert len(server.ids) == 2
    assert len(set(server.ids)) == 1


async def test_a_redriven_record_keeps_its_identity(server: Receiver) -> None:
    """A redriven record is named by the position at which it was first consumed."""
    (event,) = some(1)
    async with Webhook(server.url) as send:
        await send(event, Record("session-events.dlq", 0, 1, 1, None, b"", (), Position("session-events", 3, 7)))
    assert server.ids == ["session-events-3-7"]


async def test_cloud_events(server: Receiver) -> None:
    """Each event is the data of a structured CloudEvent with the identity, topic, type, time and key of its record."""
    (event,) = some(1)
    async with testing.consumer(routes=hook(server, format="cloudevents")) as app:
        await app.give(event, key="k", timestamp_ms=1_500)
        await app.give(event, key=b"\xff", timestamp_ms=-1)
        await app.give(event, key="a\nb", timestamp_ms=2**62)
    first, *others = server.received
    assert first.headers["content-type"] == "application/cloudevents+json"
    assert first.json == {
        "specversion": "1.0",
        "id": "session-events-0-0",
        "source": "/topics/session-events",
        "type": "session",
        "time": "1970-01-01T00:00:01.500000Z",
        "partitionkey": "k",
        "datacontenttype": "application/json",
        "data": as_json(event),
    }
    assert len(others) == 2
    assert all(each.json.keys().isdisjoint({"time", "partitionkey"}) for each in others)


async def test_a_batch_of_cloud_events(server: Receiver) -> None:
    """A batch is an array of CloudEvents, each with the identity of its own record."""
    async with testing.consumer(routes=hook(server, format="cloudevents", batch=True)) as app:
        await app.give(*some(3))
    (request,) = server.received
    assert request.headers["content-type"] == "application/cloudevents-batch+json"
    assert [each["id"] for each in request.json] == [f"session-events-0-{offset}" for offset in range(3)]


async def test_a_tombstone_names_its_key(server: Receiver) -> None:
    """A tombstone is a null in JSON, and a CloudEvent without data that names the key."""
    for form in ("json", "cloudevents"):
        routes = hook(server, format=form)
        routes["hook"]["tombstones"] = True
        async with testing.consumer(routes=routes) as app:
            await app.give(None, key="gone")
            assert app.outcomes == [("hook", "handled")]
    plain, event = server.received
    assert plain.json is None
    assert (event.json["partitionkey"], "data" in event.json) == ("gone", False)


@pytest.mark.parametrize(
    ("kind", "event", "named"),
    [
        (Order, Order(1, 2.5), "order"),
        (Point, Point(3), "point"),
        (Row, {"name": "x"}, "other"),
        (dict, {"a": 1}, "other"),
    ],
)
async def test_every_type_of_event(server: Receiver, kind: Any, event: Any, named: str) -> None:
    """Structs, dataclasses, TypedDicts and dicts are sent in both formats."""
    for form in ("json", "cloudevents"):
        async with testing.consumer(routes=hook(server, format=form), schemas={"other": kind}) as app:
            await app.give(event)
            assert app.outcomes == [("hook", "handled")]
    plain, cloud = server.received
    assert plain.json == cloud.json["data"] == as_json(event)
    assert cloud.json["type"] == named


async def test_bytes_are_base64(server: Receiver) -> None:
    """A value as it is becomes base64, which a CloudEvent says."""
    async with testing.consumer(routes=hook(server, format="cloudevents"), schemas={"other": bytes}) as app:
        await app.give(b"\x00\xff")
    (request,) = server.received
    assert base64.b64decode(request.json["data_base64"]) == b"\x00\xff"
    assert "data" not in request.json


async def test_headers_of_the_settings(server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request has the headers of the options, which may come from the environment."""
    monkeypatch.setenv("AUTHORIZATION", "Bearer x")
    headers = {"Authorization": {"env": "AUTHORIZATION"}, "User-Agent": "mine"}
    async with testing.consumer(routes=hook(server, headers=headers)) as app:
        await app.give(*some(1))
    (request,) = server.received
    assert (request.headers["authorization"], request.headers["user-agent"]) == ("Bearer x", "mine")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"url": "hidden"}, "options.url is not a URL"),
        ({"url": "ftp://hidden/"}, "options.url is not a URL"),
        ({"url": "https://hidden:99999/"}, "options.url is not a URL"),
        ({"url": "https://a b/hidden"}, "options.url is not a URL"),
        ({"url": "https://user:hidden@host/"}, "options.url has a user name"),
        ({"format": "hidden"}, "options.format must be one of json, cloudevents"),
        ({"secret": "whsec_hidden!"}, "options.secret is not base64 after whsec_"),
        ({"secret": "whsec_"}, "options.secret is empty"),
        ({"secret": ""}, "options.secret is empty"),
        ({"timeout_seconds": 0}, "options.timeout_seconds must be above 0"),
        ({"timeout_seconds": float("nan")}, "options.timeout_seconds must be above 0"),
        ({"connections": 0}, "options.connections must be 1 or above"),
        ({"batch": "hidden"}, "options.batch: Expected bool"),
        ({"headers": {"a b": "hidden"}}, "options.headers has a name that is no name of a header"),
        ({"headers": {"A": "hidden\r\nB: c"}}, "options.headers.A has characters that no header may have"),
        ({"headers": {"Content-Type": "hidden"}}, "options.headers.Content-Type is set by the handler"),
        ({"batches": True}, "has no option 'batches'; did you mean 'batch'?"),
    ],
)
async def test_wrong_options(server: Receiver, options: dict[str, Any], named: str) -> None:
    """Each wrong option is refused at start by its name, without its value."""
    with pytest.raises(SettingsError, match=r"routes\[0\] \(hook\)\.options") as caught:
        async with testing.consumer(routes=hook(server, **options)):
            pass
    assert named in str(caught.value)
    assert "hidden" not in str(caught.value)


async def test_a_batch_route_has_no_tombstones(server: Receiver) -> None:
    """With batch the handler takes lists, so what needs single records is refused at start."""
    routes = hook(server, batch=True)
    routes["hook"]["tombstones"] = True
    with pytest.raises(SettingsError, match="tombstones"):
        async with testing.consumer(routes=routes):
            pass
