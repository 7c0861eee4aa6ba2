"""Ask the brokers without joining the group: are they there, do the topics exist, may this client read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from aiokafka.admin import AIOKafkaAdminClient

from consumer.errors import KafkaError, KafkaUnreachableError
from consumer.kafka.client import ClientError, described, make_admin, require_topics
from consumer.settings import Kafka

Answer = TypeVar("Answer")


@asynccontextmanager
async def connected_admin(kafka: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client, or raise KafkaUnreachableError naming the servers."""
    admin = make_admin(kafka)
    try:
        try:
            async with asyncio.timeout(kafka.start_timeout_seconds):
                await admin.start()
        except (ClientError, OSError, TimeoutError) as error:
            servers = ", ".join(kafka.bootstrap_servers)
            why = "no answer" if isinstance(error, TimeoutError) else described(error)
            raise KafkaUnreachableError(f"kafka.bootstrap_servers: {servers} did not answer ({why})") from error
        yield admin
    finally:
        await admin.close()


async def probe_topics(kafka: Kafka) -> dict[str, int]:
    """Return each topic's number of partitions; raise for brokers that are away and topics that are missing."""
    async with connected_admin(kafka) as admin:
        return await _asked(kafka, lambda: require_topics(admin, kafka.topics))


async def probe_group(kafka: Kafka) -> str:
    """Say how far the group is; raise KafkaError when this client may not use it."""
    async with connected_admin(kafka) as admin:
        offsets = await _asked(kafka, lambda: admin.list_consumer_group_offsets(kafka.group_id))
    committed = [key for key, value in offsets.items() if key.topic in kafka.topics and value.offset >= 0]
    if not committed:
        return f"{kafka.group_id}: no committed offsets; starts at {kafka.offset_reset}"
    return f"{kafka.group_id}: offsets committed for {len(committed)} partitions"


async def _asked(kafka: Kafka, question: Callable[[], Awaitable[Answer]]) -> Answer:
    try:
        async with asyncio.timeout(kafka.start_timeout_seconds):
            return await question()
    except (ClientError, TimeoutError) as error:
        raise KafkaError(f"group {kafka.group_id!r}, topics {kafka.topics}: {described(error)}") from error
