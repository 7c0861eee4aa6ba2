"""The watchdog tells a stall from waiting, rebalancing, holding, halts and absent brokers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from consumer.errors import ClientLostError, StalledError
from consumer.observe.watchdog import CURABLE, MESSAGES, Limits, Vital, Vitals, Watchdog
from consumer.process.reconnect import Rebuilds
from consumer.record import TopicPartition

KEY = TopicPartition("t", 3)

LIMITS = Limits(stalled=60.0, commit=80.0, rebalance=120.0)

STILL: dict[str, Any] = {
    "key": KEY,
    "position": 10,
    "done": 10,
    "committed": 10,
    "end_offset": 10,
    "idle": True,
    "excused": False,
}
"""A partition with nothing to do."""

CASES: dict[str, dict[str, Any]] = {
    "fetch": {"end_offset": 20},
    "call": {"done": 4, "committed": 4},
    "commit": {"committed": 4},
}


class Watched:
    """A watchdog under a clock that a test moves."""

    def __init__(self, **partition: Any) -> None:
        self.now = 1000.0
        self.loop_blocked = False
        values = STILL | partition
        self.partition = Vital(commit_due=values["committed"] < values["done"], **values)
        self.rebalancing = self.flushing = False
        self.broker_away = False
        self.beat = self.now
        self.dog = Watchdog(LIMITS)

    def vitals(self) -> Vitals:
        if not self.loop_blocked:
            self.beat = self.now
        heard_at = self.now - 31 if self.broker_away else self.now
        return Vitals(self.beat, heard_at, self.rebalancing, self.flushing, [self.partition])

    def after(self, seconds: float) -> str | None:
        """Look once a second for some seconds; return the last finding."""
        found = None
        for _ in range(math.ceil(seconds)):
            self.now += 1
            stall = self.dog.look(self.now, self.vitals())
            found = stall.kind if stall is not None else None
        return found


@pytest.mark.parametrize("kind", CASES)
def test_each_kind_is_found_at_its_time(kind: Any) -> None:
    """A stall is found after its limit and not before, names its partition, and ends with progress."""
    watched = Watched(**CASES[kind])
    limit = LIMITS.of(kind)
    assert watched.after(limit) is None
    assert watched.after(2) == kind
    stall = watched.dog.look(watched.now, watched.vitals())
    assert stall is not None
    assert (stall.where, str(stall)) == ("t-3", f"{MESSAGES[stall.kind]} (t-3)")
    moved: dict[str, dict[str, Any]] = {
        "fetch": {"position": 11, "done": 11, "committed": 11},
        "call": {"done": 5},
        "commit": {"committed": 5},
    }
    watched.partition = watched.partition._replace(**moved[kind])
    assert watched.after(1) is None
    assert watched.after(limit + 2) == kind


def test_a_blocked_loop_is_found_whatever_the_brokers_do() -> None:
    """A blocked loop is a stall also without brokers, and is reported before any other."""
    watched = Watched(**CASES["call"])
    watched.loop_blocked = watched.broker_away = True
    assert watched.after(60) is None
    assert watched.after(1) == "loop"
    watched.loop_blocked = False
    assert watched.after(1) is None


def test_nothing_to_do_is_no_stall() -> None:
    """An idle partition, or a member without partitions, is not stalled."""
    watched = Watched()
    assert watched.after(10_000) is None
    watched.vitals = lambda: Vitals(watched.now, watched.now, False, False, [])  # type: ignore[method-assign]
    assert watched.after(10_000) is None


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("excuse", ["excused", "broker_away", "rebalancing"])
def test_what_rightly_stands_still(kind: str, excuse: str) -> None:
    """Halts, holds, rebalances and absent brokers are no stalls, and their time does not count afterwards."""
    watched = Watched(**CASES[kind])
    if excuse == "excused":
        watched.partition = watched.partition._replace(excused=True)
    else:
        setattr(watched, excuse, True)
    assert watched.after(100) is None
    watched.partition = watched.partition._replace(excused=False)
    watched.broker_away = watched.rebalancing = False
    assert watched.after(59) is None


def test_a_flush_that_fails_is_the_handlers_matter() -> None:
    """Records that a failing flush leaves uncommitted are no stall: another Kafka client would not help."""
    watched = Watched(**CASES["commit"])
    watched.flushing = True
    assert watched.after(1000) is None


def test_a_rebalance_without_end_is_found() -> None:
    """A member that never gets an assignment is stalled after the time of a rebalance."""
    watched = Watched()
    watched.rebalancing = True
    assert watched.after(LIMITS.rebalance) is None
    assert watched.after(2) == "rebalance"


def test_one_slow_key_among_many_is_found() -> None:
    """A call that does not end is found while other records go on, because nothing above it can be committed."""
    watched = Watched(idle=False, position=10, done=4, committed=4)
    for _ in range(70):
        watched.partition = watched.partition._replace(position=watched.partition.position + 100)
        found = watched.after(1)
    assert found == "call"


def test_a_client_is_replaced_where_that_may_help() -> None:
    """A handler's fault is not cured by another client."""
    assert set(MESSAGES) - CURABLE == {"loop", "call"}


def test_rebuilds_wait_longer_and_end() -> None:
    """The first replacement is immediate, later ones wait longer, and one too many within the window gives up."""
    rebuilds, lost = Rebuilds(3, 600.0), ClientLostError("fetch", "none arrives")
    assert [rebuilds.begin(now, lost) for now in (0.0, 10.0, 20.0)] == [0.0, 1.0, 3.0]
    with pytest.raises(StalledError, match=r"3 new Kafka clients within 600 s .* none arrives") as raised:
        rebuilds.begin(30.0, lost)
    assert raised.value.exit_code == 70
    assert rebuilds.begin(601.0, lost) == 3.0


def test_a_stall_that_outlives_its_client_is_found_again() -> None:
    """A new client gets the full time limit, and is found stalled again after it."""
    now, client = 100.0, 0
    still = Vital(
        TopicPartition("t", 0),
        position=5,
        done=5,
        committed=5,
        commit_due=False,
        end_offset=9,
        idle=True,
        excused=False,
    )
    limits = Limits(stalled=1.0, commit=1.0, rebalance=1.0)
    dog = Watchdog(limits)
    found = []
    for _ in range(12):
        now += 0.25
        stall = dog.look(now, Vitals(now, now, False, False, [still], client))
        found.append(stall is not None)
        client += stall is not None  # replaced at once
    assert found == [*[False] * 5, True] * 2
