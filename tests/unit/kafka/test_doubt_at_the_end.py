"""A member that has ended begins nothing more: it is in doubt until the process ends."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from consumer.errors import KafkaError
from consumer.kafka.consumer_source import ConsumerSource
from consumer.kafka.source import KafkaSource
from consumer.observe.counters import Counters
from consumer.partition.chunk import Chunk
from consumer.process import vitals
from consumer.process.vitals import DaemonVitals, Watching
from consumer.record import Record
from consumer.settings.sections import Kafka
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.source import KEY, MemorySource, RawRecord
from tests.unit.delivery.waiting import until


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
async def test_nothing_begins_after_another_member_took_the_instance_id(
    protocol: Literal["consumer", "classic"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """82: another member has the instance id and the partitions; what queues behind a busy key must not begin."""
    monkeypatch.setattr(vitals, "BEAT_SECONDS", 0.005)
    began: list[int] = []
    go = asyncio.Event()

    async def handle(_event: bytes, record: Record) -> None:
        began.append(record.offset)
        await go.wait()

    memory = MemorySource()
    memory.give(Chunk(0, iter([RawRecord(offset, b"x", b"a") for offset in range(3)]), 3))
    async with an_engine_on(memory, a_route(handle), ordering="key", commit_interval_seconds=3600.0) as bench:
        engine = bench.engine
        failed: list[Exception] = []
        kafka = Kafka(topics=["t"], group_id="g", group_protocol=protocol, group_instance_id="one")
        kind = ConsumerSource if protocol == "consumer" else KafkaSource
        source: Any = kind(kafka, Counters(["t"], []), failed.append)
        source._listener, source.joined = engine, True
        source._fetch = object()
        source._consumer = SimpleNamespace(_subscription=SimpleNamespace(reassignment_in_progress=False))
        if protocol == "consumer":
            source.member.epoch = 3
            source.member.heard_at = time.monotonic()
        source._member_at = time.monotonic()

        none: Any = SimpleNamespace()
        beats = DaemonVitals(source, engine, none, none, Watching(none, none, none, none), 60.0)
        beating = asyncio.create_task(beats.beat_forever())
        try:
            engine.assign([KEY])
            await until(lambda: began == [0] and engine.partitions[KEY].in_flight[0] == 3)
            # what Heartbeats._end does for 82, and what the lifecycle does after `fail`
            if protocol == "consumer":
                ended: asyncio.Future[KafkaError] = asyncio.get_running_loop().create_future()
                ended.set_result(KafkaError("82"))
                source._ends_with(ended)
            else:
                source._taken_over()
            assert failed
            stopping = asyncio.create_task(engine.stop())
            await asyncio.sleep(0.05)  # some beats, while one call is under way
            go.set()
            await stopping
        finally:
            beating.cancel()
    assert began == [0]
