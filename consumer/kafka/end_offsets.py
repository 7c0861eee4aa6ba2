"""End offsets of partitions: carried by answers to fetches, or asked for; and when a broker last answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any

import aiokafka
import structlog

from consumer.errors import KafkaError
from consumer.kafka.connection import refusals
from consumer.kafka.failures import described
from consumer.kafka.positions import ANSWER_SECONDS
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

log = structlog.get_logger("consumer.kafka")

QUIET_SECONDS = 2.0
"""Time without an answer after which a question that fails is an outage: fetches are answered once a second."""


class EndOffsets:
    """Finds the end offsets for this reader: the last stable offset under read_committed. Owned by the source."""

    def __init__(self, kafka: Kafka) -> None:
        self.heard_at = float("-inf")
        """Monotonic time of a broker's last answer."""
        self._kafka = kafka
        self._noted: dict[TopicPartition, int] = {}
        """Wall time of the last answer to a fetch of each partition, in milliseconds, as the client states it."""
        self._unreachable = False
        self._asking: asyncio.Future[Any] | None = None

    def fetched(self, consumer: Any) -> dict[TopicPartition, tuple[int, float]]:
        """Return the ends that answers to fetches carried since the last call, and the answers' monotonic times.

        An answer without records carries it too, so that of an idle partition is about a second old at most. The client
        states the time of an answer by the wall clock, which may be set: no answer is from the future, or counts twice.
        """
        subscription = consumer._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None:
            return {}
        stable = self._kafka.isolation_level == "read_committed"
        now = time.monotonic()
        monotonic_less_wall = now - time.time()
        found, noted = {}, {}
        for partition, state in assignment._tp_state.items():
            end = state.lso if stable and state.lso is not None and state.lso >= 0 else state.highwater
            if end is not None and end >= 0:
                key = TopicPartition(*partition)
                noted[key] = state.timestamp
                if self._noted.get(key) != state.timestamp:
                    found[key] = end, min(now, state.timestamp / 1000 + monotonic_less_wall)
        self._noted = noted
        self.heard(max((at for _, at in found.values()), default=self.heard_at))
        return found

    async def ask(self, consumer: Any, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Ask for the end offsets of partitions.

        Each broker gets its own request, and partitions of brokers that do not answer are missing in the result.
        Without partitions it requests metadata, to learn whether a broker answers.
        """
        by_leader: dict[int | None, list[aiokafka.TopicPartition]] = {}
        for key in keys:
            partition = aiokafka.TopicPartition(*key)
            by_leader.setdefault(consumer._client.cluster.leader_for_partition(partition), []).append(partition)
        asked = [_ends_of(consumer, partitions) for partitions in by_leader.values()]
        self._asking = asyncio.gather(*(asked or [_metadata_of(consumer)]), return_exceptions=True)
        try:
            answers = await self._asking
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return {}  # the client was stopped, and would not have been answered any more
        ends: dict[TopicPartition, int] = {}
        problem: str | None = None
        for answer in answers:
            if isinstance(answer, BaseException):
                problem = described(answer)
            else:
                ends |= answer
        if problem is None or ends:
            self.heard(time.monotonic())
        elif not self._unreachable and time.monotonic() - self.heard_at > QUIET_SECONDS:
            self._unreachable = True
            log.warning("brokers_unreachable", why=refusals(self._kafka) or problem)
        return ends

    def give_up(self) -> None:
        """End the question under way: its client is stopped."""
        if self._asking is not None:
            self._asking.cancel()

    def heard(self, at: float) -> None:
        """Note that a broker answered at ``at`` (monotonic), and log the end of an outage."""
        if at > self.heard_at:
            self.heard_at = at
            if self._unreachable:
                self._unreachable = False
                log.info("brokers_reachable")


async def _ends_of(consumer: Any, partitions: Collection[aiokafka.TopicPartition]) -> dict[TopicPartition, int]:
    async with asyncio.timeout(ANSWER_SECONDS):
        ends = await consumer.end_offsets(partitions)
    return {TopicPartition(*key): end for key, end in ends.items()}


async def _metadata_of(consumer: Any) -> dict[TopicPartition, int]:
    async with asyncio.timeout(ANSWER_SECONDS):
        if not await consumer._client.force_metadata_update():
            raise KafkaError("no metadata")
    return {}
