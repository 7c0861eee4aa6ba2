"""A coordinator's answer about a group, read: what software of other members wrote may be in it."""

from __future__ import annotations

import time
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from consumer.errors import KafkaError
from consumer.observe.members import GroupDescription, Member


def classic_description(answer: Any) -> GroupDescription:
    """Read the answer about a classic group. Raises KafkaError if the coordinator refused, or it cannot be read."""
    try:
        return _description_of(answer)
    except (LookupError, TypeError, ValueError) as error:
        raise KafkaError(f"the coordinator's answer cannot be read: {type(error).__name__}") from None


def consumer_description(answer: Any) -> GroupDescription:
    """Read the answer about a group of the consumer protocol. Raises KafkaError if the coordinator refused."""
    code, _text, _group, state, epoch, _assigned, _assignor, members, *_ = answer.groups[0]
    if code:
        raise KafkaError(f"the coordinator refused to describe it (error {code})")
    found = [
        Member(each[0], each[4], each[5].lstrip("/"), sum(len(numbers) for _, _, numbers, _ in each[8][0]))
        for each in members
    ]
    return GroupDescription(state, sorted(found), time.time(), epoch)


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
