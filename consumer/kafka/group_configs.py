"""Configuration of a group, which is the brokers' under the consumer group protocol."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka.protocol.admin import DescribeConfigsRequest

from consumer.kafka.coordinator import UNANSWERED, Coordinator

GROUP = 32
"""Type of the resource whose configuration it is."""
SESSION_SECONDS = 45.0
"""The brokers' default, assumed where the group's configuration cannot be read."""
SESSION, HEARTBEAT = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"


async def group_configs(coordinator: Coordinator, group_id: str) -> Mapping[str, float] | None:
    """Return seconds of a group's configuration, the brokers' default where it has none.

    Empty where this client may not read it (DESCRIBE_CONFIGS on the group); None without an answer.
    """
    try:
        answer = await coordinator.send(DescribeConfigsRequest([(GROUP, group_id, [SESSION, HEARTBEAT])]))
    except UNANSWERED:
        return None
    return {
        name: int(value) / 1000
        for code, _, _, _, entries in answer.resources
        for name, value, *_ in entries
        if not code and value
    }


async def group_session(coordinator: Coordinator, group_id: str, known: float) -> float:
    """Return the group's session in seconds; without an answer the one that was ``known`` before.

    A client that was replaced in an outage took the default of 45 s for a session of 6 s. Its member then called
    handlers for 39 s in which the group had given its partitions to others.
    """
    configs = await group_configs(coordinator, group_id)
    return known if configs is None else configs.get(SESSION, SESSION_SECONDS)
