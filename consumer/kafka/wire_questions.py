"""Questions about topics, by id, and about the members of a group, each in one pinned version."""

from __future__ import annotations

from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, Int16, Int32, Schema, TaggedFields

from consumer.kafka.wire import NUMBERS, TEXT, Pinned, Uuid, array

NAMED_PARTITIONS = array(("topic_id", Uuid), ("topic", TEXT), ("partitions", NUMBERS))
ASSIGNMENT = Schema(("topic_partitions", NAMED_PARTITIONS), ("tags", TaggedFields))


class TopicsResponse(Response):
    """The topics with their ids and names."""

    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", array(("node_id", Int32), ("host", TEXT), ("port", Int32), ("rack", TEXT))),
        ("cluster_id", TEXT),
        ("controller_id", Int32),
        (
            "topics",
            array(
                ("error_code", Int16),
                ("topic", TEXT),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", NUMBERS),
                        ("isr", NUMBERS),
                        ("offline_replicas", NUMBERS),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("tags", TaggedFields),
    )


class TopicsRequestStruct(RequestStruct):
    """Metadata v12, the first version that takes ids in place of names."""

    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = TopicsResponse
    SCHEMA = Schema(
        ("topics", array(("topic_id", Uuid), ("topic", TEXT))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class DescribeResponse(Response):
    """A consumer group as its coordinator has it: epochs, and each member's assignment."""

    API_KEY = 69
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            array(
                ("error_code", Int16),
                ("error_message", TEXT),
                ("group_id", TEXT),
                ("state", TEXT),
                ("group_epoch", Int32),
                ("assignment_epoch", Int32),
                ("assignor", TEXT),
                (
                    "members",
                    array(
                        ("member_id", TEXT),
                        ("instance_id", TEXT),
                        ("rack_id", TEXT),
                        ("member_epoch", Int32),
                        ("client_id", TEXT),
                        ("host", TEXT),
                        ("topics", CompactArray(TEXT)),
                        ("topic_regex", TEXT),
                        ("assignment", ASSIGNMENT),
                        ("target", ASSIGNMENT),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("tags", TaggedFields),
    )


class DescribeRequestStruct(RequestStruct):
    """ConsumerGroupDescribe v0."""

    API_KEY = 69
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = DescribeResponse
    SCHEMA = Schema(
        ("group_ids", CompactArray(TEXT)), ("include_authorized_operations", Boolean), ("tags", TaggedFields)
    )


class TopicsRequest(Pinned):
    """A question for topics by id."""

    STRUCT = TopicsRequestStruct


class DescribeRequest(Pinned):
    """A question for the members of a group."""

    STRUCT = DescribeRequestStruct
