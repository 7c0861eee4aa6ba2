"""The session of a group, which is its configuration at the brokers under the consumer group protocol."""

from __future__ import annotations

import asyncio

from aiokafka.protocol.admin import DescribeConfigsRequest

from consumer.kafka.coordinator import UNANSWERED, Coordinator

AGAIN_SECONDS = 0.2
GROUP = 32
"""Type of the resource whose configuration it is."""
SESSION_SECONDS = 45.0
"""The brokers' default, assumed where the group's configuration cannot be read."""
SESSION = "consumer.session.timeout.ms"


async def group_session(coordinator: Coordinator, group_id: str, known: float) -> float:
    """Return the group's session in seconds, the brokers' default where it has none; ``known`` where it is refused.

    ``known`` is the brokers' default at first, also where this client may not read it (DESCRIBE_CONFIGS on the group).

    A client that was replaced in an outage took these 45 s for a session of 6 s. Its member then called handlers for
    39 s in which the group had given its partitions to others.
    """
    for again in (True, True, False):
        try:
            answer = await coordinator.send(DescribeConfigsRequest([(GROUP, group_id, [SESSION])]))
            break
        except UNANSWERED:
            if not again:
                return known
            await asyncio.sleep(AGAIN_SECONDS)
    if any(code for code, *_ in answer.resources):
        return known
    found = (value for _, _, _, _, entries in answer.resources for _, value, *_ in entries if value)
    return next((int(value) / 1000 for value in found), SESSION_SECONDS)
