"""Rebalances of the last minutes."""

from __future__ import annotations

import msgspec

from consumer.http.rebalances import MANY, WINDOW_SECONDS, Rebalances
from consumer.http.status import MembershipStatus
from consumer.http.verdict import judge
from tests.statuses import AT, a_status
from tests.unit.http.scene import WALL, Scene


def test_a_member_that_comes_and_goes() -> None:
    """Many rebalances within the window are trouble since the first of them, and no more once they have left it."""
    rebalances = Rebalances()
    for number in range(MANY):
        assert rebalances.since is None
        rebalances.note(AT + 10 * number, number + 1)
    assert (len(rebalances), rebalances.since) == (MANY, AT)
    rebalances.note(AT + 100, MANY + 1)
    assert rebalances.since == AT
    rebalances.note(AT + 100 + WINDOW_SECONDS, MANY + 1)
    assert len(rebalances) == 1
    assert rebalances.since is None


def test_a_rebalance_loop_is_not_green() -> None:
    """The verdict counts the rebalances of the last minutes, and says since when."""
    scene = Scene()
    for number in range(8):
        scene.now += 5
        scene.counters.rebalances["revoked" if number % 2 else "lost"] += 1
        scene.reader.sample()
    group = scene.read().group
    assert (group.rebalances, group.rebalancing_since) == (8, WALL + 5)
    (verdict,) = judge(a_status(group=group))
    assert (verdict.word, verdict.tone, verdict.since) == ("Rebalancing", "warn", WALL + 5)
    assert verdict.sentence.startswith("The group has rebalanced 8 times in the last 2 min")
    assert verdict.runbook == "SessionConsumerRebalancing"
    assert verdict.sentence.endswith("drained all work each time.")
    consumer = msgspec.structs.replace(group, membership=MembershipStatus(protocol="consumer"))
    assert judge(a_status(group=consumer))[0].sentence.endswith("drained what moved each time.")
