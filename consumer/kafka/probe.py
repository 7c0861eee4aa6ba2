"""Requests to the brokers outside the group: topics, committed offsets and end offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TypeVar

import aiokafka
import msgspec
from aiokafka.admin import AIOKafkaAdminClient

from consumer.errors import KafkaError
from consumer.kafka import connection
from consumer.kafka.client import CORRECT, committed_offsets, matching_topics, open_admin, open_reader, require_topics
from consumer.kafka.failures import ClientError, explained, unreachable
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka, Settings, matches_topic

Answer = TypeVar("Answer")
AGAIN_SECONDS = 0.2


@asynccontextmanager
async def connected_admin(kafka: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client for the block. Raises KafkaUnreachableError or KafkaError that says what failed."""
    async with AsyncExitStack() as opened:
        try:
            async with asyncio.timeout(3 * connection.CONNECT_SECONDS):  # a server, a broker, and the client
                admin = await opened.enter_async_context(open_admin(kafka))
        except (ClientError, OSError, TimeoutError) as error:
            raise unreachable(kafka, error) from error
        yield admin


async def with_topics(settings: Settings) -> Settings:
    """Return the settings with the topics that ``kafka.topic_pattern`` matches now, in place of the pattern.

    Raises KafkaUnreachableError, and KafkaError when it matches none.
    """
    if not settings.kafka.topic_pattern:
        return settings
    async with connected_admin(settings.kafka) as admin:
        topics = await answered(settings.kafka, lambda: matching_topics(admin, matches_topic(settings)))
    return msgspec.structs.replace(
        settings, kafka=msgspec.structs.replace(settings.kafka, topics=topics, topic_pattern="")
    )


async def probe_topics(kafka: Kafka, remedy: str = CORRECT, setting: str = "kafka.topics") -> dict[str, int]:
    """Return the number of partitions of each topic.

    Raises KafkaUnreachableError for unreachable brokers and KafkaError for missing topics.
    """
    async with connected_admin(kafka) as admin:
        return await answered(kafka, lambda: require_topics(admin, kafka.topics, remedy, setting))


async def group_offsets(kafka: Kafka) -> dict[TopicPartition, tuple[int | None, int]]:
    """Return the committed offset (None without one) and the end offset for a reader, by partition."""
    async with connected_admin(kafka) as admin, open_reader(kafka) as reader:
        topics = {each["topic"]: each["partitions"] for each in await answered(kafka, admin.describe_topics)}
        keys = [aiokafka.TopicPartition(t, p["partition"]) for t in kafka.topics for p in topics.get(t, ())]
        committed = await answered(kafka, lambda: committed_offsets(admin, kafka.group_id, keys))
        ends = await answered(kafka, lambda: reader.end_offsets(keys))
    offsets = {key: committed[key].offset if key in committed else -1 for key in keys}
    return {TopicPartition(*key): (offsets[key] if offsets[key] >= 0 else None, ends[key]) for key in keys}


async def answered(kafka: Kafka, question: Callable[[], Awaitable[Answer]]) -> Answer:
    """Repeat a request while its error is retriable, for ``start_timeout_seconds``. Raises KafkaError."""
    failures: list[ClientError] = []
    try:
        async with asyncio.timeout(kafka.start_timeout_seconds):
            return await retried(question, failures)
    except (ClientError, TimeoutError) as error:
        why = explained(failures[-1] if failures and isinstance(error, TimeoutError) else error, kafka)
        raise KafkaError(f"group {kafka.group_id!r}, topics {kafka.topics}: {why}") from error


async def retried(question: Callable[[], Awaitable[Answer]], failures: list[ClientError] | None = None) -> Answer:
    """Repeat a request while its error is retriable; the caller limits the time. ``failures`` gets the last error.

    The first use of a group finds no coordinator for a moment, and aiokafka asks any broker that the cluster names,
    also one that is away.
    """
    while True:
        try:
            return await question()
        except ClientError as error:
            if not error.retriable:
                raise
            if failures is not None:
                failures[:] = [error]
        await asyncio.sleep(AGAIN_SECONDS)


async def groups_offsets(kafka: Kafka, prefix: str) -> dict[str, dict[TopicPartition, tuple[int, str]]]:
    """Return the committed offsets and their metadata of each group whose name begins with ``prefix``."""
    async with connected_admin(kafka) as admin:
        groups = [name for name, *_ in await answered(kafka, admin.list_consumer_groups) if name.startswith(prefix)]
        found = {}
        for name in groups:
            offsets = await answered(kafka, partial(committed_offsets, admin, name))
            found[name] = {TopicPartition(*key): (each.offset, each.metadata) for key, each in offsets.items()}
    return found
