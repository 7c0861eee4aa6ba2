"""Delivery while workers come and go, at small size; ``make chaos`` runs it at full size."""

from __future__ import annotations

import pytest

from tests.chaos import checker
from tests.chaos.harness import SESSION_SECONDS, Plan, Run
from tests.chaos.history import Call, Commit
from tests.cluster import Cluster
from tests.kafka.groups import short_session

PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])


@PROTOCOLS
@pytest.mark.parametrize("ordering", ["key", "partition", "unordered"])
async def test_stops_joins_and_leaves_repeat_nothing(cluster: Cluster, ordering: str, protocol: str) -> None:
    """While workers stop, join and leave, nothing is lost, repeated, reordered or committed ahead."""
    plan = Plan(
        seed=7, ordering=ordering, events=6_000, rate=1_000.0, pause=(0.2, 1.0), disturbances=3, protocol=protocol
    )
    report = await Run(cluster, plan).go()
    assert report.broken == [], "\n".join(report.broken + report.said)
    assert report.disturbances >= 3
    assert report.calls == report.events


@PROTOCOLS
async def test_kills_lose_nothing(cluster: Cluster, protocol: str) -> None:
    """When workers are killed nothing is lost or reordered, and only uncommitted records are repeated."""
    await short_session(cluster, SESSION_SECONDS)
    plan = Plan(
        seed=11,
        ordering="key",
        events=6_000,
        rate=800.0,
        kills=True,
        pause=(0.5, 1.5),
        disturbances=3,
        protocol=protocol,
    )
    report = await Run(cluster, plan).go()
    assert report.broken == [], "\n".join(report.broken + report.said)
    assert report.disturbances >= 3


def a_call(offset: int, began: int, ended: int | None, key: str = "k") -> Call:
    return Call(0, offset, key, "w", began * 10_000_000, ended * 10_000_000 if ended is not None else None)


def a_commit(offset: int, at: int) -> Commit:
    return Commit(0, offset, at * 10_000_000)


GOOD = [a_call(0, 0, 1), a_call(1, 1, 2), a_call(2, 2, 3)]
PRODUCED = {0: [0, 1, 2]}


def test_the_checker_accepts_a_good_history() -> None:
    """A history without a fault breaks no invariant."""
    commits = [a_commit(1, 2), a_commit(3, 4)]
    assert checker.lost(PRODUCED, GOOD) == checker.ahead(PRODUCED, GOOD, commits) == checker.regressions(commits) == []
    assert checker.disorder(GOOD, "key") == checker.needless_repeats(GOOD, commits) == []
    assert checker.repeats(GOOD) == 0


def test_the_checker_finds_each_fault() -> None:
    """Each invariant is broken by a history with its fault, so the checker can fail."""
    assert checker.lost(PRODUCED, [*GOOD[:2], a_call(2, 2, None)])
    assert checker.ahead(PRODUCED, GOOD, [a_commit(3, 2)])
    assert checker.regressions([a_commit(3, 1), a_commit(2, 2)])
    assert checker.disorder([a_call(0, 0, 2), a_call(1, 1, 3)], "key")
    assert checker.disorder([a_call(1, 0, 1), a_call(0, 1, 2)], "partition")
    assert not checker.disorder([a_call(0, 0, 2, "a"), a_call(1, 1, 3, "b")], "key")
    assert checker.repeats([*GOOD, a_call(1, 5, 6)]) == 1
    assert checker.needless_repeats([*GOOD, a_call(1, 9, 10)], [a_commit(3, 4)])
