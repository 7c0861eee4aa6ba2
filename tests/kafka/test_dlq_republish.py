"""``dlq redrive --to`` on a real Kafka, and dead letters end to end."""

from __future__ import annotations

import pytest

from consumer.dead_letters.letter import Writer
from consumer.kafka.letter_box import LetterBox
from consumer.kafka.producer import create_topic
from consumer.settings.sections import DeadLetterSettings
from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.dlq import NOON, a_letter, an_event, dlq, handled, homing, left, letters, put, read


async def test_republish(cluster: Cluster) -> None:
    """``--to`` writes the original records unchanged, with their timestamps and without the letter's headers."""
    await cluster.create(dead_letters=1)
    await create_topic(cluster.kafka, f"{cluster.topic}.again", 1)
    originals = [
        (b"k", b"\xff not even JSON", (("trace", b"7"), ("trace", None)), NOON, "undecodable", "none"),
        (b"k", None, (), NOON + 1, "exhausted", "gone"),
        (None, None, (), NOON + 2, "rejected", "all"),
        (b"", b"", (("__connect.errors.offset", b"mine"),), 0, "rejected", "all"),
    ]
    box = LetterBox(cluster.kafka, Writer(DeadLetterSettings(), cluster.kafka.group_id))
    for offset, (key, value, headers, timestamp, reason, route) in enumerate(originals):
        made = a_letter(
            cluster, offset, value, key=key, headers=headers, timestamp=timestamp, reason=reason, route=route
        )
        await box.send(made)
    await box.close()
    code, out, err = await dlq(cluster, "redrive", "--to", f"{cluster.topic}.again")
    assert (code, "redriven: 4 handled, 0 failed again" in out) == (0, True), err
    found = await read(cluster, f"{cluster.topic}.again")
    assert sorted((each.timestamp, each.key, each.value, tuple(each.headers)) for each in found) == sorted(
        (timestamp, key, value, headers) for key, value, headers, timestamp, *_ in originals
    )
    assert await left(cluster) == (0, 4)
    assert handled(cluster) == []


async def test_republish_that_is_refused(cluster: Cluster) -> None:
    """A refused record stays a letter, and so do those behind it; a missing topic is reported at once."""
    await cluster.create(dead_letters=1)
    await create_small_topic(cluster, f"{cluster.topic}.small")
    large = an_event("a" * 2000)
    await put(cluster, a_letter(cluster, 1), a_letter(cluster, 2, large), a_letter(cluster, 3))
    code, _, err = await dlq(cluster, "redrive", "--to", f"{cluster.topic}.small", "--rate", "10")
    assert code == 1
    assert (
        f"{cluster.topic}.dlq-0@1: topic '{cluster.topic}.small' refuses it: it is larger than max.message.bytes" in err
    )
    assert "it stays a dead letter" in err
    assert len(await letters(cluster)) == 3
    assert await left(cluster) == (2, 1)
    code, _, err = await dlq(cluster, "redrive", "--to", f"{cluster.topic}.missing")
    assert code == 1
    assert f"--to: no topic '{cluster.topic}.missing'; create it first" in err


async def create_small_topic(cluster: Cluster, topic: str) -> None:
    from aiokafka.admin import NewTopic  # noqa: PLC0415

    async with cluster.admin() as admin:
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "1000"})])
    await eventually(lambda: exists(cluster, topic))


async def exists(cluster: Cluster, topic: str) -> bool:
    async with cluster.admin() as admin:
        return topic in await admin.list_topics()


@pytest.mark.parametrize("dialect", ["connect", "spring"])
async def test_from_failure_to_redrive(cluster: Cluster, dialect: str) -> None:
    """In either dialect a daemon gives records up, list and show give the cause, and a redrive handles them."""
    await cluster.create(dead_letters=2)
    settings = (f"dead_letter.headers={dialect}", "retry.attempts=2", "retry.initial_seconds=0.01")
    await cluster.produce([an_event("bad"), a_session(1), b"{"])
    async with cluster.run(*settings, routes=homing(cluster)) as daemon:
        await eventually(lambda: is_committed(cluster, 3))
        assert await daemon.stop() == 0
    assert handled(cluster) == [("all", 1)]
    code, out, err = await dlq(cluster, "show", f"{cluster.topic}-0@0", overrides=settings)
    assert code == 0, err
    assert "builtins.ValueError" in out
    assert "homing.py:" in out
    code, out, err = await dlq(cluster, "redrive", overrides=settings)
    assert (code, "0 handled, 2 failed again" in out) == (1, True), err
    mended = a_route("recording:Recorder", "all", path=cluster.folder / "mended")
    code, out, err = await dlq(cluster, "redrive", "--reason", "exhausted", routes=mended, overrides=settings)
    assert (code, "1 handled, 0 failed again" in out) == (0, True), err
    names = {name for each in await letters(cluster) for name, _ in each.headers}
    assert all(
        name.startswith(("session-consumer.", "kafka_dlt-" if dialect == "spring" else "__connect.")) for name in names
    )
    assert await left(cluster) == (1, 1)


async def is_committed(cluster: Cluster, offset: int) -> bool:
    return await cluster.committed() == {0: offset}
