"""Whether the brokers can be reached, and what must be known of the topics before a group is joined."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

import aiokafka
import structlog

from consumer.errors import KafkaError, KafkaUnreachableError
from consumer.kafka.client import committed_offsets, open_admin
from consumer.kafka.failures import REQUEST_ERRORS, explained
from consumer.kafka.probe import answered
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

log = structlog.get_logger("consumer.kafka")

ATTEMPT_SECONDS = 20.0
LOG_SECONDS = 10.0


class CommitNotes(NamedTuple):
    """Text that is committed with every offset."""

    write: Callable[[], str]
    read: Callable[[Iterable[str]], None] | None = None
    """Called at the first assignment with the notes of its partitions, if given."""


async def until_reachable(kafka: Kafka, attempt: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Repeat an attempt until it succeeds. Raises the last failure after ``seconds``, and a KafkaError at once.

    Without an end it repeats whatever was raised: a refusal may be taken back while the daemon runs.
    """
    begun = time.monotonic()
    logged_at, why = float("-inf"), ""
    while True:
        waited = time.monotonic() - begun
        try:
            async with asyncio.timeout(min(ATTEMPT_SECONDS, max(0.1, seconds - waited))):
                return await attempt()
        except REQUEST_ERRORS as error:
            if isinstance(error, KafkaError) and seconds < math.inf:
                raise
            why = why if why and isinstance(error, TimeoutError) else explained(error, kafka)
            waited = time.monotonic() - begun
            if waited + 0.5 >= seconds:
                raise KafkaUnreachableError(f"{why} (tried for {waited:.0f} s)") from error
            if time.monotonic() - logged_at > LOG_SECONDS:
                logged_at = time.monotonic()
                log.warning("brokers_unreachable", why=why)
            await asyncio.sleep(min(2.0, seconds / 10))


async def check_brokers(kafka: Kafka) -> None:
    """Connect once. Raises REQUEST_ERRORS."""
    async with open_admin(kafka):
        pass


async def notes_of(kafka: Kafka, counts: dict[str, int]) -> dict[TopicPartition, str]:
    """Return what the group's offsets carry as metadata; ``counts`` has the partitions of each topic."""
    async with open_admin(kafka) as admin:
        keys = [aiokafka.TopicPartition(topic, each) for topic, count in counts.items() for each in range(count)]
        found = await answered(kafka, lambda: committed_offsets(admin, kafka.group_id, keys))
    return {TopicPartition(*key): each.metadata for key, each in found.items()}
