"""The watchdog tells a stall from waiting, rebalancing, holding, halts, absent brokers and a suspended process."""

from __future__ import annotations

import math
from typing import Any

import pytest

from consumer.errors import ClientLostError, StalledError
from consumer.observe.waiting import Waiting
from consumer.observe.watchdog import CURABLE, MESSAGES, Limits, StallKind, Vital, Vitals, Watchdog
from consumer.process.reconnect import Rebuilds
from consumer.record import TopicPartition

KEY = TopicPartition("t", 3)

LIMITS = Limits(stalled=60.0, group=120.0)
KINDS: list[Any] = [kind for kind in MESSAGES if kind not in ("loop", "progress", "group")]
"""Kinds of what a partition waits for."""


class Watched:
    """A watchdog under a clock that a test moves."""

    def __init__(self, *waits: Waiting) -> None:
        self.now = 1000.0
        self.loop_blocked = self.broker_away = False
        self.waits = list(waits)
        self.progress: tuple[int, int] | None = None
        self.group_since: float | None = None
        self.client = 0
        self.beat = self.now
        self.dog = Watchdog(LIMITS)

    def look(self) -> StallKind | None:
        if not self.loop_blocked:
            self.beat = self.now
        heard_at = self.now - 31 if self.broker_away else self.now
        vital = Vital(KEY, self.waits, self.progress)
        stall = self.dog.look(self.now, Vitals(self.beat, heard_at, self.group_since, [vital], self.client))
        return stall.kind if stall is not None else None

    def after(self, seconds: float) -> StallKind | None:
        """Look once a second for some seconds; return the last finding."""
        found = None
        for _ in range(math.ceil(seconds)):
            self.now += 1
            found = self.look()
        return found


def a_wait(kind: Any, seconds: float = 60.0) -> Waiting:
    return Waiting(kind, 1000.0, None, 1000.0 + seconds)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_at_its_time(kind: Any) -> None:
    """A stall is found after its limit and not before, names its partition, and ends with its wait."""
    watched = Watched(a_wait(kind))
    assert watched.after(60) is None
    assert watched.after(1) == kind
    stall = watched.dog.stall
    assert stall is not None
    assert (stall.where, str(stall)) == ("t-3", f"{MESSAGES[kind]} (t-3)")
    assert (stall.since, stall.late_at) == (1000.0, 1060.0)
    watched.waits = [Waiting(kind, watched.now, None, watched.now + 60)]
    assert watched.after(60) is None
    assert watched.after(1) == kind


def test_a_wait_without_a_limit_is_no_stall() -> None:
    """What waits for something outside this daemon, or for a time that the user set, may wait for ever."""
    watched = Watched(Waiting("pause", 1000.0), Waiting("data", 1000.0), Waiting("halt", 1000.0))
    assert watched.after(10_000) is None


def test_a_blocked_loop_is_found_whatever_the_brokers_do() -> None:
    """A blocked loop is a stall also without brokers, and is reported before any other."""
    watched = Watched(a_wait("call"))
    watched.loop_blocked = watched.broker_away = True
    assert watched.after(60) is None
    assert watched.after(1) == "loop"
    watched.loop_blocked = False
    assert watched.after(1) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("excuse", ["broker_away", "group", "client"])
def test_the_time_of_an_outage_does_not_count(kind: Any, excuse: str) -> None:
    """While brokers are away, during a rebalance, and with another client, no clock of a partition counts."""
    watched = Watched(a_wait(kind))
    for _ in range(100):
        if excuse == "group":
            watched.group_since = watched.now - 1
        elif excuse == "client":
            watched.client += 1
        else:
            watched.broker_away = True
        assert watched.after(1) is None
    watched.broker_away, watched.group_since = False, None
    if excuse == "group":
        assert watched.after(1) == kind  # a new assignment has clocks of its own; these are of the old one
    else:
        assert watched.after(59) is None
        assert watched.after(2) == kind


def test_the_time_of_a_suspended_process_does_not_count() -> None:
    """After the process was suspended for a night, every clock begins again."""
    watched = Watched(a_wait("call"))
    watched.progress = (5, 3)
    assert watched.after(10) is None
    watched.now += 30_000
    watched.loop_blocked = True
    assert watched.look() is None
    watched.loop_blocked = False
    assert watched.after(60) is None
    assert watched.after(1) == "call"


def test_a_rebalance_without_end_is_found() -> None:
    """A member that never gets an assignment is stalled after the time of a rebalance."""
    watched = Watched()
    watched.group_since = watched.now
    assert watched.after(LIMITS.group) is None
    assert watched.after(2) == "group"


def test_work_that_nothing_explains_is_found() -> None:
    """A partition with work that cannot say what it waits for must finish something within the limit."""
    watched = Watched()
    for done in range(3):
        watched.progress = (10, done)
        assert watched.after(60) is None
    assert watched.after(2) == "progress"
    watched.progress = None
    assert watched.after(1) is None


def test_the_worst_is_reported_with_every_partition() -> None:
    """Of several stalls the first kind of the list is reported, with all its partitions."""
    dog = Watchdog(LIMITS)
    other = TopicPartition("t", 1)
    late = [Vital(key, [a_wait("commit", 1.0), a_wait("call", 5.0)], None) for key in (KEY, other)]
    stall = dog.look(1010.0, Vitals(1010.0, 1010.0, None, late))
    assert stall is not None
    assert (stall.kind, stall.where, stall.late_at) == ("call", "t-1, t-3", 1005.0)


def test_a_client_is_replaced_where_that_may_help() -> None:
    """A handler's fault is not cured by another client."""
    assert set(MESSAGES) - CURABLE == {"loop", "call", "earlier_epoch", "flush", "batch", "progress"}


def test_rebuilds_wait_longer_and_end() -> None:
    """The first replacement is immediate, later ones wait longer, and one too many within the window gives up."""
    rebuilds, lost = Rebuilds(3, 600.0), ClientLostError("data", "none arrives")
    assert [rebuilds.begin(now, lost) for now in (0.0, 10.0, 20.0)] == [0.0, 1.0, 3.0]
    with pytest.raises(StalledError, match=r"3 new Kafka clients within 600 s .* none arrives") as raised:
        rebuilds.begin(30.0, lost)
    assert raised.value.exit_code == 70
    assert rebuilds.begin(601.0, lost) == 3.0


def test_a_stall_that_outlives_its_client_is_found_again() -> None:
    """A new client gets the full time limit, and is found stalled again after it."""
    watched = Watched(a_wait("data"))
    found = []
    for _ in range(130):
        kind = watched.after(1)
        found.append(kind is not None)
        watched.client += kind is not None  # replaced at once
    assert found.count(True) == 2
