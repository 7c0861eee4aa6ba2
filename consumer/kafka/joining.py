"""What a member of the consumer protocol needs before it joins: brokers that speak it, and its subscription."""

from __future__ import annotations

import asyncio

from aiokafka.errors import BrokerResponseError

from consumer.errors import KafkaError
from consumer.kafka.client import instance_id
from consumer.kafka.coordinator import UNANSWERED, Coordinator
from consumer.kafka.group_errors import NOT_SPOKEN, Reaction, ending, reaction
from consumer.kafka.membership import Subscription
from consumer.kafka.wire_questions import TopicsRequest
from consumer.kafka.wire_requests import HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest
from consumer.settings.sections import Kafka

AGAIN_SECONDS = 0.2
NEEDED = (HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest, TopicsRequest)
"""What a broker must take."""


def subscription_of(kafka: Kafka) -> Subscription:
    """Return what a member says of itself."""
    return Subscription(
        kafka.group_id,
        instance_id(kafka),
        int(kafka.rebalance_timeout_seconds * 1000),
        None if kafka.topic_pattern else sorted(kafka.topics),
        kafka.topic_pattern or None,
        kafka.group_remote_assignor or None,
    )


async def require_spoken(coordinator: Coordinator, kafka: Kafka) -> None:
    """Wait for a coordinator that does not answer.

    Raises KafkaError when it lacks a request, or when it is not shown to this client: without a right on the group.
    """
    while True:
        try:
            versions = await coordinator.versions()
        except UNANSWERED as error:
            if isinstance(error, BrokerResponseError) and reaction(error.errno) is Reaction.END:
                raise ending(error.errno, None, kafka, instance_id(kafka)) from error
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        if missing := [each.__name__ for each in NEEDED if not each.spoken(versions)]:
            raise KafkaError(f"{NOT_SPOKEN} (they lack {', '.join(missing)})")
        return
