"""Configuration of a group, which is the brokers' under the consumer group protocol."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka.protocol.admin import DescribeConfigsRequest

from consumer.kafka.coordinator import UNANSWERED, Coordinator

GROUP = 32
"""Type of the resource whose configuration it is."""
SESSION, HEARTBEAT = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"


async def group_configs(coordinator: Coordinator, group_id: str) -> Mapping[str, float]:
    """Return seconds of a group's configuration, the brokers' default where it has none.

    Empty where this client may not read it (DESCRIBE_CONFIGS on the group), or without an answer.
    """
    try:
        answer = await coordinator.send(DescribeConfigsRequest([(GROUP, group_id, [SESSION, HEARTBEAT])]))
    except UNANSWERED:
        return {}
    return {
        name: int(value) / 1000
        for code, _, _, _, entries in answer.resources
        for name, value, *_ in entries
        if not code and value
    }
