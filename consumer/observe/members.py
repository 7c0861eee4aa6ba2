"""The group as its coordinator describes it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from consumer.record import TopicPartition


class Member(NamedTuple):
    """One member of the group."""

    member_id: str
    client_id: str
    host: str
    partitions: int


class Membership(NamedTuple):
    """This member as it knows itself."""

    protocol: str = "classic"
    epoch: int = -1
    """Its generation, or epoch; negative while it is in no group."""
    answered_at: float = -math.inf
    """Monotonic time of the last answer to a heartbeat; of a classic member, of when the answered one was sent."""
    revoking: Collection[TopicPartition] = ()
    """Partitions that it lets go of now; under the classic protocol these are all."""
    unbegun: Mapping[TopicPartition, float] = MappingProxyType({})
    """Partitions that the group gave and that have not begun, with the monotonic time of the last assignment."""


class GroupDescription(NamedTuple):
    """The group at one time."""

    state: str
    """As the coordinator names it: ``Stable``, ``PreparingRebalance`` and so on."""
    members: list[Member]
    at: float
    """Seconds since 1970."""
    epoch: int = 0
    """Epoch of a group of the consumer protocol, which its members follow; 0 in a classic group."""


def epochs_behind(member: Membership, group: GroupDescription | None) -> int:
    """Return by how many epochs a member of the consumer protocol is behind its group; 0 where that is not known."""
    return max(0, group.epoch - member.epoch) if group is not None and group.epoch and member.epoch > 0 else 0
