"""Both fetch paths deliver what was produced, once, from the group's offset."""

from __future__ import annotations

import pytest

from consumer.outcome import HaltReason
from consumer.partition.chunk import Chunk
from consumer.record import TopicPartition
from tests.cluster import Cluster, eventually
from tests.kafka.reader import CODECS, a_reader, commit_for_the_group, delete_below, produce_batches, some


@pytest.mark.parametrize("codec", CODECS)
async def test_records_arrive_unchanged(cluster: Cluster, path: str, codec: str | None) -> None:
    """Offset, key, value, headers and timestamp arrive unchanged, each record once, with every codec."""
    await cluster.create()
    records = some(0, 900, size=60)
    await produce_batches(cluster, records[:1], records[1:700], records[700:], codec=codec)
    async with a_reader(cluster, path) as reader:
        await reader.take_until(900)
    assert reader.taken[0] == records
    assert reader.counters.bytes_consumed[cluster.topic] > 0


@pytest.mark.parametrize("codec", [None, "zstd"])
@pytest.mark.parametrize("start", [0, 1, 499, 500, 777, 999])
async def test_a_start_in_the_middle_of_a_batch(cluster: Cluster, path: str, codec: str | None, start: int) -> None:
    """Delivery starts at the committed offset, though brokers send whole batches."""
    await cluster.create()
    records = some(0, 1000)
    await produce_batches(cluster, records[:500], records[500:], codec=codec)
    await commit_for_the_group(cluster, {0: start})
    async with a_reader(cluster, path) as reader:
        await reader.take_until(1000)
        assert reader.starts == [(0, start)]
    assert reader.taken[0] == records[start:]


async def test_a_batch_larger_than_a_fetch_arrives(cluster: Cluster, path: str) -> None:
    """A batch over ``fetch_bytes`` arrives whole, and many fetches in a row lose nothing."""
    await cluster.create()
    records = some(0, 3000, size=100)
    await produce_batches(cluster, *(records[at : at + 300] for at in range(0, 3000, 300)), codec=None)
    async with a_reader(cluster, path, fetch_bytes=4096) as reader:
        await reader.take_until(3000)
    assert reader.taken[0] == records


async def test_a_chunk_is_pulled_in_several_goes(cluster: Cluster, path: str) -> None:
    """A loop may stop in the middle of a chunk, and another loop goes on there."""
    await cluster.create()
    await produce_batches(cluster, some(0, 100))
    taken: list[int] = []
    async with a_reader(cluster, path) as reader:
        key = TopicPartition(cluster.topic, 0)

        async def a_chunk() -> Chunk | None:
            await reader.source.wait([key], 0.2)
            while (chunk := reader.source.take(key)) and chunk.next_offset == chunk.first_offset:
                pass
            return chunk

        chunk = await eventually(a_chunk)
        for limit in (1, 2, 30, 100):
            for raw in chunk.records:
                taken.append(raw.offset)
                if len(taken) >= limit:
                    break
        assert taken == list(range(100))
        assert list(chunk.records) == []


@pytest.mark.parametrize(("rule", "start"), [("earliest", 0), ("latest", 30)])
async def test_a_group_without_an_offset(cluster: Cluster, path: str, rule: str, start: int) -> None:
    """``offset_reset`` gives the first position, which is committed before the first record."""
    await cluster.create()
    await produce_batches(cluster, some(0, 30))
    async with a_reader(cluster, path, offset_reset=rule) as reader:
        await reader.take_until(30)
        assert await cluster.committed() == {0: start}
        await produce_batches(cluster, some(30, 5))
        await reader.take_until(35)
    assert reader.taken[0] == some(0, 35)[start:]


@pytest.mark.parametrize(("rule", "start"), [("earliest", 40), ("latest", 50), ("halt", None)])
async def test_an_offset_that_is_gone(cluster: Cluster, path: str, rule: str, start: int | None) -> None:
    """At a deleted offset the source goes on or halts, as ``out_of_range`` says."""
    await cluster.create(partitions=2)
    await produce_batches(cluster, some(0, 50))
    await produce_batches(cluster, some(0, 20), partition=1)
    await commit_for_the_group(cluster, {0: 5, 1: 0})
    await delete_below(cluster, 40)
    async with a_reader(cluster, path, out_of_range=rule) as reader:
        if start is None:

            async def halted() -> bool:
                await reader.take()
                return bool(reader.halts)

            await eventually(halted)
            assert reader.halts == [(0, HaltReason.OUT_OF_RANGE, 5)]
        else:
            await reader.take_until(50)
            assert reader.taken.get(0, []) == some(start, 50 - start)
        await reader.take_until(20, partition=1)
    assert reader.taken[1] == some(0, 20)
