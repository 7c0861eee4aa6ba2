"""The source of the consumer protocol: in which order partitions that move are drained."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consumer.errors import ClientLostError
from consumer.kafka import client_source, consumer_source
from consumer.kafka.consumer_source import ConsumerSource
from consumer.kafka.drains import Drains
from consumer.kafka.heartbeats import Heartbeats
from consumer.kafka.holdings import Holdings
from consumer.kafka.membership import LEAVE
from consumer.observe.counters import Counters
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka
from tests.unit.delivery.waiting import rounds

SLOW, QUICK, OTHER = (TopicPartition("t", each) for each in range(3))


class Draining:
    """An engine whose drain of SLOW waits until ``go``."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun: list[set[TopicPartition]] = []
        self.lost: list[bool] = []

    async def revoke(self, keys: Collection[TopicPartition], *, lost: bool) -> None:
        self.begun.append(set(keys))
        self.lost.append(lost)
        if SLOW in keys and not lost:
            await self.go.wait()


def heard(source: ConsumerSource, session: float = 45.0) -> float:
    """Make it a member in a group with this session, whose heartbeat was answered now; return this time."""
    source.joined, source._session_seconds, source.member.epoch = True, session, 3
    source._fetch = cast(Any, object())
    source._member_at = source.member.heard_at = now = time.monotonic()
    return now


def raised(error: Exception) -> None:
    raise error


def a_source(engine: Any, **kafka: Any) -> ConsumerSource:
    source = ConsumerSource(Kafka(topics=["t"], group_protocol="consumer", **kafka), Counters(["t"], []), raised)
    source._listener = engine
    source.drains = Drains(lambda key: 2.0 if key == SLOW else 0.01, 25.0)
    return source


async def test_what_ends_soon_goes_on_until_the_slow_has_ended() -> None:
    """All are acknowledged together, so a partition without a long call gains nothing by an early stop."""
    engine = Draining()
    source = a_source(engine)
    letting_go = asyncio.create_task(source.let_go([SLOW, QUICK, OTHER], lost=False))
    await rounds()
    assert engine.begun == [{SLOW}]
    engine.go.set()
    await letting_go
    assert engine.begun == [{SLOW}, {QUICK, OTHER}]
    assert source._counters.rebalances == {"assigned": 0, "revoked": 1, "lost": 0, "slow": 0}
    source.acknowledged()
    assert sum(source._counters.moves["revoked"].counts) == 3


async def test_time_for_a_second_drain_is_kept() -> None:
    """Without room for two drains in the rebalance timeout all begin at once, or the group would expel the member."""
    engine = Draining()
    source = a_source(engine, rebalance_timeout_seconds=32.0)
    letting_go = asyncio.create_task(source.let_go([SLOW, QUICK], lost=False))
    await rounds()
    await asyncio.sleep(0.01)
    assert engine.begun == [{SLOW}, {QUICK}]
    assert not letting_go.done()
    engine.go.set()
    await letting_go


async def test_lost_partitions_end_at_once() -> None:
    """The group has given them away: none goes on, and none counts as moved."""
    engine = Draining()
    source = a_source(engine)
    await source.let_go([SLOW, QUICK], lost=True)
    assert (engine.begun, engine.lost) == ([{SLOW, QUICK}], [True])
    source.acknowledged()
    assert sum(source._counters.moves["revoked"].counts) == 0


@pytest.mark.parametrize(("session", "limit"), [(45.0, 44.5), (6.0, 5.5), (1.0, 0.9)])
def test_doubt_begins_before_the_session_is_over(session: float, limit: float) -> None:
    """At its end the group gives the partitions away at once, and beats look at the clock 0.25 s apart."""
    source = a_source(None)
    now = heard(source, session)
    assert [source.doubtful(now + limit + after) for after in (-0.05, 0.05)] == [False, True]


@pytest.mark.parametrize(("silent", "expected"), [(5.0, False), (7.0, True)])
async def test_a_partition_that_begins_ends_no_doubt(silent: float, expected: bool) -> None:
    """Offsets may be found while heartbeats are unanswered: calls on partitions begun before stay paused."""
    doubts = list[bool]()
    engine = SimpleNamespace(doubt=lambda *, doubtful: doubts.append(doubtful), assign=lambda _keys: None)
    source = a_source(engine)
    source._member_at = source.member.heard_at = heard(source, 6.0) - silent
    source._begin([QUICK])
    assert doubts == [expected]


async def test_a_commit_without_a_client_fails() -> None:
    """A commit that comes while the client is replaced is one that failed, and is repeated."""
    assert await a_source(Draining()).commit({SLOW: 1}) == "failed"


async def test_heartbeats_that_fail_end_a_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect is named at once, not when the time for a join is over."""

    async def nothing(*_: object) -> float:
        return 6.0

    async def fail(_heartbeats: object) -> None:
        raise RuntimeError("a defect")

    for name in ("require_spoken", "group_session"):
        monkeypatch.setattr(consumer_source, name, nothing)
    monkeypatch.setattr(consumer_source, "InPlace", lambda _consumer: None)
    monkeypatch.setattr(Heartbeats, "run", fail)
    inner = SimpleNamespace(set_topics=lambda _topics: None, _request_timeout_ms=1000)
    client = SimpleNamespace(start=nothing, _client=inner)
    async with asyncio.timeout(5):
        with pytest.raises(ClientLostError, match="heartbeat task has ended"):
            await a_source(Draining())._join(client)


@pytest.mark.parametrize(
    ("instance", "for_good", "leaves"),
    [("", False, False), ("", True, True), ("one", False, True), ("one", True, True)],
)
async def test_a_dynamic_member_joins_again_without_a_leave(instance: str, for_good: bool, leaves: bool) -> None:
    """A leave over a broken connection may come after the join, and would remove the member with its partitions."""
    left = list[bool]()

    async def leave() -> None:
        left.append(True)

    source, reset = a_source(Draining(), group_instance_id=instance), list[bool]()
    parts: Any = SimpleNamespace(
        beating=asyncio.create_task(asyncio.sleep(100)),
        heartbeats=SimpleNamespace(leave=leave),
        coordinator=SimpleNamespace(hang_up=lambda: reset.append(True)),
    )
    source._parts = parts
    await source._leave(for_good=for_good)
    assert (bool(left), bool(reset), parts.beating.cancelled()) == (leaves, not for_good, True)


async def test_a_stop_leaves_also_what_an_earlier_client_has_joined() -> None:
    """The next client may not have sent a heartbeat yet when the daemon stops."""
    sent = list[Any]()

    async def send(request: Any) -> Any:
        sent.append(request)
        return SimpleNamespace(error_code=0)

    source = a_source(Draining())
    source.member.request(())  # by the client before
    source.member.begin(time.monotonic())
    heartbeats = Heartbeats(source._kafka, source.member, cast(Any, SimpleNamespace(send=send)), Holdings())
    await heartbeats.leave()
    await heartbeats.leave()  # the coordinator has heard of it
    assert [each.fields[2] for each in sent] == [LEAVE]


async def test_a_join_that_is_not_answered_is_no_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next client joins as the same member, and a leave over this connection might come after that."""
    left = list[object]()

    async def nothing(*_: object) -> float:
        return 0.05

    async def never(_heartbeats: object) -> None:
        await asyncio.sleep(100)

    async def leave(_heartbeats: object) -> None:
        left.append(True)

    for name in ("require_spoken", "group_session"):
        monkeypatch.setattr(consumer_source, name, nothing)
    monkeypatch.setattr(consumer_source, "InPlace", lambda _consumer: None)
    monkeypatch.setattr(client_source, "stop_consumer", nothing)
    monkeypatch.setattr(Heartbeats, "run", never)
    monkeypatch.setattr(Heartbeats, "leave", leave)
    client = SimpleNamespace(_conns={}, _request_timeout_ms=1000, set_topics=lambda _topics: None)
    source = a_source(Draining(), rebalance_timeout_seconds=0.05)
    source._session_seconds, source._consumer = 0.05, SimpleNamespace(start=nothing, _client=client)
    with pytest.raises(ClientLostError, match="the group did not answer"):
        await source._join(source._consumer)
    assert left == []


@pytest.mark.parametrize(("silent", "unacknowledged"), [(16.0, 0.0), (3.1, 61.0), (44.6, 0.0)])
def test_doubt_before_the_end_of_a_session_is_no_wait_for_the_group(silent: float, unacknowledged: float) -> None:
    """The watchdog would wait for the future, and look at nothing else."""
    source = a_source(None, rebalance_timeout_seconds=15.0 if silent == 16 else 60.0)
    now = heard(source)
    source._member_at = source.member.heard_at = now - silent
    if unacknowledged:
        source.member.unacknowledged_since = now - unacknowledged
    assert (source.doubtful(now), source.group_since(now)) == (True, None)
    assert source.group_since(now - silent + 46) == now - silent + 45


async def test_a_stop_that_is_cancelled_leaves_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop of the daemon cancels a rebuild, which may be leaving the group just then with its old client."""
    goes_on, done = asyncio.Event(), list[str]()

    async def leave() -> None:
        await goes_on.wait()
        done.append("left")

    async def close(_consumer: object) -> None:
        done.append("closed")

    monkeypatch.setattr(client_source, "stop_consumer", close)
    source = a_source(Draining())
    parts: Any = SimpleNamespace(
        beating=asyncio.create_task(asyncio.sleep(100)), heartbeats=SimpleNamespace(leave=leave)
    )
    source._consumer, source._parts = object(), parts
    stopping = asyncio.create_task(source.stop())
    await rounds()
    stopping.cancel()
    await rounds()
    goes_on.set()
    await asyncio.wait([stopping])
    assert (done, stopping.cancelled(), parts.beating.cancelled()) == (["left", "closed"], True, True)


def test_the_id_lives_as_long_as_the_source() -> None:
    """A member names itself, once."""
    source = a_source(None)
    assert source.member_id == source.member_id != a_source(None).member_id
    assert (source.generation, source.rebalancing) == (-1, True)
