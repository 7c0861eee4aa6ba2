"""The group's part of a Status: its members, and what this member knows of its place among them."""

from __future__ import annotations

import math

from consumer.http.partitions import Moment
from consumer.http.rebalances import Rebalances
from consumer.http.status import GroupStatus, MembershipStatus, MemberStatus
from consumer.observe.members import epochs_behind
from consumer.observe.observed import Observed


def group_status(observed: Observed, group_id: str, rebalances: Rebalances, now: Moment) -> GroupStatus:
    """Return the group as the coordinator described it last; without members before that."""
    found, me, often = observed.group, observed.member_id, (len(rebalances), rebalances.since)
    if found is None:
        return GroupStatus(group_id, "", [], None, *often, _membership(observed, now))
    members = [MemberStatus(*each, me=each.member_id == me) for each in found.members]
    return GroupStatus(group_id, found.state, members, found.at, *often, _membership(observed, now))


def _membership(observed: Observed, now: Moment) -> MembershipStatus:
    member = observed.membership
    at = now.wall_of(member.answered_at) if member.answered_at != -math.inf else None
    behind, revoking = epochs_behind(member, observed.group), sorted(map(str, member.revoking))
    return MembershipStatus(member.protocol, max(0, member.epoch), behind, at, revoking)
