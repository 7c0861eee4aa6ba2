"""Republishing: what is written for each record, what is refused at start, and what an outcome does to its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from consumer import testing
from consumer.errors import SettingsError, SinkError
from consumer.handlers.republish import Republish
from consumer.instructions import Reject
from consumer.record import NewRecord, Position, Record, TopicPartition
from consumer.testing.source import GivenWriter
from schemas.session import Session
from schemas.wire import camel_case

HANDLER = "consumer.handlers.republish:Republish"
SESSION = {"timestamp": "2026-01-02T00:00:00Z", "session_id": "7", "agent_name": "Ada", "source": "+49301234"}

Outcomes = Sequence[Reject | SinkError | None]


class Paid(msgspec.Struct, tag=True, rename="camel"):
    order_id: int
    total: float = 0.0


class Cancelled(msgspec.Struct, tag=True):
    why: str


class Refunded(msgspec.Struct, tag=True):
    order_id: int


def routes(**options: Any) -> dict[str, Any]:
    keys = {"max_seconds": 0.1} if options.get("batch", True) else {"tombstones": options.pop("tombstones", False)}
    return {"routes": {"copy": {"handler": HANDLER, "options": {"topic": "{topic}.clean", **options}, **keys}}}


async def written(*events: Any, schemas: Any = None, topic: str | None = None, **options: Any) -> list[NewRecord]:
    async with testing.consumer(**routes(**options), schemas=schemas) as app:
        await app.give(*events, topic=topic, key=b"k", headers={"h": b"1", "n": None}, timestamp_ms=5)
        await app.advance(1)
        assert {each for _, each in app.outcomes} == {"handled"}
        return app.written


async def refused(**given: Any) -> str:
    with pytest.raises(SettingsError) as raised:
        async with testing.consumer(**given):
            pass
    return str(raised.value)


async def test_an_event_keeps_its_place() -> None:
    """Key, headers and timestamp are the record's; the value is the event in its one spelling."""
    camel = {camel_case(name): value for name, value in SESSION.items()}
    (found,) = await written(msgspec.json.encode(camel | {"unknown": 1}))
    assert (found.topic, found.key, found.timestamp_ms) == ("session-events.clean", b"k", 5)
    assert list(found.headers) == [("h", b"1"), ("n", None)]
    assert msgspec.json.decode(found.value or b"") == SESSION


async def test_the_original_is_kept() -> None:
    value = b' {"timestamp":"2026-01-02T00:00:00Z",\n"unknown":1, "sessionId":"7"}'
    assert [each.value for each in await written(value, original=True)] == [value]


@pytest.mark.parametrize("spelled", [str, camel_case])
async def test_fields_are_chosen_in_both_spellings(spelled: Any) -> None:
    """The chosen fields are written, in one spelling, whatever the record has; what is missing stays away."""
    event = {spelled(name): value for name, value in SESSION.items()}
    fields = ["session_id", "timestamp", "is_test"]
    (found,) = await written(event, fields=fields)
    assert found.value == b'{"session_id":"7","timestamp":"2026-01-02T00:00:00Z"}'


async def test_fields_of_a_union() -> None:
    """A field is written under its name in JSON, for each type that has it; the tag may be chosen."""
    schemas = {"orders": Paid | Cancelled}
    events = [Paid(7, 9.5), Cancelled("late")]
    found = await written(*events, schemas=schemas, fields=["order_id", "why", "type"])
    assert [each.value for each in found] == [b'{"orderId":7,"type":"Paid"}', b'{"why":"late","type":"Cancelled"}']
    assert {each.topic for each in found} == {"orders.clean"}


@pytest.mark.parametrize("others", [{}, {"others": dict}])
async def test_types_that_spell_a_field_differently(others: dict[str, Any]) -> None:
    """A field is found in each type of a route under the name that it has there, also beside a topic of dicts."""
    schemas = {"orders": Paid | Refunded, **others}
    found = await written(Paid(7), Refunded(8), schemas=schemas, topic="orders", fields=["order_id"])
    assert [each.value for each in found] == [b'{"orderId":7}', b'{"order_id":8}']


async def test_fields_of_a_dict() -> None:
    (found,) = await written({"a": 1, "b": [2]}, schemas={"orders": dict}, fields=["b", "z"])
    assert found.value == b'{"b":[2]}'


async def test_bytes_are_written_as_they_are() -> None:
    assert [each.value for each in await written(b"\xff", schemas={"raw": bytes})] == [b"\xff"]


async def test_tombstones() -> None:
    """A tombstone is written as one, by calls of single records."""
    found = await written(None, SESSION, batch=False, tombstones=True)
    assert [each.value is None for each in found] == [True, False]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"topic": ""}, "options.topic is empty"),
        ({"topic": "session-events"}, "'session-events' is consumed by this daemon"),
        ({"topic": "{topic}"}, "'session-events' is consumed by this daemon"),
        ({"topic": "{topic}.dlq"}, "'session-events.dlq' takes dead letters"),
        ({"topic": "{Topic} clean"}, "'{Topic} clean', for records of 'session-events', is no topic name"),
        ({"original": True, "fields": ["session_id"]}, "options.fields chooses fields of the event"),
        ({"fields": ["sesion_id"]}, "no field 'sesion_id'; did you mean 'session_id'?"),
    ],
)
async def test_options_that_cannot_be(options: dict[str, Any], why: str) -> None:
    message = await refused(**routes(**options))
    assert why in message
    assert "copy" in message


async def test_a_timeout_that_would_make_dead_letters_of_an_outage() -> None:
    """A limit below that of a write is refused: calls that it cuts off would count as attempts of their records."""
    given = routes()
    given["routes"]["copy"]["timeout_seconds"] = 19.9
    assert "timeout_seconds: the handler itself ends a call after 20 s" in await refused(**given)
    given["routes"]["copy"]["timeout_seconds"] = 20.0
    async with testing.consumer(**given):
        pass


async def test_bytes_have_no_fields() -> None:
    assert "options.fields: the events are bytes" in await refused(**routes(fields=["a"]), schemas={"raw": bytes})


async def test_a_circle_through_another_topic() -> None:
    """A target is refused if any topic of the daemon has its name, and only for topics that the route takes."""
    schemas = {"a": Session, "a.clean": Session}
    route = routes()["routes"]["copy"]
    assert "'a.clean' is consumed" in await refused(routes={"copy": route}, schemas=schemas)
    async with testing.consumer(routes={"copy": {**route, "topics": ["a.clean"]}}, schemas=schemas) as app:
        await app.give(SESSION, topic="a.clean")
        await app.advance(1)
        assert [each.topic for each in app.written] == ["a.clean.clean"]


class Scripted:
    """Outcomes of the next writes, by value; the rest is taken."""

    def __init__(self, *outcomes: dict[bytes, Reject | SinkError]) -> None:
        self._outcomes = list(outcomes)
        self.calls: list[list[bytes]] = []

    async def write(self, writer: GivenWriter, records: Sequence[NewRecord]) -> Outcomes:
        values = [each.value or b"" for each in records]
        self.calls.append(values)
        now = self._outcomes.pop(0) if self._outcomes else {}
        writer._written += [each for each in records if each.value not in now]
        return [now.get(each) for each in values]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    def play(*outcomes: dict[bytes, Reject | SinkError]) -> Scripted:
        scripted = Scripted(*outcomes)

        async def write(writer: GivenWriter, records: Sequence[NewRecord]) -> Outcomes:
            return await scripted.write(writer, records)

        monkeypatch.setattr(GivenWriter, "write", write)
        return scripted

    return play


KEY = TopicPartition("raw", 0)
RAW = {"raw": bytes}


async def test_a_refused_record_is_a_dead_letter_alone(script: Any) -> None:
    """Refused records become dead letters with their codes; what is written already is not written again."""
    large, wrong = Reject(code="too_large"), Reject(code="record_refused")
    scripted = script({b"2": large, b"4": wrong, b"5": large}, {b"4": wrong})
    async with testing.consumer(**routes(), schemas=RAW) as app:
        await app.give(*(b"%d" % each for each in range(6)))
        await app.advance(1)
        assert [(each.record.value, each.code) for each in app.dead_letters] == [
            (b"2", "too_large"),
            (b"5", "too_large"),
            (b"4", "record_refused"),
        ]
        assert [each.value for each in app.written] == [b"0", b"1", b"3"]
        assert scripted.calls == [[b"0", b"1", b"2", b"3", b"4", b"5"], [b"4"]]
        await app.commit()
        assert app.committed[KEY] == 6


async def test_what_is_not_acknowledged_is_not_committed(script: Any) -> None:
    """A batch of which one record is late holds its partition; only what was late is written again."""
    late = SinkError("not now")
    scripted = script({b"1": late}, {b"1": late})
    async with testing.consumer(**routes(), schemas=RAW) as app:
        await app.give(b"0", b"1", b"2")
        await app.advance(0.15)
        await app.commit()
        assert (app.committed, {each for _, each in app.outcomes}) == ({}, {"waiting"})
        await app.advance(5)
        assert ([each.value for each in app.written], app.committed[KEY]) == ([b"0", b"2", b"1"], 3)
        assert scripted.calls == [[b"0", b"1", b"2"], [b"1"], [b"1"]]
        assert app.dead_letters == []


async def test_another_record_at_the_same_offset_is_written(script: Any) -> None:
    """A record of a topic that was created again is not taken for the one before it."""
    handler, scripted = Republish("{topic}.clean"), script({b"1": SinkError("not now")})
    kept: list[NewRecord] = []
    handler.expect_writer(GivenWriter(kept))
    first = [Record("raw", 0, offset, 5, None, b"%d" % offset) for offset in range(2)]
    with pytest.raises(SinkError):
        await handler([each.value for each in first], first)
    other = [Record("raw", 0, offset, 6, None, b"new %d" % offset) for offset in range(2)]
    await handler([each.value for each in other], other)
    assert scripted.calls == [[b"0", b"1"], [b"new 0", b"new 1"]]


async def test_a_redriven_letter_goes_to_the_target_of_its_record(script: Any) -> None:
    """During a redrive the topic of the template is the record's first one."""
    scripted, kept = script(), list[NewRecord]()
    handler = Republish("{topic}.clean", batch=False)
    handler.expect_writer(GivenWriter(kept))
    letter = Record("raw.dlq", 0, 3, 5, None, b"1", letter_of=Position("raw", 1, 7))
    await handler(b"1", letter)
    assert ([each.topic for each in kept], scripted.calls) == (["raw.clean"], [[b"1"]])


async def test_an_event_without_a_form_in_json() -> None:
    """An event that JSON cannot hold is rejected, and the rest of its batch is written."""
    async with testing.consumer(**routes(), schemas={"orders": {"type": dict, "format": "msgpack"}}) as app:
        await app.give({"b": 1}, msgspec.msgpack.encode({"a": msgspec.msgpack.Ext(5, b"x")}), {"b": 2})
        await app.advance(1)
        assert [each.code for each in app.dead_letters] == ["not_json"]
        assert [each.value for each in app.written] == [b'{"b":1}', b'{"b":2}']
