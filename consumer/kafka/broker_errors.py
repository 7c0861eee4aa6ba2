"""Errors of brokers that aiokafka has no class for, and which errors of a write a repeat may cure.

aiokafka names an error that it does not know UnknownError, without its number, and never repeats the request.
"""

from __future__ import annotations

from typing import TypeVar

from aiokafka import errors

Code = TypeVar("Code", bound=type[errors.BrokerResponseError])


def _known(error: Code) -> Code:
    errors.kafka_errors[error.errno] = error
    return error


@_known
class FencedLeaderEpochError(errors.BrokerResponseError):
    """The partition has another leader by now."""

    errno, message, retriable, invalid_metadata = 74, "FENCED_LEADER_EPOCH", True, True


@_known
class UnknownLeaderEpochError(errors.BrokerResponseError):
    """The broker has not heard of the partition's leader yet."""

    errno, message, retriable = 75, "UNKNOWN_LEADER_EPOCH", True


@_known
class UnsupportedCompressionTypeError(errors.BrokerResponseError):
    """The topic's compression is not supported."""

    errno, message = 76, "UNSUPPORTED_COMPRESSION_TYPE"


@_known
class GroupMaxSizeReachedError(errors.BrokerResponseError):
    """The group has as many members as ``group.max.size`` of the brokers allows."""

    errno, message = 81, "GROUP_MAX_SIZE_REACHED"


@_known
class FencedInstanceIdError(errors.BrokerResponseError):
    """Another member has joined with the same ``group.instance.id``."""

    errno, message = 82, "FENCED_INSTANCE_ID"


@_known
class InvalidRecordError(errors.BrokerResponseError):
    """The topic does not accept the record, such as one without a key on a compacted topic."""

    errno, message = 87, "INVALID_RECORD"


@_known
class ThrottlingQuotaExceededError(errors.BrokerResponseError):
    """The client's quota is used up for now."""

    errno, message, retriable = 89, "THROTTLING_QUOTA_EXCEEDED", True


@_known
class ProducerFencedError(errors.BrokerResponseError):
    """A newer producer has this one's id."""

    errno, message = 90, "PRODUCER_FENCED"


@_known
class UnknownTopicIdError(errors.BrokerResponseError):
    """The topic was deleted, and perhaps made again."""

    errno, message, retriable, invalid_metadata = 100, "UNKNOWN_TOPIC_ID", True, True


@_known
class TransactionAbortableError(errors.BrokerResponseError):
    """The transaction cannot go on."""

    errno, message = 120, "TRANSACTION_ABORTABLE"


REFUSALS = {
    10: "it is larger than max.message.bytes of the topic",
    17: "the topic has an invalid name",
    18: "it is larger than segment.bytes of the topic",
    21: "the topic does not support acks=all",
    29: "permission denied to write to the topic; grant WRITE",
    31: "permission denied to write idempotently; grant IDEMPOTENT_WRITE on the cluster",
    32: "its timestamp is outside the topic's range (message.timestamp.before.max.ms and after.max.ms)",
    35: "the broker does not support the request",
    42: "the broker takes the request for invalid",
    43: "the topic's message format does not support it",
    44: "a policy of the broker refuses it",
    53: "permission denied for the transactional id",
    76: "the topic's compression is not supported",
    87: "the topic does not accept such a record: one without a key, when the topic is compacted",
}
"""Codes of a produce request that a repeat does not change, with the reason."""

OF_THE_RECORD = {10: "too_large", 18: "too_large", 32: "bad_timestamp", 87: "record_refused"}
"""Those of them that a record itself is guilty of, with the code of its dead letter."""
PERHAPS_ANOTHER = tuple(errors.kafka_errors[code] for code in OF_THE_RECORD)
"""Errors of a batch that may be due to the others in it."""

RETRIABLE = frozenset(
    {-1, 2, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 19, 20, 41, 45, 46, 47, 48, 49, 51, 52, 56, 59, 74, 75, 89, 90, 100, 120}
)
"""Codes of a produce request that a repeat, with a new client, may change. Every other code counts as one too."""


def guilt_of(error: BaseException) -> str | None:
    """Return the code of a record that is guilty of an error, if it was written alone; None for any other error."""
    return OF_THE_RECORD.get(error.errno) if isinstance(error, errors.BrokerResponseError) else None


def refusal_of(error: BaseException) -> str | None:
    """Return why a broker will never take a record; None if it may take it later."""
    for each in (error, error.__cause__):
        if isinstance(each, errors.BrokerResponseError) and each.errno in REFUSALS:
            return REFUSALS[each.errno]
    return None
