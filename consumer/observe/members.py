"""The group as its coordinator describes it."""

from __future__ import annotations

from typing import NamedTuple


class Member(NamedTuple):
    """One member of the group."""

    member_id: str
    client_id: str
    host: str
    partitions: int


class GroupDescription(NamedTuple):
    """The group at one time."""

    state: str
    """As the coordinator names it: ``Stable``, ``PreparingRebalance`` and so on."""
    members: list[Member]
    at: float
    """Seconds since 1970."""
    epoch: int = 0
    """Epoch of a group of the consumer protocol, which its members follow; 0 in a classic group."""
