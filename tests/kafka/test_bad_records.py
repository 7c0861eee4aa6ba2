"""Every documented kind of bad record on a real Kafka: its outcome, and that other records go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka.record.util import calc_crc32c

from consumer.kafka.local.cluster import LocalKafka
from tests.chaos import failing
from tests.chaos.failing import BAD, MAX_RECORD_BYTES, Sent
from tests.cluster import Cluster, a_route, a_session, eventually

SMALL = (f"delivery.max_record_bytes={MAX_RECORD_BYTES}", "retry.attempts=2", "retry.initial_seconds=0.01")
BATCH_AT = 5
"""Offset at which the batch that cannot be read begins; it holds five records."""


async def one_of(cluster: Cluster, kind: str) -> Sent:
    """Produce one record of a kind between two good ones."""
    number = next(number for number in range(200) if failing.kind_of(number) == kind)
    record = failing.a_record(number)
    async with cluster.producer(enable_idempotence=False) as producer:
        batch = producer.create_batch()
        for value, headers in (
            (a_session(1), []),
            (record.value, [("bad-key", b"x")] if kind == "bad_header" else list(record.headers)),
            (a_session(2), []),
        ):
            batch.append(timestamp=record.timestamp, key=record.key, value=value, headers=headers)
        if kind == "bad_header":
            built = bytearray(batch._build())
            built[built.index(b"bad-key")] = 0xFF
            built[17:21] = calc_crc32c(bytes(built[21:])).to_bytes(4, "big")
            batch._buffer = built
        await (await producer.send_batch(batch, cluster.topic, partition=0))
    return record


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_record_becomes_a_dead_letter(cluster: Cluster, kind: str) -> None:
    """A bad record becomes a letter with its own content and reason, and both neighbours are handled."""
    await cluster.create(dead_letters=1)
    record = await one_of(cluster, kind)
    folder = cluster.folder / "done"
    folder.mkdir()
    async with cluster.run(*SMALL, routes=a_route("failing:Failing", folder=folder)) as daemon:
        await eventually(lambda: is_committed(cluster, {0: 3}))
        assert await daemon.metric("dead_letters_total", reason=BAD[kind]) == 1
        assert await daemon.stop() == 0
    (letter,) = await failing.letters(cluster)
    assert letter.record == record._replace(kind="")
    assert (letter.context.reason, letter.context.origin) == (BAD[kind], (cluster.topic, 0, 1))
    assert [each.place for each in failing.handled(folder)] == [(0, 0), (0, 2)]


async def test_a_tombstone_is_skipped(cluster: Cluster) -> None:
    """A null value is counted as skipped, and no dead letter is written."""
    await cluster.create(dead_letters=1)
    await cluster.produce([a_session(1), None, a_session(2)])
    async with cluster.run(*SMALL) as daemon:
        await eventually(lambda: is_committed(cluster, {0: 3}))
        assert await daemon.metric("outcomes_total", route="none", outcome="skipped") == 1
    assert await failing.letters(cluster) == []


async def is_committed(cluster: Cluster, offsets: dict[int, int]) -> bool:
    return await cluster.committed() == offsets


def wrong_checksum(batch: bytearray) -> None:
    batch[-1] ^= 0xFF


def cut_records(batch: bytearray) -> None:
    """Make a record that claims to be longer than its batch, with a correct checksum."""
    batch[61] = 0x7E
    set_checksum(batch)


def unknown_codec(batch: bytearray) -> None:
    batch[22] |= 6
    set_checksum(batch)


def set_checksum(batch: bytearray) -> None:
    batch[17:21] = calc_crc32c(bytes(batch[21:])).to_bytes(4, "big")


@pytest.mark.parametrize("spoil", [wrong_checksum, cut_records, unknown_codec])
async def test_a_corrupt_batch_halts_its_partition_alone(tmp_path: Path, spoil: Callable[[bytearray], None]) -> None:
    """Records before a corrupt batch are committed; the logged command moves past it."""
    async with LocalKafka(folder=tmp_path / "kafka") as kafka:
        cluster = Cluster(kafka.bootstrap_servers, spoil.__name__, tmp_path)
        await cluster.create(2, dead_letters=1)
        for partition in (0, 1):
            for first in (0, 5, 10):
                await produce_batch(cluster, [a_session(number) for number in range(first, first + 5)], partition)
        spoil_on_disk(tmp_path / "kafka" / "node-1" / "data" / f"{cluster.topic}-0", spoil)
        async with cluster.run() as daemon:
            halt = json.loads(await daemon.said("partition_halted"))
            await eventually(lambda: is_committed(cluster, {0: BATCH_AT, 1: 15}))
            assert (halt["partition"], halt["offset"], halt["reason"]) == (0, BATCH_AT, "corrupt_batch")
            assert f"--topic {cluster.topic}:0 --to-offset 10 --execute" in halt["remedy"]
            assert await daemon.metric("halted", reason="corrupt_batch", partition="0") == 1
            status, text = await daemon.get("/readyz")
            assert (status, f"{cluster.topic}-0" in text) == (503, True)
            assert (await daemon.get("/healthz"))[0] == 200
            assert await daemon.stop() == 0


async def produce_batch(cluster: Cluster, values: list[bytes], partition: int, **options: Any) -> None:
    async with cluster.producer(**options) as producer:
        batch = producer.create_batch()
        for value in values:
            assert batch.append(timestamp=None, key=b"key", value=value)
        await (await producer.send_batch(batch, cluster.topic, partition=partition))


def spoil_on_disk(folder: Path, spoil: Callable[[bytearray], None]) -> None:
    """Change the second batch in a partition's file; the broker does not check what it serves."""
    file = folder / "00000000000000000000.log"
    data = bytearray(file.read_bytes())
    first = 12 + int.from_bytes(data[8:12], "big")
    second = first + 12 + int.from_bytes(data[first + 8 : first + 12], "big")
    batch = data[first:second]
    spoil(batch)
    with file.open("r+b") as opened:
        opened.seek(first)
        opened.write(batch)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
async def test_a_bomb_halts_its_partition_alone(cluster: Cluster, codec: str) -> None:
    """A batch over ``kafka.max_batch_bytes`` is never decompressed; a larger limit reads it after a restart."""
    await cluster.create(2, dead_letters=1)
    large = b'{"timestamp":"2024-10-21T14:05:00Z","agent_name":"%s"}' % (b"a" * 900_000)
    for partition in (0, 1):
        await produce_batch(cluster, [a_session(1)], partition)
    await produce_batch(
        cluster, [large] * 4, 0, compression_type=codec, max_batch_size=1 << 23, max_request_size=1 << 23
    )
    await produce_batch(cluster, [a_session(2)], 0)
    async with cluster.run("kafka.max_batch_bytes=2000000", name="small") as daemon:
        halt = json.loads(await daemon.said("partition_halted"))
        assert (halt["reason"], halt["offset"]) == ("batch_too_large", 1)
        assert "kafka.max_batch_bytes" in halt["remedy"]
        await eventually(lambda: is_committed(cluster, {0: 1, 1: 1}))
        assert await daemon.stop() == 0
    async with cluster.run(name="large") as daemon:
        await eventually(lambda: is_committed(cluster, {0: 6, 1: 1}))
        assert await daemon.stop() == 0


async def test_on_halt_exit(cluster: Cluster) -> None:
    """With ``on_halt = "exit"`` a halt drains the daemon and ends it with 74, naming record and remedy."""
    await cluster.create()
    await cluster.produce([a_session(1), b"bad", a_session(2)])
    async with cluster.run("delivery.on_halt=exit", "dead_letter.topic=") as daemon:
        async with asyncio.timeout(30):
            assert await daemon.exit_code() == 74
    (error,) = daemon.errors
    assert f"topic {cluster.topic}, partition 0, offset 1" in error
    assert "--to-offset 2 --execute" in error
    assert await cluster.committed() == {0: 1}


def test_the_kinds_are_not_forgotten() -> None:
    """Each bad kind of the failure run has its row above."""
    assert set(BAD) <= {failing.kind_of(number) for number in range(200)}
