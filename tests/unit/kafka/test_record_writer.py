"""The record writer on a broker that refuses, is late or is fenced: every record has one outcome, and none is late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consumer.errors import SinkError
from consumer.instructions import Reject
from consumer.kafka import record_writer
from consumer.kafka.record_writer import RecordWriter
from consumer.record import NewRecord
from consumer.settings.sections import Kafka, Settings
from tests.fakes.broker import SILENCE
from tests.fakes.topics import PRODUCE, TopicsBroker

pytestmark = pytest.mark.usefixtures("producing")

TOO_LARGE, FENCED, DENIED, INVALID = 10, 90, 29, 87


def records(*values: bytes, topic: str = "a.clean") -> list[NewRecord]:
    return [NewRecord(topic, b"k", each, (("h", each), ("n", None)), 1 + index, 0) for index, each in enumerate(values)]


def refusing(bad: bytes, code: int) -> Any:
    return lambda _topic, batch: code if any(each.value.startswith(bad) for each in batch) else 0


def said(outcomes: Sequence[Reject | SinkError | None]) -> list[str]:
    return [each.code or "" if isinstance(each, Reject) else str(each or "written") for each in outcomes]


@asynccontextmanager
async def writing(broker: TopicsBroker, **kafka: Any) -> AsyncIterator[RecordWriter]:
    settings = Settings(kafka=Kafka(bootstrap_servers=[broker.bootstrap_servers], topics=["a"], **kafka))
    writer = RecordWriter(settings)
    try:
        async with asyncio.timeout(30):
            yield writer
    finally:
        await writer.close()


async def test_records_are_written_as_they_are() -> None:
    """Key, value, headers and timestamp are kept, also those of a record that has none of them."""
    bare = NewRecord("a.clean", None, None, (), -1, 0)
    async with TopicsBroker("a.clean") as broker, writing(broker) as writer:
        assert said(await writer.write([bare, *records(b"1", b"2"), bare, *records(b"3")])) == ["written"] * 5
        found = [(each.key, each.value, each.timestamp, each.headers) for each in broker.written]
    assert found == [
        (None, None, -1, []),
        (b"k", b"1", 1, [("h", b"1"), ("n", None)]),
        (b"k", b"2", 2, [("h", b"2"), ("n", None)]),
        (None, None, -1, []),
        (b"k", b"3", 1, [("h", b"3"), ("n", None)]),
    ]


@pytest.mark.parametrize(("error", "code"), [(TOO_LARGE, "too_large"), (INVALID, "record_refused")])
async def test_only_guilty_records_are_refused(error: int, code: str) -> None:
    """Records that a topic refuses are named, and all others are written once, in their order."""
    values = [b"bad %d" % each if each in (3, 41, 42, 99) else b"%d" % each for each in range(100)]
    async with TopicsBroker("a.clean") as broker, writing(broker) as writer:
        broker.refuses = refusing(b"bad", error)
        outcomes = said(await writer.write(records(*values)))
        assert outcomes == [code if each.startswith(b"bad") else "written" for each in values]
        assert broker.values == [each for each in values if not each.startswith(b"bad")]
        assert said(await writer.write(records(b"bad"))) == [code]


async def test_a_topic_of_small_batches_is_learned() -> None:
    """A topic that takes no large batch gets smaller ones; it refuses no record, and soon no batch either."""
    values = [b"%d" % each * 100 for each in range(500)]
    async with TopicsBroker("a.clean") as broker, writing(broker) as writer:
        broker.refuses = lambda _topic, batch: TOO_LARGE if len(batch) > 20 else 0
        assert said(await writer.write(records(*values))) == ["written"] * 500
        before = broker.producers
        assert said(await writer.write(records(*values))) == ["written"] * 500
        assert (broker.values, broker.producers) == (values * 2, before)


async def test_a_late_error_writes_no_later_record() -> None:
    """A producer that is fenced after some batches is replaced; the records behind that batch are not written."""
    async with TopicsBroker("a.clean") as broker, writing(broker) as writer:
        large = [b"%d" % each * 50_000 for each in range(9)]
        broker.refuses = refusing(b"4", FENCED)
        outcomes = said(await writer.write(records(*large)))
        count = len(broker.values)
        assert broker.values == large[:count]
        assert outcomes[:count] == ["written"] * count
        assert 0 < count < 5
        assert all("cannot be written to 'a.clean'" in each for each in outcomes[count:])
        broker.refuses = refusing(b"none", 0)
        assert said(await writer.write(records(*large[count:]))) == ["written"] * (9 - count)
        assert broker.values == large


@pytest.mark.parametrize("cancelled", [False, True])
async def test_nothing_is_written_after_its_call(cancelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of a call that ended early, in time or by a drain, are not written behind those of the next call."""
    monkeypatch.setattr(record_writer, "WRITE_SECONDS", 30.0 if cancelled else 1.0)
    async with TopicsBroker("a.clean") as broker, writing(broker) as writer:
        await writer.write(records(b"first"))
        broker.lacks = {"a.clean"}
        before = broker.requests[PRODUCE]
        call = asyncio.ensure_future(writer.write(records(b"old", b"older")))
        while broker.requests[PRODUCE] == before:
            await asyncio.sleep(0.01)
        if cancelled:
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            assert ["has not acknowledged" in each for each in said(await call)] == [True, True]
        broker.lacks = set()
        await writer.write(records(b"new"))
        assert broker.values == [b"first", b"new"]


async def test_a_silent_broker_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that never answers a write delays its records; they are written once it answers."""
    monkeypatch.setattr(record_writer, "WRITE_SECONDS", 1.0)
    async with TopicsBroker("a.clean") as broker, writing(broker) as writer:
        broker.answers[PRODUCE] = lambda *_: SILENCE
        assert "has not acknowledged" in said(await writer.write(records(b"1")))[0]
        broker.answers[PRODUCE] = broker.produced
        monkeypatch.setattr(record_writer, "WRITE_SECONDS", 20.0)
        assert said(await writer.write(records(b"1"))) == ["written"]


async def test_what_holds_says_why() -> None:
    """A missing topic, a denied one, and one that is consumed hold their records, and are named."""
    async with TopicsBroker("a", "a.clean", "a.dlq") as broker, writing(broker) as writer:
        (missing,) = said(await writer.write(records(b"1", topic="b.clean")))
        assert missing == "options.topic: no topic 'b.clean'; create it, or correct the option"
        broker.refuses = refusing(b"1", DENIED)
        (denied,) = said(await writer.write(records(b"1")))
        assert "'a.clean': permission denied to write to the topic; grant WRITE" in denied
        (circular,) = said(await writer.write(records(b"1", topic="a")))
        assert "'a' is consumed by this daemon" in circular
        (letters,) = said(await writer.write(records(b"1", topic="a.dlq")))
        assert "'a.dlq' takes dead letters" in letters
        assert broker.values == []


async def test_a_topic_that_appears_and_matches_the_pattern() -> None:
    """A topic that the pattern matches gets nothing, also one that was unknown at start."""
    async with TopicsBroker("a.clean") as broker, writing(broker, topic_pattern="a.*") as writer:
        assert "is consumed by this daemon" in said(await writer.write(records(b"1")))[0]


async def test_calls_at_the_same_time() -> None:
    """Calls with one record each may share a batch: none is refused for another, and what is delayed goes on."""
    async with TopicsBroker("a.clean") as broker, writing(broker) as writer:
        broker.refuses = refusing(b"bad", TOO_LARGE)
        values = [b"bad" if each == 7 else b"%d" % each for each in range(20)]

        async def until_final(value: bytes) -> str:
            while isinstance((outcome := (await writer.write(records(value)))[0]), SinkError):
                await asyncio.sleep(0.01)
            return said([outcome])[0]

        found = await asyncio.gather(*map(until_final, values))
        assert found == ["too_large" if each == b"bad" else "written" for each in values]
        assert sorted(broker.values) == sorted({*values} - {b"bad"})
