"""Heartbeats of a member: what each says after each answer, and what follows each error code."""

from __future__ import annotations

import asyncio
import math
from uuid import UUID

import pytest
from aiokafka.errors import IncompatibleBrokerVersion

from consumer.kafka import heartbeats
from consumer.kafka.group_errors import REACTIONS, SENTENCES, Reaction, reaction
from consumer.kafka.membership import EAGER_SECONDS, MOST_SECONDS, Membership, Place, Subscription
from consumer.kafka.wire_requests import HeartbeatRequest
from tests.fakes.coordinator import FakeCoordinator, Script, heartbeat_answer
from tests.unit.kafka.members import AMember, joined, until

EPOCH, INSTANCE, TIMEOUT, TOPICS, REGEX, ASSIGNOR, OWNED = 2, 3, 5, 6, 7, 8, 9
PLACE, OTHER = Place(UUID(int=1), 0), Place(UUID(int=1), 1)
ENDINGS = sorted({code for code, each in REACTIONS.items() if each is Reaction.END} | {69})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "AGAIN_SECONDS", 0.001)


def a_membership() -> Membership:
    member = Membership(Subscription("g", None, 1000, ["t"], None, "uniform"))
    member.begin(0.0)
    return member


def take(member: Membership, **answer: object) -> Reaction | None:
    return member.take(heartbeat_answer(**answer), 1.0, 2.0)  # type: ignore[arg-type]


def test_a_join_says_everything_and_owns_nothing() -> None:
    """At epoch 0 the owned list is empty, never missing, whatever is still drained."""
    fields = a_membership().request({PLACE}).fields
    assert (fields[EPOCH], fields[TIMEOUT], fields[TOPICS], fields[REGEX], fields[ASSIGNOR]) == (
        0,
        1000,
        ["t"],
        "",
        "uniform",
    )
    assert fields[OWNED] == []


def test_a_pattern_replaces_the_topics() -> None:
    member = Membership(Subscription("g", None, 1000, None, "t.*", None))
    fields = member.request(()).fields
    assert (fields[TOPICS], fields[REGEX]) == ([], "t.*")


def test_a_member_at_rest_says_nothing_again() -> None:
    """After an answer without news a heartbeat has the epoch only."""
    member = a_membership()
    member.request(())
    assert take(member, epoch=3) is None
    fields = member.request({PLACE}).fields
    assert (fields[EPOCH], fields[TIMEOUT], *fields[TOPICS:]) == (3, -1, None, None, None, None)


def test_everything_is_said_again_after_a_failure() -> None:
    """The next heartbeat after one without an answer has the owned list: the coordinator may have acted on it."""
    member = a_membership()
    member.request(())
    take(member, epoch=3, assignment=[PLACE])
    member.request({PLACE})
    member.failed()
    fields = member.request({PLACE}).fields
    assert (fields[EPOCH], fields[TIMEOUT], fields[TOPICS]) == (3, 1000, ["t"])
    assert [(topic, rows) for topic, rows, _ in fields[OWNED]] == [(PLACE.topic_id, [0])]


def test_an_assignment_is_acknowledged_when_nothing_is_left_to_let_go() -> None:
    """While a partition is drained the owned list is left out; then it is sent once."""
    member = a_membership()
    member.request(())
    take(member, epoch=3, assignment=[PLACE, OTHER])
    member.request({PLACE, OTHER})
    take(member, epoch=3)
    take(member, epoch=3, assignment=[OTHER])
    assert member.request({PLACE, OTHER}).fields[OWNED] is None
    take(member, epoch=3)
    before = member.acknowledged
    assert [rows for _, rows, _ in member.request({OTHER}).fields[OWNED]] == [[1]]
    take(member, epoch=4)
    assert (before, member.acknowledged) == (False, True)
    assert member.request({OTHER}).fields[OWNED] is None


def test_a_full_heartbeat_during_a_drain_is_no_acknowledgement() -> None:
    member = a_membership()
    member.request(())
    take(member, epoch=3, assignment=[OTHER])
    member.failed()
    assert len(member.request({PLACE, OTHER}).fields[OWNED][0][1]) == 2
    take(member, epoch=3)
    assert not member.acknowledged


def test_an_assignment_that_takes_nothing_is_acknowledged_too() -> None:
    """A partition that was given and taken back before it began has to be let go of expressly."""
    member = a_membership()
    member.request(())
    take(member, epoch=3, assignment=[PLACE])
    member.request(())
    take(member, epoch=3)
    take(member, epoch=3, assignment=[])
    assert member.request(()).fields[OWNED] == []


@pytest.mark.parametrize("epoch", [0, -1, -2])
def test_an_epoch_that_is_not_positive_is_ignored(epoch: int) -> None:
    """The next heartbeat with such an epoch would be a join, or leave the group."""
    member = a_membership()
    member.request(())
    take(member, epoch=3)
    take(member, epoch=epoch)
    assert member.request(()).fields[EPOCH] == 3


@pytest.mark.parametrize("interval", [0, -5])
def test_an_interval_that_is_not_positive_is_ignored(interval: int) -> None:
    member = a_membership()
    member.request(())
    take(member, epoch=3, interval_ms=5000)
    take(member, epoch=3, interval_ms=interval)
    assert (member.interval, member.seconds(1000.0)) == (5.0, MOST_SECONDS)


def test_partitions_named_twice_are_one() -> None:
    member = a_membership()
    member.request(())
    take(member, epoch=3, assignment=[PLACE, PLACE])
    assert member.target == {PLACE}


def test_heartbeats_hurry_for_a_while_after_a_change() -> None:
    """For two of the broker's intervals, and at least 10 s; later they are at most a second apart."""
    member = a_membership()
    member.request(())
    take(member, epoch=3, interval_ms=5000)  # at 2.0
    assert member.seconds(11.9) == EAGER_SECONDS
    assert member.seconds(12.1) == MOST_SECONDS
    take(member, epoch=3, interval_ms=5000)
    assert member.seconds(12.1) == MOST_SECONDS
    take(member, epoch=4, interval_ms=500)
    assert (member.seconds(11.9), member.seconds(12.1)) == (EAGER_SECONDS, 0.5)
    take(member, epoch=5, interval_ms=8000)
    assert (member.seconds(17.9), member.seconds(18.1)) == (EAGER_SECONDS, MOST_SECONDS)
    assert a_membership().seconds(math.inf) == MOST_SECONDS


def test_every_ending_has_a_sentence() -> None:
    """What ends a member says what to do, and so do the two that end it in one state only."""
    assert sorted(SENTENCES) == sorted({*ENDINGS, 111})
    assert reaction(69, joining=True) is Reaction.END
    assert reaction(-1) is reaction(7) is reaction(999) is Reaction.REPEAT


@pytest.mark.parametrize("code", ENDINGS)
async def test_an_error_that_waiting_does_not_change_ends_the_member(code: int) -> None:
    """The message names the setting or the right, and the coordinator's own text."""
    coordinator = FakeCoordinator()
    coordinator.script[HeartbeatRequest].append(code)
    member = AMember(coordinator)
    member.start()
    message = str(await asyncio.wait_for(member.heartbeats.ended, 5))
    assert message.endswith("(the coordinator: why)")
    assert "{" not in message
    assert len(coordinator.requests) == 1
    assert not member.heartbeats.joined.done()
    await member.end(leave=False)


@pytest.mark.parametrize("code", [14, 15, 16])
async def test_the_coordinator_is_looked_for_again(code: int) -> None:
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        coordinator.script[HeartbeatRequest] += [code, code]
        sent, looked = len(coordinator.requests), coordinator.moves
        await until(lambda: len(coordinator.requests) > sent + 3)
        assert coordinator.moves == looked + 2
        assert [event for event, _ in member.events] == ["begin"]


@pytest.mark.parametrize("code", [25, 110, 69])
async def test_a_member_that_was_thrown_out_joins_with_the_same_id(code: int) -> None:
    """It abandons everything without a commit, and joins with epoch 0 and nothing owned."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        coordinator.script[HeartbeatRequest].append(code)
        await until(lambda: member.member.life == 1)
        await until(lambda: member.consumes == {0, 1, 2, 3})
        assert [event for event, _ in member.events] == ["begin", "lost", "gone", "begin"]
        assert coordinator.commits == []
        joins = [fields for fields in coordinator.requests if fields[EPOCH] == 0]
        assert [(fields[1], fields[OWNED]) for fields in joins] == [(member.name, []), (member.name, [])]


async def test_another_member_with_the_instance_id_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A static member that was killed is one until its session ends; after that the id is used twice."""
    coordinator = FakeCoordinator()
    coordinator.script[HeartbeatRequest] += [111] * 6  # three joins, and the leaves behind them
    async with joined(coordinator, instance="one") as (member,):
        assert len([fields for fields in coordinator.requests if fields[EPOCH] == 0]) == 4
        assert coordinator.requests[0][INSTANCE] == "one"
        monkeypatch.setattr(heartbeats, "RELEASE_SECONDS", -45.0)
        coordinator.script[HeartbeatRequest] += [111] * 50
        assert "kafka.group_instance_id" in str(await asyncio.wait_for(member.heartbeats.ended, 5))


@pytest.mark.parametrize("fault", ["after", 110])
async def test_a_static_member_that_has_its_id_itself_joins_again(fault: Script) -> None:
    """The coordinator refuses the second join of a static member, also by itself, until the first one has left."""
    coordinator = FakeCoordinator()
    coordinator.script[HeartbeatRequest] += [fault] if fault == "after" else [None, fault]
    async with joined(coordinator, instance="one") as (member,):
        await until(lambda: len([fields for fields in coordinator.requests if fields[EPOCH] == 0]) >= 3)
        await until(lambda: member.consumes == {0, 1, 2, 3})


async def test_a_member_whose_join_was_not_answered_leaves() -> None:
    """The coordinator may have let it join, and would keep its partitions from others for a session."""
    coordinator = FakeCoordinator()
    coordinator.script[HeartbeatRequest] += ["after"] * 2
    member = AMember(coordinator)
    member.start()
    await until(lambda: coordinator.members)
    await member.end()
    assert coordinator.members == {}


@pytest.mark.parametrize(("instance", "epoch"), [(None, -1), ("one", -2)])
async def test_a_static_member_leaves_for_a_while(instance: str | None, epoch: int) -> None:
    coordinator = FakeCoordinator()
    async with joined(coordinator, instance=instance) as (member,):
        await member.end()
    assert coordinator.requests[-1][EPOCH] == epoch


@pytest.mark.parametrize("fault", ["before", "after", 16, 14])
async def test_a_leave_that_was_not_taken_is_repeated(fault: Script) -> None:
    """The coordinator may have moved since: without a leave its partitions would wait for the end of a session."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        await member.let_go(list(member.positions), lost=False)
        assert member.task is not None
        member.task.cancel()
        await asyncio.wait([member.task])
        coordinator.script[HeartbeatRequest] += [fault, fault]
        await member.heartbeats.leave()
        assert coordinator.members == {}
        assert [fields[EPOCH] for fields in coordinator.requests[-3:]] == [-1, -1, -1]


async def test_a_broker_without_the_request_ends_the_member() -> None:
    """There is no silent way back to the classic protocol."""

    def refuse(_request: object) -> None:
        raise IncompatibleBrokerVersion("HeartbeatRequest v1")

    coordinator = FakeCoordinator()
    coordinator.script[HeartbeatRequest].append(refuse)
    member = AMember(coordinator)
    member.start()
    assert 'kafka.group_protocol = "consumer" is not supported' in str(
        await asyncio.wait_for(member.heartbeats.ended, 5)
    )
    await member.end(leave=False)


async def test_beat_waits_for_a_heartbeat_that_was_sent_later() -> None:
    """An answer to a heartbeat that is under way may hold the epoch of before."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        before = len(coordinator.requests)
        await member.heartbeats.beat()
        assert len(coordinator.requests) > before


@pytest.mark.parametrize("lost", ["before", "after"])
@pytest.mark.parametrize("times", [1, 3])
async def test_lost_answers_are_healed(lost: str, times: int) -> None:
    """Answers to a join, and to heartbeats that assign, are lost; then nothing is missing and nothing is lost."""
    coordinator = FakeCoordinator()
    coordinator.script[HeartbeatRequest] += [lost] * times
    async with joined(coordinator) as (first,):
        second = AMember(coordinator)
        second.start()
        coordinator.script[HeartbeatRequest] += [lost, None, lost, lost]
        await until(lambda: first.consumes | second.consumes == {0, 1, 2, 3} and second.consumes)
        await until(lambda: not first.consumes & second.consumes)
        assert (first.member.life, second.member.life) == (0, 0)
        await second.end()
