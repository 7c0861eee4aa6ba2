"""Selection of letters: which route gets which event, and what is refused before the redrive begins."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from consumer.dead_letters.cause import Cause
from consumer.dead_letters.headers import write_context
from consumer.errors import DecodeError, SettingsError
from consumer.record import Position, TopicPartition
from consumer.redrive.selection import Selection, require_fit
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from consumer.routes.topics import Schema, Topics
from schemas.session import Session
from schemas.types import event_type
from tests.unit.delivery.source import RawRecord

PLACE = Position("t.dlq", 0, 0)


class Order(msgspec.Struct):
    order_id: int


class Placed(msgspec.Struct, tag="placed"):
    order_id: int


class Paid(msgspec.Struct, tag="paid"):
    order_id: int


def a_route(name: str, annotation: Any = Any, **fields: Any) -> Route:
    handler = msgspec.structs.replace(bind_handler(lambda _event: None, "test"), annotation=annotation)
    return Route(name, None, handler, **fields)


def topics_of(*routes: Route) -> Topics:
    types = {"orders": Order, "events": Placed | Paid, "*": Session}
    return Topics([(topic, Schema(event_type(kind))) for topic, kind in types.items()], routes)


@pytest.mark.parametrize("topics", [("sessions",), ("events", "sess*")])
def test_letters_of_a_topic_that_does_not_fit(topics: tuple[str, ...]) -> None:
    """Letters of a topic that a route does not take any more are refused if its handler takes other events."""
    found = topics_of(a_route("bill", Session, topics=topics))
    with pytest.raises(SettingsError, match="dead letters of topic 'orders', which the route does not take any more"):
        require_fit({("orders", "bill")}, found)


@pytest.mark.parametrize("annotation", [Order, Any, bytes])
def test_letters_of_a_topic_that_fits(annotation: Any) -> None:
    """Letters run through the route that failed, also if it does not take their topic any more."""
    found = topics_of(a_route("bill", annotation, topics=("sessions",)))
    require_fit({("orders", "bill"), ("orders", "none"), ("sessions", "bill")}, found)


def test_an_unknown_tag_goes_to_no_handler_of_events() -> None:
    """A letter whose tag its topic has no more is undecodable for its route, though another takes such records."""
    topics = topics_of(a_route("bill", topics=("events",)), a_route("rest", topics=("events",), unknown_tags=True))
    value = b'{"type":"gone"}'
    block = write_context("connect", Position("events", 0, 7), 0, "g", Cause("exhausted", "bill", 5, "", ""), 0)
    headers: Any = tuple(block)
    raw: Any = RawRecord(0, value, headers=headers)
    for name in ("rest", "bill"):
        choice = Selection({PLACE: name}, topics, 1000).choose(TopicPartition("t.dlq", 0), raw)
        assert choice is not None
        event = choice.decoder.decode(value)
        if name == "rest":
            assert [route.name for route in choice.routes(event)] == ["rest"]
        else:
            with pytest.raises(DecodeError, match="a tag that no type of its topic has"):
                choice.routes(event)
