"""Requests of a member of Kafka's consumer group protocol (KIP-848), each in one pinned version, the commit in two.

The layouts are those of Apache Kafka's message definitions. A request that the broker does not have raises before
anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, Int16, Int32, Int64, Schema, TaggedFields

from consumer.kafka.wire import NO_TAGS, NUMBERS, TEXT, Nullable, Pinned, Uuid, array, tagged, takes

COMMITTED = array(("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", TEXT))
TOPIC_PARTITIONS = array(("topic_id", Uuid), ("partitions", NUMBERS))


class HeartbeatResponse(Response):
    """``assignment`` is None when nothing is new; else all partitions that the member may use now."""

    API_KEY = 68
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("error_message", TEXT),
        ("member_id", TEXT),
        ("member_epoch", Int32),
        ("heartbeat_interval_ms", Int32),
        ("assignment", Nullable(("topic_partitions", TOPIC_PARTITIONS), ("tags", TaggedFields))),
        ("tags", TaggedFields),
    )


class HeartbeatRequestStruct(RequestStruct):
    """ConsumerGroupHeartbeat v1, the first version in which the client makes the member id (Kafka 4.0)."""

    API_KEY = 68
    API_VERSION = 1
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = HeartbeatResponse
    SCHEMA = Schema(
        ("group_id", TEXT),
        ("member_id", TEXT),
        ("member_epoch", Int32),
        ("instance_id", TEXT),
        ("rack_id", TEXT),
        ("rebalance_timeout_ms", Int32),
        ("subscribed_topic_names", CompactArray(TEXT)),
        ("subscribed_topic_regex", TEXT),
        ("server_assignor", TEXT),
        ("topic_partitions", TOPIC_PARTITIONS),
        ("tags", TaggedFields),
    )


class OffsetCommitResponseV9(Response):
    """An error code for each partition."""

    API_KEY = 8
    API_VERSION = 9
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topics", array(("topic", TEXT), ("partitions", array(("partition", Int32), ("error_code", Int16))))),
        ("tags", TaggedFields),
    )


class OffsetCommitRequestStruct(RequestStruct):
    """OffsetCommit v9: the member's epoch stands where the generation was."""

    API_KEY = 8
    API_VERSION = 9
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetCommitResponseV9
    SCHEMA = Schema(
        ("group_id", TEXT),
        ("member_epoch", Int32),
        ("member_id", TEXT),
        ("instance_id", TEXT),
        ("topics", array(("topic", TEXT), ("partitions", COMMITTED))),
        ("tags", TaggedFields),
    )


class OffsetCommitResponseV10(Response):
    """An error code for each partition."""

    API_KEY = 8
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topics", array(("topic_id", Uuid), ("partitions", array(("partition", Int32), ("error_code", Int16))))),
        ("tags", TaggedFields),
    )


class OffsetCommitByIdStruct(RequestStruct):
    """OffsetCommit v10 (Kafka 4.2): topics by id, so that one that was made again takes no offset of the one before."""

    API_KEY = 8
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetCommitResponseV10
    SCHEMA = Schema(
        ("group_id", TEXT),
        ("member_epoch", Int32),
        ("member_id", TEXT),
        ("instance_id", TEXT),
        ("topics", array(("topic_id", Uuid), ("partitions", COMMITTED))),
        ("tags", TaggedFields),
    )


class OffsetFetchResponseV9(Response):
    """Offset and metadata of each partition that was asked for; -1 where the group has none."""

    API_KEY = 9
    API_VERSION = 9
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            array(
                ("group_id", TEXT),
                (
                    "topics",
                    array(
                        ("topic", TEXT),
                        (
                            "partitions",
                            array(
                                ("partition", Int32),
                                ("offset", Int64),
                                ("leader_epoch", Int32),
                                ("metadata", TEXT),
                                ("error_code", Int16),
                            ),
                        ),
                    ),
                ),
                ("error_code", Int16),
            ),
        ),
        ("tags", TaggedFields),
    )


class OffsetFetchRequestStruct(RequestStruct):
    """OffsetFetch v9: the member and its epoch say who asks."""

    API_KEY = 9
    API_VERSION = 9
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetFetchResponseV9
    SCHEMA = Schema(
        (
            "groups",
            array(
                ("group_id", TEXT),
                ("member_id", TEXT),
                ("member_epoch", Int32),
                ("topics", array(("topic", TEXT), ("partitions", NUMBERS))),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class HeartbeatRequest(Pinned):
    """A sign of life of a member: join, leave, or what it owns now."""

    STRUCT = HeartbeatRequestStruct


class OffsetCommitRequest(Pinned):
    """A commit under a member's epoch; it names topics by their ids where the broker takes these."""

    STRUCT = OffsetCommitRequestStruct

    def __init__(self, *fields: Any, ids: Sequence[UUID]) -> None:
        """``ids`` are those of the topics, in their order."""
        super().__init__(*fields)
        self.ids = ids

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> RequestStruct:
        """Return the request for a broker with these versions. Raises IncompatibleBrokerVersion."""
        if not takes(versions, OffsetCommitByIdStruct):
            return super().prepare(versions)
        *head, topics = self.fields
        rows = [tagged(topic_id, found) for topic_id, (_, found, _) in zip(self.ids, topics, strict=True)]
        return OffsetCommitByIdStruct(*head, rows, NO_TAGS)


class OffsetFetchRequest(Pinned):
    """A question for committed offsets under a member's epoch."""

    STRUCT = OffsetFetchRequestStruct
