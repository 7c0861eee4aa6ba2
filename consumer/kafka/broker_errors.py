"""Errors of brokers that aiokafka has no class for: it would name each of them UnknownError."""

from __future__ import annotations

from aiokafka import errors


class GroupMaxSizeReachedError(errors.BrokerResponseError):
    """The group has as many members as ``group.max.size`` of the brokers allows."""

    errno = 81
    message = "GROUP_MAX_SIZE_REACHED"


class FencedInstanceIdError(errors.BrokerResponseError):
    """Another member has joined with the same ``group.instance.id``."""

    errno = 82
    message = "FENCED_INSTANCE_ID"


for each in (GroupMaxSizeReachedError, FencedInstanceIdError):
    errors.kafka_errors[each.errno] = each
