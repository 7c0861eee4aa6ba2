"""Room: how much of a partition is taken in before finished records make room again."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from consumer import Record
from consumer.partition.chunk import Chunk
from consumer.record import TopicPartition
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.handlers import OVERLAPPING, Gate
from tests.unit.delivery.log_source import LogSource, is_at, keyed
from tests.unit.delivery.source import KEY, MemorySource
from tests.unit.delivery.waiting import rounds, until


async def test_a_slow_key_delays_no_other_while_there_is_room() -> None:
    """Behind a hanging call only its own key waits; other records go on, across chunks, until the room is used up."""
    keys = [b"slow" if number % 10 == 0 else b"%d" % number for number in range(400)]
    gate = Gate()
    source = LogSource(keyed(keys), chunk_records=7, gate=gate)
    gate.let(*(offset for offset, key in enumerate(keys) if key != b"slow"))
    async with an_engine_on(source, a_route(gate), ordering="key", concurrency=2, max_in_flight_records=41) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.ended) == 360)
        assert gate.running == [0]
        assert bench.engine.partitions[KEY].in_flight[0] == 40
        gate.open()
        await until(lambda: source.committed == source.end)
    assert not source.ahead


@pytest.mark.parametrize(
    ("limits", "most"),
    [({"max_in_flight_records": 4}, 4), ({"max_in_flight_bytes": 250, "max_in_flight_records": 50}, 3)],
)
@pytest.mark.parametrize("ordering", OVERLAPPING)
async def test_intake_stops_without_room_and_resumes(ordering: str, limits: dict[str, Any], most: int) -> None:
    """Records and bytes in flight bound the intake; finished records make room again."""
    gate = Gate()
    source = LogSource(keyed([b"a"] * 20, value=b"v" * 99), gate=gate)
    async with an_engine_on(source, a_route(gate), ordering=ordering, concurrency=8, **limits) as bench:
        bench.engine.assign([KEY])
        partition = bench.engine.partitions[KEY]
        for turn in range(5):
            await until(partial(is_at, partition, turn + most))
            await rounds()
            assert (partition.in_flight[0], partition.position) == (most, turn + most)
            gate.let(turn)
        gate.open()
        await until(lambda: source.committed == source.end)
        assert partition.in_flight == (0, 0)


async def test_one_full_partition_leaves_the_others_their_room() -> None:
    """Room is counted per partition: a full one takes nothing from another."""
    other = TopicPartition("t", 1)
    gate, source = Gate(), MemorySource()

    async def handle(event: bytes, record: Record) -> None:
        if record.partition == 0:
            await gate(event, record)

    async with an_engine_on(source, a_route(handle), ordering="key", max_in_flight_records=2) as bench:
        bench.engine.assign([KEY, other])
        source.give(Chunk(0, iter(keyed([b"a"] * 9)), 9))
        source.give(Chunk(0, iter(keyed([b"a"] * 50)), 50), key=other)
        await until(lambda: {other: 50} in source.commits)
        assert bench.engine.partitions[KEY].position == 2
        gate.open()
