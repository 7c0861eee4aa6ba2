"""Groups of the consumer protocol in tests: their configuration, their members, their state."""

from __future__ import annotations

from typing import Any, ClassVar

from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import Boolean, Int8, Int16, Int32, Schema, TaggedFields

from consumer.kafka.group_configs import GROUP, SESSION
from consumer.kafka.wire import TEXT, Pinned, array, tagged
from consumer.kafka.wire_questions import DescribeRequest
from tests.cluster import Cluster

CONSUMER = "kafka.group_protocol=consumer"
HEARTBEAT = "consumer.heartbeat.interval.ms"
SET = 0


class _Response(Response):
    API_KEY = 44
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "responses",
            array(("error_code", Int16), ("error_message", TEXT), ("resource_type", Int8), ("resource_name", TEXT)),
        ),
        ("tags", TaggedFields),
    )


class _Request(RequestStruct):
    API_KEY = 44
    API_VERSION = 1
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        (
            "resources",
            array(
                ("resource_type", Int8),
                ("resource_name", TEXT),
                ("configs", array(("name", TEXT), ("operation", Int8), ("value", TEXT))),
            ),
        ),
        ("validate_only", Boolean),
        ("tags", TaggedFields),
    )


class AlterConfigs(Pinned):
    """IncrementalAlterConfigs v1, which aiokafka lacks."""

    STRUCT: ClassVar[type[RequestStruct]] = _Request


async def short_session(cluster: Cluster, session_seconds: float = 3.0, heartbeat_seconds: float = 0.5) -> None:
    """Have the brokers miss the group's members soon."""
    values = {SESSION: session_seconds, HEARTBEAT: heartbeat_seconds}
    configs = [tagged(name, SET, str(int(seconds * 1000))) for name, seconds in values.items()]
    async with cluster.admin() as admin:
        node = admin._client.get_random_node()
        request = AlterConfigs([tagged(GROUP, cluster.kafka.group_id, configs)], False)
        answer = await admin._client.send(node, request)
    assert [each[:2] for each in answer.responses] == [(0, None)], answer


async def group_of(cluster: Cluster) -> dict[str, Any]:
    """Return the group as its coordinator has it: ``state``, ``epoch`` and the number of partitions of each member."""
    async with cluster.admin() as admin:
        coordinator = await admin.find_coordinator(cluster.kafka.group_id)
        answer = await admin._client.send(coordinator, DescribeRequest([cluster.kafka.group_id], False))
    ((code, _, _, state, epoch, _, assignor, members, *_),) = answer.groups
    counts = {each[0]: sum(len(numbers) for _, _, numbers, _ in each[8][0]) for each in members}
    return {"code": code, "state": state, "epoch": epoch, "assignor": assignor, "members": counts}
