"""Whether this client may join its group by the classic protocol; asked without changing anything."""

from __future__ import annotations

from typing import Any

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest

from consumer.kafka.client import Assignor
from consumer.settings.sections import Kafka


async def may_join(admin: AIOKafkaAdminClient, kafka: Kafka) -> None:
    """Ask to join, and leave before it counts: a broker first gives an id, with which the member comes again.

    Raises the client's errors, among them those by which the coordinator refuses.
    """
    client: Any = admin._client
    subscription = Assignor.metadata(kafka.topics).encode()
    session, rebalance = int(kafka.session_timeout_seconds * 1000), int(kafka.rebalance_timeout_seconds * 1000)
    protocols = [(Assignor.name, subscription)]
    join = JoinGroupRequest(kafka.group_id, session, rebalance, "", None, "consumer", protocols)  # type: ignore[arg-type]
    coordinator = await admin.find_coordinator(kafka.group_id)
    if not await _gives_ids(client, coordinator):
        return
    answer = await client.send(coordinator, join)
    if answer.member_id:
        await client.send(coordinator, LeaveGroupRequest(kafka.group_id, answer.member_id))
    error = errors.for_code(answer.error_code)
    if error not in (errors.NoError, errors.MemberIdRequired):
        raise error


async def _gives_ids(client: Any, node: int) -> bool:
    """Whether a broker gives a new member an id first; one before Kafka 2.2 would make it join at once."""
    if not await client.ready(node):
        raise errors.NodeNotReadyError
    connection = client._conns[node, ConnectionGroup.DEFAULT]
    return bool(connection._versions.get(JoinGroupRequest.API_KEY, (0, 0))[1] >= 4)
