"""Writing dead letters to a real Kafka: which are accepted, refused or only delayed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from aiokafka.admin import NewTopic

from consumer.dead_letters.letter import Letter, Writer
from consumer.errors import LetterDelayedError, LetterRefusedError
from consumer.kafka.letter_box import LetterBox
from consumer.kafka.scan import open_scan
from consumer.record import TopicPartition
from consumer.settings.sections import DeadLetterSettings
from tests.cluster import Cluster, a_route, a_session, eventually

SMALL_BYTES = 20_000


def a_box(cluster: Cluster, **kafka: Any) -> LetterBox:
    settings = msgspec.structs.replace(cluster.kafka, **kafka)
    return LetterBox(settings, Writer(DeadLetterSettings(), settings.group_id))


def a_letter(cluster: Cluster, value: bytes | None = b"value", key: bytes | None = b"key", **fields: Any) -> Letter:
    return Letter(f"{cluster.topic}.dlq", key, value, fields.get("headers", []), fields.get("timestamp", 1000))


async def written(cluster: Cluster) -> list[tuple[TopicPartition, Any]]:
    async with open_scan(msgspec.structs.replace(cluster.kafka, topics=[f"{cluster.topic}.dlq"])) as scan:
        return [each async for each in scan.records()]


async def create_small(cluster: Cluster, partitions: int = 1) -> None:
    """Create a dead-letter topic that takes no record over 20 kB."""
    topic = f"{cluster.topic}.dlq"
    config = {"max.message.bytes": str(SMALL_BYTES)}
    async with cluster.admin() as admin:
        await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
    await eventually(lambda: exists(cluster, topic))


async def exists(cluster: Cluster, topic: str) -> bool:
    async with cluster.admin() as admin:
        return topic in await admin.list_topics()


@pytest.mark.parametrize("key", [b"key", b"", None])
@pytest.mark.parametrize("value", [b"value", b"", None])
async def test_a_letter_is_the_record(cluster: Cluster, key: bytes | None, value: bytes | None) -> None:
    """Missing and empty keys, values and headers, and any timestamp, arrive unchanged."""
    await cluster.create(dead_letters=1)
    box, headers = a_box(cluster), [("trace", b""), ("trace", None), ("größe", b"\xff")]
    for timestamp in (0, 1_000, 1_700_000_000_123):
        await box.send(a_letter(cluster, value, key, headers=headers, timestamp=timestamp))
    await box.close()
    found = [(raw.key, raw.value, list(raw.headers), raw.timestamp) for _, raw in await written(cluster)]
    assert found == [(key, value, headers, timestamp) for timestamp in (0, 1_000, 1_700_000_000_123)]


@pytest.mark.parametrize("value", [b"value", None])
async def test_a_record_without_a_timestamp(cluster: Cluster, value: bytes | None) -> None:
    """The letter of a record without a timestamp has none either."""
    await cluster.create(dead_letters=1)
    box = a_box(cluster)
    await box.send(a_letter(cluster, value, None, timestamp=-1))
    await box.close()
    ((_, raw),) = await written(cluster)
    assert (raw.timestamp, raw.value) == (-1, value)


async def test_letters_go_where_their_keys_go(cluster: Cluster) -> None:
    """With as many partitions, a letter's partition is its record's, as Kafka's default partitioner chooses it."""
    await cluster.create(5, dead_letters=5)
    box, keys = a_box(cluster), [b"k%d" % number for number in range(30)]
    async with cluster.producer() as producer:
        chosen = {key: (await producer.send_and_wait(cluster.topic, b"x", key)).partition for key in keys}
    for key in keys:
        await box.send(a_letter(cluster, key=key))
    await box.close()
    assert {raw.key: key.partition for key, raw in await written(cluster)} == chosen


async def test_a_missing_topic_is_refused(cluster: Cluster) -> None:
    """A missing topic is refused at once by name, is not created, and is used once it exists."""
    await cluster.create()
    box = a_box(cluster)
    async with asyncio.timeout(5):
        with pytest.raises(LetterRefusedError, match=f"there is no topic '{cluster.topic}.dlq' for it"):
            await box.send(a_letter(cluster))
    assert not await exists(cluster, f"{cluster.topic}.dlq")
    await create_small(cluster)
    await box.send(a_letter(cluster))
    await box.close()
    assert len(await written(cluster)) == 1


async def test_what_is_too_large_is_refused_alone(cluster: Cluster) -> None:
    """A letter that is too large is refused by name; later letters of the partition are written, by a new client."""
    await cluster.create()
    await create_small(cluster)
    box = a_box(cluster)
    await box.send(a_letter(cluster, b"first"))
    for number in range(3):
        with pytest.raises(
            LetterRefusedError, match=f"'{cluster.topic}.dlq' refuses it: it is larger than max.message.bytes"
        ):
            await box.send(a_letter(cluster, b"x" * 30_000))
        await box.send(a_letter(cluster, b"after %d" % number))
    await box.close()
    assert [raw.value for _, raw in await written(cluster)] == [b"first", b"after 0", b"after 1", b"after 2"]


async def test_one_that_is_refused_among_many(cluster: Cluster) -> None:
    """Letters beside a refused one are delayed at most: sent again, all but the large ones arrive."""
    await cluster.create()
    await create_small(cluster, 2)
    box = a_box(cluster)
    refused = []

    async def send(number: int) -> None:
        value = b"%d" % number if number % 10 else b"x" * 30_000
        while True:
            try:
                await box.send(a_letter(cluster, value, b"%d" % (number % 7)))
            except LetterDelayedError:
                await asyncio.sleep(0.01)
            except LetterRefusedError:
                refused.append(number)
                break
            else:
                break

    async with asyncio.timeout(20):
        await asyncio.gather(*(send(number) for number in range(100)))
    await box.close()
    assert sorted(refused) == list(range(0, 100, 10))
    assert {int(raw.value) for _, raw in await written(cluster)} == {number for number in range(100) if number % 10}


async def test_a_topic_that_takes_no_letter_without_a_key(cluster: Cluster) -> None:
    """A compacted topic refuses a letter without a key, and takes those that are written beside it."""
    await cluster.create()
    async with cluster.admin() as admin:
        config = {"cleanup.policy": "compact"}
        await admin.create_topics([NewTopic(f"{cluster.topic}.dlq", 1, 1, topic_configs=config)])
    await eventually(lambda: exists(cluster, f"{cluster.topic}.dlq"))
    box = a_box(cluster)
    letters = [a_letter(cluster, b"%d" % number, b"key" if number % 5 else None) for number in range(20)]

    async def send(letter: Letter) -> bool:
        while True:
            try:
                await box.send(letter)
            except LetterDelayedError:
                await asyncio.sleep(0.05)
            except LetterRefusedError as refused:
                return "the topic does not accept such a record: one without a key" not in str(refused)
            else:
                return True

    async with asyncio.timeout(30):
        taken = await asyncio.gather(*map(send, letters))
    await box.close()
    assert taken == [letter.key is not None for letter in letters]
    found = {raw.value for _, raw in await written(cluster)}
    assert found == {letter.value for letter in letters if letter.key is not None}


async def test_a_topic_that_is_deleted_under_a_letter(cluster: Cluster) -> None:
    """A letter whose topic is gone is refused; aiokafka would try it for ever."""
    await cluster.create(dead_letters=1)
    box = a_box(cluster)
    await box.send(a_letter(cluster))
    async with cluster.admin() as admin:
        await admin.delete_topics([f"{cluster.topic}.dlq"])

    async def gone() -> bool:
        return not await exists(cluster, f"{cluster.topic}.dlq")

    await eventually(gone)
    writing = asyncio.ensure_future(box.send(a_letter(cluster)))
    while not writing.done():
        await box.look()
        await asyncio.wait([writing], timeout=0.2)
    with pytest.raises((LetterDelayedError, LetterRefusedError)):
        await writing
    with pytest.raises(LetterRefusedError, match="there is no topic"):
        await box.send(a_letter(cluster))
    await box.close()


@pytest.mark.parametrize(("letters", "pace"), [(800, 0.0), (200, 0.002)])
async def test_letters_that_fit_alone_are_never_refused(cluster: Cluster, letters: int, pace: float) -> None:
    """Letters of which three exceed the topic's limit together all arrive, however many are sent at once."""
    await cluster.create()
    await create_small(cluster)
    box = a_box(cluster)

    async def send(number: int) -> None:
        await asyncio.sleep(number * pace)
        while True:
            try:
                await box.send(a_letter(cluster, b"x" * 9_000))
            except LetterDelayedError:
                await asyncio.sleep(0.1)
            else:
                break

    async with asyncio.timeout(60):
        await asyncio.gather(*map(send, range(letters)))
    await box.close()


async def test_a_letter_without_a_timestamp_takes_no_other(cluster: Cluster) -> None:
    """Each letter has the timestamp of its record, also none, whatever is written beside it."""
    await cluster.create(dead_letters=1)
    box = a_box(cluster)
    times = [-1, 1_700_000_000_000, 5, -1] * 10
    letters = [a_letter(cluster, b"%d" % number, b"k", timestamp=time) for number, time in enumerate(times)]
    await asyncio.gather(*map(box.send, letters))
    await box.close()
    found = {int(raw.value): raw.timestamp for _, raw in await written(cluster)}
    assert found == dict(enumerate(times))


async def test_brokers_that_are_away(cluster: Cluster) -> None:
    """A letter without a broker is delayed, not refused, and is no error that ends the daemon."""
    box = a_box(cluster, bootstrap_servers=["localhost:1"], start_timeout_seconds=0.5)
    with pytest.raises(LetterDelayedError):
        await box.send(a_letter(cluster))
    await box.close()


async def test_closed_without_a_letter(cluster: Cluster) -> None:
    """A letter box that was never used closes at once."""
    await a_box(cluster).close()


@pytest.mark.parametrize("overrides", [(), ("dead_letter.topic=",), ("dead_letter.topic={topic}.small",)])
async def test_a_halt_names_the_command_that_moves_on(cluster: Cluster, overrides: tuple[str, ...]) -> None:
    """Without a topic, or with one that refuses, the partition halts alone and its log line has the command."""
    await cluster.create(2)
    async with cluster.admin() as admin:
        config = {"max.message.bytes": "500"}
        await admin.create_topics([NewTopic(f"{cluster.topic}.small", 1, 1, topic_configs=config)])
    await eventually(lambda: exists(cluster, f"{cluster.topic}.small"))
    await cluster.produce([a_session(1), b"{" + b"x" * 600, a_session(2)])
    await cluster.produce([a_session(1)], partition=1)
    async with cluster.run(*overrides, routes=a_route("recording:Recorder", path=cluster.folder / "notes")) as daemon:
        halt = json.loads(await daemon.said("partition_halted"))
        assert (halt["partition"], halt["offset"], halt["reason"]) == (0, 1, "no_dead_letter")
        assert {
            (): f"there is no topic '{cluster.topic}.dlq' for it",
            ("dead_letter.topic=",): "dead_letter.topic is empty",
        }.get(overrides, "MessageSizeTooLarge") in halt["why"]
        assert "dead_letter.topic" in halt["remedy"]
        command = f"--group {cluster.kafka.group_id} --reset-offsets --topic {cluster.topic}:0 --to-offset 2 --execute"
        assert halt["remedy"].endswith(command)
        await eventually(lambda: is_committed(cluster, {0: 1, 1: 1}))
        assert await daemon.metric("halted", partition="0", reason="no_dead_letter") == 1
        assert await daemon.stop() == 0


async def is_committed(cluster: Cluster, offsets: dict[int, int]) -> bool:
    return await cluster.committed() == offsets


LOG = '[[routes]]\nname = "log"\nhandler = "consumer.handlers.log:Log"\n'


async def test_a_restart_into_the_same_storm(cluster: Cluster) -> None:
    """A daemon whose fuse has tripped writes at most a tenth of the window more when it is started again."""
    await cluster.create(2, dead_letters=1)
    for partition in range(2):
        await cluster.produce([b"undecodable"] * 200, partition)
    window = ("dead_letter.limit_window_records=100", "delivery.on_halt=exit", "kafka.fetch_bytes=1000")
    letters = []
    for _ in range(3):
        async with cluster.run(*window, routes=LOG) as daemon:
            assert await daemon.exit_code() == 74
        letters.append(len(await written(cluster)))
    first, second, third = letters
    assert 50 <= first <= 110  # records beside the last one may have begun theirs
    assert second - first <= 10
    assert third - second <= 10


async def test_a_missing_topic_is_told_at_the_start(cluster: Cluster) -> None:
    """The log warns of a dead-letter topic that does not exist, before there is any letter."""
    await cluster.create()
    async with cluster.run(routes=LOG) as daemon:
        assert f"{cluster.topic}.dlq" in await daemon.said("dead_letter_topic_missing")
        assert await daemon.stop() == 0
