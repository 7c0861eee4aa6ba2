"""The members of the group, as the coordinator describes them; asked on the client's own connections."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.protocol.admin import DescribeGroupsRequest

from consumer.errors import KafkaError
from consumer.kafka.failures import REQUEST_ERRORS, described
from consumer.kafka.positions import ANSWER_SECONDS
from consumer.kafka.source import KafkaSource
from consumer.logs import Sparingly
from consumer.observe.members import GroupDescription, Member

log = Sparingly(structlog.get_logger("consumer.kafka"))

ASK_SECONDS = 30.0
AGAIN_SECONDS = 3.0
"""The same while the group is not stable."""
LOOK_SECONDS = 1.0
"""Seconds between two looks whether this member has joined a new generation."""


class Group:
    """Asks the coordinator for the group's members; owned by the daemon and as long-lived."""

    def __init__(self, source: KafkaSource) -> None:
        self.description: GroupDescription | None = None
        """The last answer; None before the first."""
        self._source = source
        self._ask_at = 0.0
        self._asked_of = ("", -1)

    async def describe_forever(self) -> None:
        """Ask every ``ASK_SECONDS``, and when this member has joined a new generation."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            consumer, asked_of = self._source.client, (self._source.member_id, self._source.generation)
            if (
                consumer is not None
                and asked_of[1] >= 0
                and (time.monotonic() >= self._ask_at or asked_of != self._asked_of)
            ):
                self._asked_of = asked_of
                stable = await self._describe(consumer)
                self._ask_at = time.monotonic() + (ASK_SECONDS if stable else AGAIN_SECONDS)

    async def _describe(self, consumer: Any) -> bool:
        """Ask once; return whether the group is stable, or cannot be described."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                coordinator = consumer._coordinator.coordinator_id
                answer = await consumer._client.send(coordinator, DescribeGroupsRequest([self._source.group_id]))
                self.description = _read(answer)
        except (*REQUEST_ERRORS, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # any other comes from a task of the client
            log.info("group_not_described", why=described(error))
            return True
        return self.description.state == "Stable"


def _read(answer: Any) -> GroupDescription:
    """Read an answer; raise KafkaError if that is impossible: software of the group's leader wrote the assignments."""
    try:
        return _description_of(answer)
    except (LookupError, TypeError, ValueError) as error:
        raise KafkaError(f"the coordinator's answer cannot be read: {type(error).__name__}") from None


def _description_of(answer: Any) -> GroupDescription:
    """Return the first group of an answer. Raises KafkaError if the coordinator refused."""
    code, _group, state, _type, _protocol, members = answer.groups[0][:6]
    if code:
        raise KafkaError(f"the coordinator refused to describe it (error {code})")
    found = [
        Member(member_id, client_id, host.lstrip("/"), _count(assignment))
        for member_id, client_id, host, _metadata, assignment in members
    ]
    return GroupDescription(state, sorted(found), time.time())


def _count(assignment: bytes) -> int:
    """Return the number of partitions of a member; 0 before it has an assignment."""
    return len(ConsumerProtocolMemberAssignment.decode(assignment).partitions()) if assignment else 0
