"""Events are encoded as a producer of their topic does, and decoded again."""

from __future__ import annotations

import msgspec
import pytest

from consumer import Record, testing
from consumer.settings.sections import Kafka, Settings
from schemas.samples import sessions
from schemas.session import Session
from tests.unit.testing.events import Order, Payment, Refund

SEEN: list[tuple[object, Record]] = []


async def note(event: object, record: Record) -> None:
    SEEN.append((event, record))


@pytest.mark.parametrize(
    ("schema", "begins"),
    [
        ({"type": Order}, b'{"order_id":1'),
        ({"type": Order, "framing": "confluent"}, b'\0\0\0\0\1{"order_id":1'),
        ({"type": Order, "format": "cloudevents", "framing": "confluent"}, b'\0\0\0\0\1{"specversion"'),
        ({"type": Order, "format": "msgpack"}, b"\x82\xa8order_id\x01"),
        ({"type": Order, "format": "cloudevents"}, b'{"specversion":"1.0","id":"1","source":"/testing","type":"Order"'),
    ],
)
async def test_each_format(schema: dict[str, object], begins: bytes) -> None:
    """The handler gets an equal event, and its Record the bytes of the topic's format."""
    SEEN.clear()
    async with testing.consumer(note, schemas={"orders": schema}) as app:
        await app.give(Order(1, 2.5))
        assert app.outcomes == [("note", "handled")]
    ((event, record),) = SEEN
    assert event == Order(1, 2.5)
    assert (record.value or b"").startswith(begins)


async def test_documents_and_unions() -> None:
    """A dict is a document as a producer writes it; the events of a union keep their tags."""
    async with testing.consumer(note, schemas={"orders": Payment | Refund}) as app:
        await app.give(Payment(1), {"type": "Refund", "order_id": 2}, {"type": "Gift"})
        assert [call.event for call in app.calls] == [Payment(1), Refund(2)]
        assert app.outcomes == [("note", "handled"), ("note", "handled"), ("none", "dead_lettered")]


async def test_sessions_are_the_default() -> None:
    """Without schemas the topic is session-events, and both spellings are read."""
    session = next(sessions())
    async with testing.consumer(note) as app:
        await app.give(session, {"timestamp": "2026-01-01T00:00:00Z", "sessionId": "7"})
        first, second = [call.event for call in app.calls]
        assert (first, second.session_id) == (session, "7")
        assert app.calls[0].record.topic == "session-events"


async def test_values_as_they_are() -> None:
    """A topic of bytes takes bytes only."""
    async with testing.consumer(note, schemas={"raw": bytes}) as app:
        await app.give(b"\xff")
        assert app.calls[0].event == b"\xff"
        with pytest.raises(TypeError, match="give bytes"):
            await app.give(Order(1))


async def test_the_topic_of_an_event() -> None:
    """With several topics each event names its own; one that is not consumed is refused."""
    async with testing.consumer(note, schemas={"orders": Order, "session-events": Session}) as app:
        await app.give(Order(1), topic="orders")
        assert app.outcomes == [("note", "handled")]
        with pytest.raises(ValueError, match="name the topic: topic=…; it is one of orders, session-events"):
            await app.give(Order(1))
        with pytest.raises(ValueError, match="'order' is not consumed; did you mean 'orders'"):
            await app.give(Order(1), topic="order")


async def test_topics_of_a_pattern() -> None:
    """A topic that the pattern matches is consumed; a dead-letter topic is not."""
    settings = Settings(kafka=Kafka(topics=[], topic_pattern="orders.*"))
    async with testing.consumer(note, settings=settings, schemas={"orders-*": Order}) as app:
        await app.give(Order(1), topic="orders-eu")
        assert app.outcomes == [("note", "handled")]
        with pytest.raises(ValueError, match="is not consumed"):
            await app.give(Order(1), topic="orders-eu.dlq")


async def test_an_event_that_cannot_be_encoded() -> None:
    """Give raises what the encoder raised."""
    async with testing.consumer(note, schemas={"orders": Order}) as app:
        with pytest.raises((TypeError, msgspec.MsgspecError)):
            await app.give(object())


@pytest.mark.parametrize("schema", [{"framing": "confluent"}, {"format": "cloudevents"}])
async def test_records_of_an_unknown_tag(schema: dict[str, object]) -> None:
    """A route with unknown_tags gets the whole value of its records, whatever its annotation is."""
    given = b'{"specversion":"1.0","data":{"type":"Gift"}}' if "format" in schema else b'\0\0\0\0\1{"type":"Gift"}'
    schemas = {"orders": {"type": Payment | Refund, **schema}}
    async with testing.consumer(note, schemas=schemas, unknown_tags=True) as app:
        await app.give(given)
        assert [call.event for call in app.calls] == [given]
