"""aiokafka's clients: made from our settings, with the options that the daemon relies on."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    InvalidTopicError,
    NoError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from consumer.errors import KafkaError
from consumer.kafka.connection import connection_options
from consumer.kafka.dial import dial
from consumer.kafka.failures import ClientError
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

STOP_SECONDS = 3.0
CORRECT = "create it, or correct the name"
READING, WRITING = "READ and DESCRIBE", "WRITE and DESCRIBE"
"""Permissions that a topic needs."""
DENIED = TopicAuthorizationFailedError
NOWHERE = 2**62
"""An offset that no topic has."""
NO_TOPIC = (UnknownTopicOrPartitionError, InvalidTopicError)


class Assignor(RangePartitionAssignor):
    """Kafka's range assignor, with topics in order: another order of a static member would cause a rebalance."""

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> Any:
        """Return what this member tells the group's leader."""
        return super().metadata(sorted(topics))


def instance_id(kafka: Kafka) -> str | None:
    """Return the id of a static member; None without one."""
    return kafka.group_instance_id.replace("{hostname}", socket.gethostname()) or None


def make_consumer(kafka: Kafka, fetches_per_partition: int = 1) -> aiokafka.AIOKafkaConsumer:
    """Make the consumer of the daemon's group, not connected and not subscribed; ``kafka`` comes from ``dial``.

    ``fetch_bytes`` bounds the fetched bytes per partition; ``fetches_per_partition`` fetches share it.

    - No auto-commit: it commits records that were returned, not those that are done.
    - Reset "none": we choose the offset to start from, and commit it before the first record.
    - One assignor: two assignors would join the group twice.
    - Request timeout: a join takes as long as a rebalance, so requests must be allowed longer.
    - Poll interval of two rebalances: a drain, however long, is no reason to leave the group.
    - Metadata age 30 s, not 5 minutes: topics missing from one answer come back only with the next.
    - No group under the consumer protocol: the membership is ours, and partitions are assigned one by one.
    - Fetch wait 100 ms, not 500: an idle fetch keeps a busy partition waiting.
    """
    return aiokafka.AIOKafkaConsumer(
        **connection_options(kafka),
        group_id=kafka.group_id if kafka.group_protocol == "classic" else None,
        group_instance_id=instance_id(kafka),
        enable_auto_commit=False,
        auto_offset_reset="none",
        partition_assignment_strategy=(Assignor,),
        session_timeout_ms=_ms(kafka.session_timeout_seconds),
        heartbeat_interval_ms=_ms(kafka.heartbeat_interval_seconds),
        rebalance_timeout_ms=_ms(kafka.rebalance_timeout_seconds),
        max_poll_interval_ms=max(300_000, 2 * _ms(kafka.rebalance_timeout_seconds)),
        metadata_max_age_ms=30_000,
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=max(1, kafka.fetch_bytes // fetches_per_partition),
        isolation_level=kafka.isolation_level,
        check_crcs=True,
    )


@asynccontextmanager
async def open_reader(kafka: Kafka) -> AsyncIterator[aiokafka.AIOKafkaConsumer]:
    """Connect a consumer without a group and without partitions for the block; raises REQUEST_ERRORS."""
    reader = aiokafka.AIOKafkaConsumer(
        **connection_options(await dial(kafka)),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=kafka.isolation_level,
        max_partition_fetch_bytes=kafka.fetch_bytes,
    )
    try:
        await reader.start()
        yield reader
    finally:
        with contextlib.suppress(TimeoutError, ClientError, OSError):
            async with asyncio.timeout(STOP_SECONDS):
                await reader.stop()


@asynccontextmanager
async def open_admin(kafka: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client for the block; raises REQUEST_ERRORS."""
    admin = AIOKafkaAdminClient(**connection_options(await dial(kafka)))
    try:
        await admin.start()
        yield admin
    finally:
        with contextlib.suppress(TimeoutError, ClientError, OSError):
            async with asyncio.timeout(STOP_SECONDS):  # the end of TLS waits for the peer
                await admin.close()


async def require_topics(
    admin: AIOKafkaAdminClient, topics: Collection[str], remedy: str = CORRECT, setting: str = "kafka.topics"
) -> dict[str, int]:
    """Return the number of partitions of each topic. Raises KafkaError that names those missing or not permitted.

    Raises the client's errors too.
    """
    found = await _described(admin, topics, remedy, setting)
    return {topic: len(each["partitions"]) for topic, each in found.items()}


async def require_readable_topics(admin: AIOKafkaAdminClient, topics: Collection[str]) -> dict[str, int]:
    """Return the number of partitions of each topic as ``require_topics``; each may also be read.

    The leader of each first partition is asked for an offset that no topic has, so no record is sent. What one that
    is away, or any other error, leaves unknown is passed over: the daemon may begin without it.
    """
    found = await _described(admin, topics, CORRECT, "kafka.topics")
    led: dict[int, list[str]] = {}
    for topic, description in found.items():
        for each in description["partitions"]:
            if each["partition"] == 0 and each["leader"] >= 0:
                led.setdefault(each["leader"], []).append(topic)
    answers = await asyncio.gather(*(_denied(admin, leader, asked) for leader, asked in led.items()))
    if denied := sorted(topic for each in answers for topic in each):
        raise KafkaError(f"kafka.topics: permission denied on topic {_names(denied)}; grant {READING}")
    return {topic: len(each["partitions"]) for topic, each in found.items()}


async def _described(
    admin: AIOKafkaAdminClient, topics: Collection[str], remedy: str, setting: str
) -> dict[str, dict[str, Any]]:
    """Return the metadata of each topic, which all exist; the request creates none, as aiokafka's own may."""
    request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
    answer = await admin._send_request(request)
    found = {each["topic"]: each for each in answer.to_object()["topics"]}
    codes = {topic: for_code(found[topic]["error_code"]) if topic in found else NO_TOPIC[0] for topic in topics}
    if missing := [topic for topic, code in codes.items() if code in NO_TOPIC]:
        raise KafkaError(f"{setting}: no topic {_names(missing)}; {remedy}")
    needed = READING if setting == "kafka.topics" else WRITING
    if denied := [topic for topic, code in codes.items() if code is DENIED]:
        raise KafkaError(f"{setting}: permission denied on topic {_names(denied)}; grant {needed}")
    for code in codes.values():
        if code is not NoError:
            raise code
    return {topic: found[topic] for topic in topics}


async def committed_offsets(
    admin: AIOKafkaAdminClient, group: str, partitions: Collection[aiokafka.TopicPartition] | None = None
) -> dict[aiokafka.TopicPartition, aiokafka.OffsetAndMetadata]:
    """Return a group's committed offsets, -1 where it has none; all that it has without ``partitions``.

    Raises the answer's error. aiokafka takes one that concerns the whole group, such as that its coordinator is still
    loading, for "no offsets".
    """
    asked: dict[str, list[int]] = {}
    for topic, partition in partitions or ():
        asked.setdefault(topic, []).append(partition)
    coordinator = await admin.find_coordinator(group)
    request = OffsetFetchRequest(group, list(asked.items()) if partitions is not None else None)
    answer: Any = await admin._send_request(request, coordinator)
    codes = [getattr(answer, "error_code", 0), *(row[3] for _, rows in answer.topics for row in rows)]
    if code := next(filter(None, codes), 0):
        raise for_code(code)
    return {
        aiokafka.TopicPartition(topic, partition): aiokafka.OffsetAndMetadata(offset, metadata or "")
        for topic, rows in answer.topics
        for partition, offset, metadata, _ in rows
    }


async def _denied(admin: AIOKafkaAdminClient, leader: int, topics: Collection[str]) -> list[str]:
    """Return the topics of one leader that it does not let this client read; none without its answer."""
    request = FetchRequest(0, 0, 1, 0, [(topic, [(0, NOWHERE, 1)]) for topic in topics])
    try:
        async with asyncio.timeout(STOP_SECONDS):
            answer: Any = await admin._client.send(leader, request)
    except (ClientError, OSError, TimeoutError):
        return []
    return [topic for topic, rows in answer.topics for _, code, *_ in rows if for_code(code) is DENIED]


async def usable_topics(admin: AIOKafkaAdminClient) -> set[str]:
    """Return the topics that exist and that this client may use, also those that have no leader for a moment."""
    unusable = (*NO_TOPIC, DENIED)
    return {each["topic"] for each in await admin.describe_topics() if for_code(each["error_code"]) not in unusable}


async def matching_topics(admin: AIOKafkaAdminClient, pattern: re.Pattern[str]) -> list[str]:
    """Return the topics that a pattern matches. Raises KafkaError when there is none."""
    found = sorted(each["topic"] for each in await admin.describe_topics() if pattern.match(each["topic"]))
    if not found:
        raise KafkaError("kafka.topic_pattern: it matches no topic; create one, or correct the pattern")
    return found


def _names(topics: Collection[str]) -> str:
    return ", ".join(map(repr, topics))


def position_of(consumer: Any, key: TopicPartition) -> int | None:
    """Return the next offset that a consumer reads, or None; its public ``position()`` would wait for one."""
    subscription = consumer._subscription.subscription
    assignment = subscription.assignment if subscription is not None else None
    state = assignment.state_value(aiokafka.TopicPartition(*key)) if assignment is not None else None
    return state.position if state is not None and state.has_valid_position else None


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
