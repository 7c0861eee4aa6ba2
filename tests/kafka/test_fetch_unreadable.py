"""Both fetch paths on batches and headers that cannot be read."""

from __future__ import annotations

import pytest

from consumer.errors import BatchTooLargeError, CorruptBatchError, KafkaError
from tests.cluster import Cluster, eventually
from tests.kafka.reader import (
    CODECS,
    Given,
    Reader,
    a_reader,
    arrived,
    commit_for_the_group,
    flip,
    produce_batch,
    produce_batches,
    produce_with_a_bad_key,
    some,
)


async def corrupt_at_take(reader: Reader, partition: int = 0) -> CorruptBatchError:
    """Take from a partition until that raises."""
    found: list[CorruptBatchError] = []

    async def raised() -> bool:
        try:
            await reader.take(partition)
        except CorruptBatchError as error:
            found.append(error)
        return bool(found)

    await eventually(raised)
    return found[0]


async def test_a_wrong_checksum_stops_its_partition_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong checksum raises with the batch's offset, after all before it; the other partition is complete."""
    await cluster.create(partitions=2)
    for partition in range(2):
        await produce_batches(cluster, some(0, 50), some(50, 50), some(100, 50), partition=partition)
    flip(monkeypatch, partition=0, offset=50)
    async with a_reader(cluster, "raw") as reader:
        error = await corrupt_at_take(reader)
        assert (error.offset, error.next_offset) == (50, 100)
        assert reader.taken[0] == some(0, 50)
        await reader.take_until(150, partition=1)
    assert reader.taken[1] == some(0, 150)


@pytest.mark.parametrize(("zstd", "start"), [(False, 0), (True, 0), (True, 15)])
async def test_a_bad_header_affects_one_record(cluster: Cluster, zstd: bool, start: int) -> None:
    """All records but the one whose header key is not UTF-8 arrive, compressed or not, from any start."""
    await cluster.create()
    async with cluster.producer(compression_type=None, max_batch_size=1 << 20, enable_idempotence=False) as producer:
        await produce_batch(producer, cluster.topic, some(0, 10))
        await produce_with_a_bad_key(producer, cluster.topic, some(10, 10), bad=13, zstd=zstd)
        await produce_batch(producer, cluster.topic, some(20, 10))
    await commit_for_the_group(cluster, {0: start})
    async with a_reader(cluster, "raw") as reader:
        await reader.take_until(30)
    there = [record for record in some(0, 30) if record.offset >= start]
    assert reader.offsets() == [record.offset for record in there if record.offset != 13]
    assert [record.value for record in reader.taken[0]] == [record.value for record in there if record.offset != 13]
    assert [error.reason for error in reader.undecodable] == ["bad_header"] * (start <= 13)
    for error in reader.undecodable:
        headers = (("%FFad-key", b""), ("session-consumer.escaped", b"%FFad-key"))
        assert arrived(error.record) == some(13, 1)[0]._replace(headers=headers)


@pytest.mark.parametrize("codec", CODECS[1:])
async def test_a_batch_over_the_limit_stops_its_partition_alone(cluster: Cluster, codec: str) -> None:
    """A batch over the limit raises with its offsets, after all before it; the other partition is complete."""
    await cluster.create(partitions=2)
    large = [Given(offset, None, bytes(1_500_000), (), 1_700_000_000_000) for offset in (50, 51)]
    async with cluster.producer(compression_type=codec, max_batch_size=1 << 22, max_request_size=1 << 23) as producer:
        for partition in range(2):
            await produce_batch(producer, cluster.topic, some(0, 50), partition)
        await produce_batch(producer, cluster.topic, large)
        await produce_batch(producer, cluster.topic, some(52, 8))
    async with a_reader(cluster, "raw", max_batch_bytes=1_000_000) as reader:
        error = await corrupt_at_take(reader)
        assert (type(error), error.offset, error.next_offset) == (BatchTooLargeError, 50, 52)
        assert "kafka.max_batch_bytes (1000000)" in str(error)
        assert reader.taken[0] == some(0, 50)
        await reader.take_until(50, partition=1)
    assert reader.taken[1] == some(0, 50)
    async with a_reader(cluster, "plain", max_batch_bytes=1_000_000) as reader:
        with pytest.raises(KafkaError, match="a batch cannot be uncompressed"):
            await reader.take_until(60)
    async with a_reader(cluster, "raw", max_batch_bytes=4_000_000) as reader:
        await reader.take_until(60)
    assert reader.taken[0] == [*some(0, 50), *large, *some(52, 8)]
