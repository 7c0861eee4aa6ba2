"""Doubt of a member that does not acknowledge within the rebalance timeout: its group throws it out, session or not."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from consumer.kafka.membership import Place
from tests.fakes.coordinator import heartbeat_answer
from tests.unit.kafka.test_consumer_source import a_source, heard

ID = UUID(int=1)


@pytest.mark.parametrize(
    ("timeout", "drains_and_is_heard"),
    [
        (20.0, 0.0),  # with delivery.drain_seconds up to 13
        (60.0, 40.0),  # the defaults: slow ones drain for 25 s, quick ones go on for 21 s before that
    ],
)
def test_a_member_that_cannot_acknowledge_is_in_doubt_after_the_rebalance_timeout(
    timeout: float, drains_and_is_heard: float
) -> None:
    engine: Any = SimpleNamespace()
    source = a_source(engine, rebalance_timeout_seconds=timeout)
    source.joined, source._fetch, member = True, cast(Any, object()), source.member
    begun = time.monotonic()
    owned = {Place(ID, each) for each in range(4)}
    member.begin(begun)
    member.request(())
    member.take(heartbeat_answer(epoch=3, assignment=owned), begun, begun)
    member.request(owned)
    member.take(heartbeat_answer(epoch=3), begun + 1, begun + 1)
    acknowledged = [member.acknowledged]
    member.request(owned)
    revoked_at = begun + 2
    member.take(heartbeat_answer(epoch=3, assignment=[Place(ID, 0)]), revoked_at, revoked_at)
    assert [*acknowledged, member.acknowledged] == [True, False]
    heard_at = revoked_at + drains_and_is_heard
    member.request(owned)
    member.take(heartbeat_answer(epoch=3), heard_at, heard_at)
    # From here no heartbeat gets through, and none acknowledges. Partition 0 goes on.
    member.failed()
    source._member_at = begun
    assert source.session_seconds == 45.0
    assert not source.doubtful(heard_at + 1)
    # The coordinator has removed the member, and partition 0 is another member's.
    assert source.doubtful(revoked_at + timeout + 1)


def test_a_silent_member_is_in_doubt_after_a_rebalance_timeout_below_the_session() -> None:
    """The answer that took partitions away may have been lost."""
    source = a_source(SimpleNamespace(), rebalance_timeout_seconds=20.0)
    heard_at = heard(source)
    assert source.session_seconds == 45.0
    assert [source.doubtful(heard_at + after) for after in (19, 21)] == [False, True]


def test_a_slow_drain_alone_is_no_doubt() -> None:
    """While heartbeats are answered the member is in its group, however long it drains."""
    source = a_source(SimpleNamespace(), rebalance_timeout_seconds=20.0)
    now = heard(source)
    source.member.unacknowledged_since = now - 100
    assert not source.doubtful(now + 0.5)
