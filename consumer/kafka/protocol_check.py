"""Whether the brokers speak the consumer group protocol, and what the group is now; asked without changing anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.admin import DescribeGroupsRequest

from consumer.errors import KafkaError, counted
from consumer.kafka.client import instance_id
from consumer.kafka.group_errors import NOT_SPOKEN, SENTENCES, Reaction, ending, reaction
from consumer.kafka.joining import NEEDED
from consumer.kafka.wire_questions import DescribeRequest
from consumer.kafka.wire_requests import HeartbeatRequest
from consumer.settings.sections import Kafka

MIGRATION = "group.consumer.migration.policy"
MIGRATES = ("bidirectional", "upgrade")
GROUP_ID_NOT_FOUND = 69


class ProtocolCheck:
    """One look at the brokers and the group, for ``check``."""

    def __init__(self, admin: AIOKafkaAdminClient, kafka: Kafka) -> None:
        self._admin = admin
        self._client: Any = admin._client
        self._kafka = kafka

    async def sentence(self) -> str:
        """Return what is spoken and how the group goes on. Raises KafkaError, and the client's errors."""
        low, high = await self._versions()
        coordinator = await self._admin.find_coordinator(self._kafka.group_id)
        await self._may_join(coordinator)
        spoken = f"consumer protocol (the brokers take heartbeats v{low} to v{high})"
        return f"{spoken}, {await self._state(coordinator)}"

    async def _versions(self) -> tuple[int, int]:
        """Return the versions of heartbeats that every broker takes. Raises KafkaError for a broker without them."""
        found = []
        for broker in self._client.cluster.brokers():
            if not await self._client.ready(broker.nodeId):
                raise errors.NodeNotReadyError
            versions: Mapping[int, tuple[int, int]] = self._client._conns[
                broker.nodeId, ConnectionGroup.DEFAULT
            ]._versions
            if missing := [each.__name__ for each in NEEDED if not each.spoken(versions)]:
                raise KafkaError(f"{NOT_SPOKEN} (broker {broker.nodeId} lacks {', '.join(missing)})")
            found.append(versions[HeartbeatRequest.STRUCT.API_KEY])
        return max(low for low, _ in found), min(high for _, high in found)

    async def _may_join(self, coordinator: int) -> None:
        """Send a heartbeat of a member that does not exist: a broker refuses it before it changes anything."""
        name = str(uuid4())
        request = HeartbeatRequest(self._kafka.group_id, name, 1, None, None, -1, None, None, None, None)
        code = (await self._client.send(coordinator, request)).error_code
        if code and reaction(code) is Reaction.END:
            raise ending(code, None, self._kafka, instance_id(self._kafka))
        if code and reaction(code) is not Reaction.JOIN:
            raise errors.for_code(code)

    async def _state(self, coordinator: int) -> str:
        answer = await self._client.send(coordinator, DescribeRequest([self._kafka.group_id], False))
        code, _, _, state, epoch, _, assignor, members, *_ = answer.groups[0]
        if not code:
            return f"{state.lower()} at epoch {epoch} with {counted(len(members), 'member')}, assignor {assignor}"
        if code != GROUP_ID_NOT_FOUND:
            raise errors.for_code(code)
        answer = await self._client.send(coordinator, DescribeGroupsRequest([self._kafka.group_id]))
        count = len(answer.groups[0][5])
        if not count:
            return "no members"
        policy = await self._migration(coordinator)
        if policy and policy not in MIGRATES:
            raise KafkaError(f"{SENTENCES[GROUP_ID_NOT_FOUND].format(group=self._kafka.group_id)} (it is {policy})")
        return f"classic now with {counted(count, 'member')}: it migrates when the first member joins by this protocol"

    async def _migration(self, broker: int) -> str:
        """Return the migration policy of a broker; empty where this client may not read it."""
        resource = ConfigResource(ConfigResourceType.BROKER, str(broker), {MIGRATION: None})
        answer: Any
        (answer,) = await self._admin.describe_configs([resource])
        ((code, _, _, _, entries),) = answer.resources
        return next((str(value) for name, value, *_ in entries if name == MIGRATION), "") if not code else ""
