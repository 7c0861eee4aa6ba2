"""Topics: which type a topic's events have, which routes get them, and which routes do not fit."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from consumer.errors import SettingsError
from consumer.routes.handler import bind_handler
from consumer.routes.load import load_routes
from consumer.routes.route import Route, matching
from consumer.routes.topics import Schema, Topics, load_schemas
from consumer.settings.sections import Kafka, RouteSettings, SchemaSettings, Settings
from schemas.session import Session
from schemas.types import event_type
from tests.unit.delivery.source import RawRecord
from tests.unit.routes.modules import Write

ORDERS = """
from __future__ import annotations
import msgspec
from consumer import Record
from schemas.session import Session
class Order(msgspec.Struct):
    order_id: int
    key: str = ""
class Placed(msgspec.Struct, tag="placed"):
    order_id: int
class Paid(msgspec.Struct, tag="paid"):
    order_id: int
    amount: float
Event = Placed | Paid
def on_session(event: Session) -> None: ...
def on_order(event: Order) -> None: ...
def on_paid(event: Paid) -> None: ...
def on_either(event: Placed | Paid) -> None: ...
def on_bytes(event: bytes) -> None: ...
def on_bytes_batch(events: list[bytes]) -> None: ...
def on_any(event, record: Record) -> None: ...
class Expecting:
    def __init__(self):
        self.kinds = []
    def __call__(self, event): ...
    def expect_events(self, kind):
        if kind is Order:
            raise ValueError("quotes a value")
        self.kinds.append(kind.__name__)
"""
SECTIONS = {"orders": "mine:Order", "events": "mine:Event", "raw": "bytes", "bag": "dict"}


def a_route(handler: str, topics: list[str] | None = None, **more: Any) -> RouteSettings:
    return RouteSettings(more.pop("name", handler), f"mine:{handler}", topics=topics or [], **more)


def settings(*routes: RouteSettings, schemas: dict[str, str] = SECTIONS) -> Settings:
    topics = ["sessions", *SECTIONS]
    return Settings(
        kafka=Kafka(topics=topics),
        schemas=[SchemaSettings(topic, kind) for topic, kind in schemas.items()],
        routes=list(routes),
    )


def topics_of(*routes: RouteSettings) -> Topics:
    """Load the settings as the daemon does."""
    found = settings(*routes)
    return Topics(load_schemas(found), load_routes(found, {}))


def refusal(*routes: RouteSettings) -> str:
    with pytest.raises(SettingsError) as refused:
        topics_of(*routes)
    return str(refused.value)


def decoded(topics: Topics, topic: str, value: bytes, **record: Any) -> list[str]:
    """Return the routes that match a record of a topic."""
    reader, routes = topics.of(topic)
    raw: Any = RawRecord(0, value, **record)
    return [route.name for route in matching(routes, reader.reread(value), raw)]


def test_several_types_in_one_daemon(module: Write) -> None:
    """Each topic is decoded into its own type, and sessions are the default."""
    module(ORDERS)
    topics = topics_of(a_route("on_session", ["sessions"]), a_route("on_order", ["orders"]))
    session = b'{"timestamp":"2024-10-21T14:05:00Z"}'
    assert decoded(topics, "sessions", session) == ["on_session"]
    assert decoded(topics, "orders", b'{"order_id":1}') == ["on_order"]
    assert type(topics.of("sessions").reader.reread(session)) is Session
    assert topics.of("bag").routes == []


@pytest.mark.parametrize(("topics", "expected"), [(["sessions"], False), (["ord*"], True), (["x", "orders"], True)])
def test_routes_name_their_topics(topics: list[str], *, expected: bool) -> None:
    """A route takes the topics that its names and globs fit."""
    route = Route("r", None, bind_handler(print, "test"), topics=tuple(topics))
    assert route.takes("orders") == expected


def test_the_first_schema_that_fits_counts() -> None:
    """Of several entries the first that fits the topic's name counts."""
    int_dict, text_dict = Schema(event_type(dict[str, int])), Schema(event_type(dict[str, str]))
    topics = Topics([("a.b", int_dict), ("a.*", text_dict), ("*", Schema(event_type(dict)))], [])
    assert [topics.schema(each).kind.of for each in ("a.b", "a.c", "b")] == [dict[str, int], dict[str, str], dict]


@pytest.mark.parametrize(
    ("match", "topic", "value", "record", "expected"),
    [
        ({"order_id": 1}, "orders", b'{"order_id":1}', {}, True),
        ({"order_id": 1}, "orders", b'{"order_id":2}', {}, False),
        ({"order_id": 1}, "bag", b'{"order_id":1}', {}, True),
        ({"order_id": 1}, "bag", b'{"order_id":"1"}', {}, False),
        ({"name": "a*"}, "bag", b'{"name":"abc"}', {}, True),
        ({"name": "a*"}, "bag", b'{"name":["abc"]}', {}, False),
        ({"name": "a*"}, "bag", b"{}", {}, False),
        ({"gone": False}, "bag", b"{}", {}, True),
        ({"gone": False}, "bag", b'{"gone":null}', {}, True),
        ({"gone": False}, "bag", b'{"gone":0}', {}, False),
        ({"gone": False}, "bag", b'{"gone":""}', {}, False),
        ({"gone": True}, "bag", b'{"gone":true}', {}, True),
        ({"gone": True}, "bag", b'{"gone":1}', {}, False),
        ({"gone": 1}, "bag", b'{"gone":true}', {}, False),
        ({"type": "paid"}, "events", b'{"type":"paid","order_id":1,"amount":2}', {}, True),
        ({"type": "paid"}, "events", b'{"type":"placed","order_id":1}', {}, False),
        ({"type": ["p*"]}, "events", b'{"type":"placed","order_id":1}', {}, True),
        ({"amount": 2.0}, "events", b'{"type":"paid","order_id":1,"amount":2}', {}, True),
        ({"amount": 2.0}, "events", b'{"type":"placed","order_id":1}', {}, False),
        ({"amount": {"is": "null"}}, "events", b'{"type":"placed","order_id":1}', {}, True),
        ({"order_id": 1, "key": "tenant-7:*"}, "bag", b'{"order_id":1}', {"key": b"tenant-7:x"}, True),
        ({"key": "tenant-7:*"}, "bag", b"{}", {"key": b"tenant-8:x"}, False),
        ({"key": {"is": "null"}}, "bag", b"{}", {}, True),
        ({"key": "*"}, "bag", b"{}", {}, False),
        ({"key": "*"}, "bag", b"{}", {"key": b"\xff"}, True),
        ({"record.key": "a", "event.key": "b"}, "orders", b'{"order_id":1,"key":"b"}', {"key": b"a"}, True),
        ({"record.key": "a", "event.key": "b"}, "orders", b'{"order_id":1,"key":"a"}', {"key": b"a"}, False),
        ({"header.ce_type": "session.*"}, "raw", b"x", {"headers": (("ce_type", b"session.ended"),)}, True),
        ({"header.ce_type": "session.*"}, "raw", b"x", {"headers": (("ce_type", b"a"), ("b", b"session.x"))}, False),
        ({"header.a": "2"}, "raw", b"x", {"headers": (("a", b"1"), ("a", b"2"))}, True),
        ({"header.a": {"is": "null"}}, "raw", b"x", {"headers": (("a", None),)}, True),
        ({"topic": "ra*"}, "raw", b"x", {}, True),
        ({"topic": ["orders", "events"]}, "raw", b"x", {}, False),
    ],
    ids=str,
)
def test_matches(
    module: Write, match: dict[str, Any], topic: str, value: bytes, record: dict[str, Any], *, expected: bool
) -> None:
    """Fields of every kind of event are matched, and the key, headers and topic of its record."""
    module(ORDERS)
    topics = topics_of(a_route("on_any", [topic] if "topic" not in match else [], match=match))
    assert bool(decoded(topics, topic, value, **record)) == expected


@pytest.mark.parametrize(
    ("route", "why"),
    [
        (a_route("on_order", ["sessions"]), "the events of topic 'sessions' are schemas.session.Session"),
        (a_route("on_order"), "the events of topic 'sessions' are schemas.session.Session"),
        (a_route("on_session", ["orders"]), "the events of topic 'orders' are mine.Order"),
        (a_route("on_paid", ["events"]), "the events of topic 'events' may be mine.Placed"),
        (a_route("on_any", ["orders"], match={"amount": 1}), "Order has no field 'amount'"),
        (a_route("on_any", ["orders"], match={"order": 1}), "did you mean 'order_id'"),
        (a_route("on_any", ["events"], match={"other": 1}), "Placed | Paid has no field 'other'"),
        (a_route("on_any", ["orders"], match={"key": "a"}), "write record.key or event.key"),
        (a_route("on_any", ["orders"], match={"record.value": "a"}), "key, topic and header.NAME can be matched"),
        (a_route("on_any", ["raw"], match={"order_id": 1}), "bytes has no field 'order_id'"),
        (a_route("on_any", ["orders"], match={"header.a": 1}), "expected text, got int"),
        (a_route("on_any", ["events"], match={"type": "piad"}), "has such a tag; they have 'placed', 'paid'"),
        (a_route("on_any", ["orders"], unknown_tags=True), "Order is no union"),
        (a_route("on_paid", ["events"], unknown_tags=True), "the events of topic 'events' are builtins.bytes"),
        (a_route("on_any", ["events"], unknown_tags=True, match={"order_id": 1}), "such records have no fields"),
    ],
    ids=str,
)
def test_routes_that_do_not_fit(module: Write, route: RouteSettings, why: str) -> None:
    """A route is checked against the events of every topic that it may get."""
    module(ORDERS)
    assert why in refusal(route)


@pytest.mark.parametrize(
    "route", [a_route("on_paid", ["events"], match={"type": "paid"}), a_route("on_either", ["events"])]
)
def test_a_match_narrows_a_union(module: Write, route: RouteSettings) -> None:
    """A handler of one class of a union fits when the match lets no other through."""
    module(ORDERS)
    topics = topics_of(route)
    assert decoded(topics, "events", b'{"type":"paid","order_id":1,"amount":2}') == [route.name]


def test_unknown_tags_go_to_the_route_that_asks(module: Write) -> None:
    """A record of an unknown tag goes to the route that asks for such, and to no other; known ones do not go there."""
    module(ORDERS)
    topics = topics_of(
        a_route("on_bytes", ["events"], unknown_tags=True, name="unknown"),
        a_route("on_any", ["events"], name="all"),
        a_route("on_any", ["events"], name="some", match={"order_id": 1}),
    )
    assert decoded(topics, "events", b'{"type":"lost","order_id":1}') == ["unknown"]
    assert decoded(topics, "events", b'{"type":"placed","order_id":1}') == ["all", "some"]


@pytest.mark.parametrize("handler", ["on_bytes", "on_bytes_batch"])
def test_raw_handlers_alone_have_nothing_decoded(module: Write, handler: str) -> None:
    """A topic whose handlers all want bytes is not decoded, even if its values are not JSON."""
    module(ORDERS)
    topics = topics_of(a_route(handler, ["orders"], match={"record.key": "a"}))
    value = b"\xff"
    assert topics.of("orders").reader.first(value) == value
    assert decoded(topics, "orders", value, key=b"a") == [handler]


def test_a_raw_handler_of_tombstones(module: Write) -> None:
    """A handler annotated for bytes and tombstones gets bytes, beside others and alone."""
    module(ORDERS + "def on_deleted(event: bytes | None, record: Record) -> None: ...")
    deleted = a_route("on_deleted", ["orders"], tombstones=True)
    raw, _ = topics_of(deleted, a_route("on_order", ["orders"])).of("orders").routes
    assert raw.handler.wants_bytes
    assert topics_of(deleted).of("orders").reader.first(b"\xff") == b"\xff"


def test_a_raw_handler_beside_others(module: Write) -> None:
    """Beside a handler of events a raw one gets the bytes of the same records."""
    module(ORDERS)
    topics = topics_of(a_route("on_bytes", ["orders"]), a_route("on_order", ["orders"]))
    raw, order = topics.of("orders").routes
    assert (raw.handler.wants_bytes, order.handler.wants_bytes) == (True, False)
    assert decoded(topics, "orders", b'{"order_id":1}') == ["on_bytes", "on_order"]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (SchemaSettings("orders", "nowhere:Order"), "there is no module 'nowhere'"),
        (SchemaSettings("orders", "mine:Nothing"), "mine has no 'Nothing'"),
        (SchemaSettings("orders", "mine:on_any"), "schemas[0] (orders).type: mine:on_any: "),
        (SchemaSettings("orders", "builtins:int"), "it is not a Struct"),
        (SchemaSettings("orders", "bytes", "msgpack"), "values of type bytes are not decoded"),
    ],
    ids=str,
)
def test_types_that_cannot_be_used(module: Write, entry: SchemaSettings, why: str) -> None:
    """A wrong type is refused at the start, with the entry's number and topic."""
    module(ORDERS)
    with pytest.raises(SettingsError) as refused:
        load_schemas(Settings(schemas=[entry]))
    assert why in str(refused.value)


def test_a_pattern_checks_each_schema(module: Write) -> None:
    """With a pattern the topics are not known: a route is checked against every schema that its topics may have."""
    module(ORDERS)
    found = settings(a_route("on_order", ["orders"]), schemas={"orders": "mine:Order"})
    pattern = msgspec.structs.replace(found, kafka=Kafka(topics=[], topic_pattern="or.*"))
    load_routes(pattern, {})
    with pytest.raises(SettingsError, match=r"are mine\.Order"):
        load_routes(msgspec.structs.replace(pattern, routes=[a_route("on_session", ["orders"])]), {})
    globbed = msgspec.structs.replace(pattern, schemas=[SchemaSettings("orders-*", "mine:Order")])
    with pytest.raises(SettingsError, match=r"are mine\.Order"):
        load_routes(msgspec.structs.replace(globbed, routes=[a_route("on_session", ["orders-eu"])]), {})


def test_a_pattern_checks_the_topics_of_matches(module: Write) -> None:
    """With a pattern a route is also checked against the topics that its match names."""
    module(ORDERS)
    route = a_route("on_any", match={"topic": ["other", "orders-*"], "order_id": 1})
    entry = SchemaSettings("orders-eu", "mine:Order")
    found = Settings(kafka=Kafka(topics=[], topic_pattern=".*"), schemas=[entry], routes=[route])
    with pytest.raises(SettingsError, match="Session has no field 'order_id'"):
        load_routes(found, {})
    load_routes(msgspec.structs.replace(found, schemas=[SchemaSettings("*", "mine:Order")]), {})


def test_a_glob_of_a_route_under_a_pattern(module: Write) -> None:
    """A glob of a route names no topic: the schemas of topics that it fits are checked, and no others."""
    module(ORDERS)
    found = settings(a_route("on_order", ["orders-*"]), schemas={"orders-eu": "mine:Order", "orders-us": "mine:Order"})
    load_routes(msgspec.structs.replace(found, kafka=Kafka(topics=[], topic_pattern="or.*")), {})


def test_a_handler_learns_the_classes_of_its_events(module: Write) -> None:
    """``expect_events`` gets the class of each topic's events, of a union those that the match leaves."""
    module(ORDERS)
    found = topics_of(
        a_route("Expecting", ["sessions", "bag"], name="a"), a_route("Expecting", ["events"], match={"type": "paid"})
    )
    first, second = (cast("Any", route.handler.call) for route in found.routes)
    assert (set(first.kinds), set(second.kinds)) == ({"Session", "dict"}, {"Paid"})


def test_a_handler_that_refuses_its_events(module: Write) -> None:
    """What ``expect_events`` raises is a settings error with its class and place, and without its text."""
    module(ORDERS)
    with pytest.raises(SettingsError, match="expect_events raised ValueError") as refused:
        topics_of(a_route("Expecting", ["orders"]))
    assert "quotes" not in str(refused.value)
