"""Reconciliation: let go, acknowledge, find offsets, begin; and a newer target at each of these."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from aiokafka.errors import KafkaConnectionError

from consumer.kafka import group_offsets, heartbeats, reconciliation
from consumer.kafka.membership import Place
from consumer.kafka.wire_questions import TopicsRequest
from consumer.kafka.wire_requests import HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest
from consumer.record import TopicPartition
from tests.fakes.coordinator import FakeCoordinator, heartbeat_answer
from tests.unit.kafka.members import AMember, joined, until

ID, RECREATED = UUID(int=1), UUID(int=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (heartbeats, reconciliation, group_offsets):
        monkeypatch.setattr(module, "AGAIN_SECONDS", 0.001)


def key(partition: int) -> TopicPartition:
    return TopicPartition("t", partition)


async def test_only_what_moves_stops() -> None:
    """A second member takes half: the first drains these, and goes on with the others."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (first,):
        first.may_drain.clear()
        second = AMember(coordinator)
        second.start()
        await until(lambda: len(first.events) == 2)
        ((_, moved),) = first.events[1:]
        assert len(moved) == 2
        sent = len(coordinator.requests)
        await until(lambda: len(coordinator.requests) > sent + 5)
        assert (first.consumes, second.consumes) == ({0, 1, 2, 3}, set())
        first.may_drain.set()
        await until(lambda: second.consumes == moved)
        assert first.consumes == {0, 1, 2, 3} - moved
        await second.end()


async def test_nothing_is_acknowledged_before_it_is_drained_and_committed() -> None:
    """What a member owned was committed before the coordinator hears that it lets go, so the next one begins there."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (first,):
        first.positions = dict.fromkeys(first.positions, 7)
        async with joined_beside(coordinator) as second:
            await until(lambda: len(second.consumes) == 2)
            assert set(second.positions.values()) == {7}
            assert {each.partition for each in coordinator.commits} == second.consumes


def joined_beside(coordinator: FakeCoordinator) -> _Beside:
    return _Beside(AMember(coordinator))


class _Beside:
    def __init__(self, member: AMember) -> None:
        self._member = member

    async def __aenter__(self) -> AMember:
        self._member.start()
        return self._member

    async def __aexit__(self, *_: object) -> None:
        await self._member.end()


async def test_a_newer_target_during_a_drain() -> None:
    """More is taken away while partitions are drained: all of it is acknowledged together."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        member.may_drain.clear()
        coordinator.retarget(**{member.name: [0, 1, 2]})
        await until(lambda: ("drain", frozenset({3})) in member.events)
        answer = heartbeat_answer(epoch=1, assignment=[Place(ID, 0)])
        coordinator.script[HeartbeatRequest].append(lambda _request: answer)
        await until(lambda: ("drain", frozenset({1, 2})) in member.events)
        member.may_drain.set()
        await until(lambda: member.member.acknowledged)
        assert {0, 1, 2, 3} - member.consumes >= {3}


async def test_what_is_given_back_during_its_drain_is_taken_again_later() -> None:
    """A partition under drain cannot be kept: it ends, it is acknowledged, and it begins again."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        member.positions[key(3)] = 5
        member.may_drain.clear()
        coordinator.retarget(**{member.name: [0, 1, 2]})
        await until(lambda: ("drain", frozenset({3})) in member.events)
        back = heartbeat_answer(epoch=1, assignment=[Place(ID, each) for each in range(4)])
        coordinator.script[HeartbeatRequest].append(lambda _request: back)
        await until(lambda: len(member.member.target) == 4)
        assert member.events[-1] == ("drain", frozenset({3}))
        member.may_drain.set()
        await until(lambda: ("begin", frozenset({3})) in member.events)
        assert member.positions[key(3)] == 5


async def test_what_is_taken_away_before_it_began_never_begins() -> None:
    """A target that is superseded while offsets are asked for is let go of, and the coordinator hears it."""
    coordinator = FakeCoordinator()
    waiting, goes_on = asyncio.Event(), asyncio.Event()
    member = AMember(coordinator)
    starts = member.starts

    async def slow(keys):  # type: ignore[no-untyped-def]
        if not goes_on.is_set():
            waiting.set()
            await goes_on.wait()
        return await starts(keys)

    member.starts = slow  # type: ignore[method-assign]
    member.start()
    await waiting.wait()
    coordinator.retarget(**{member.name: [0]})
    await until(lambda: len(member.member.target) == 1 and not coordinator.members[member.name].revoked)
    goes_on.set()
    await until(lambda: member.consumes == {0})
    assert member.events == [("begin", frozenset({0}))]
    await member.end()


@pytest.mark.parametrize("code", [14, 15, 16, 113, 88, -1, 3])
async def test_an_error_is_never_no_offset(code: int) -> None:
    """Offsets are asked for until they are known."""
    coordinator = FakeCoordinator()
    coordinator.offsets = {("t", each): 40 + each for each in range(4)}
    coordinator.script[OffsetFetchRequest] += [code, "before", "after", code]
    async with joined(coordinator) as (member,):
        assert member.positions == {key(each): 40 + each for each in range(4)}


async def test_a_partition_missing_in_the_answer_is_asked_for_again() -> None:
    coordinator = FakeCoordinator()
    coordinator.offsets = {("t", each): 40 + each for each in range(4)}
    answers = OffsetFetchRequest.STRUCT.RESPONSE_TYPE
    part = answers(0, [("g", [("t", [(0, 40, -1, "", 0, {}), (1, -1, -1, "", 88, {})], {})], 0, {})], {})
    coordinator.script[OffsetFetchRequest].append(lambda _request: part)
    async with joined(coordinator) as (member,):
        assert member.positions == {key(each): 40 + each for each in range(4)}


async def test_a_topic_that_is_not_known_yet_is_asked_for_again() -> None:
    """A broker hears of a new topic later than the coordinator: the others begin, and this one when it is known."""
    coordinator = FakeCoordinator()
    coordinator.script[TopicsRequest] += ["unknown", "before", "unknown"]
    async with joined(coordinator) as (member,):
        coordinator.places.add(Place(RECREATED, 7))
        coordinator.change()
        await until(lambda: len(member.member.target) == 5)
        sent = len(coordinator.requests)
        await until(lambda: len(coordinator.requests) > sent + 3)
        assert member.consumes == {0, 1, 2, 3}
        coordinator.topics[RECREATED] = "later"
        await until(lambda: member.consumes == {0, 1, 2, 3, 7})


async def test_a_topic_that_was_made_again() -> None:
    """Its id has changed: the old partitions end before the new ones of the same names begin."""
    coordinator = FakeCoordinator(partitions=2)
    async with joined(coordinator) as (member,):
        member.may_drain.clear()
        coordinator.topics[RECREATED] = "t"
        coordinator.places = {Place(RECREATED, 0), Place(RECREATED, 1)}
        coordinator.members[member.name].target = set()
        coordinator.change()
        await until(lambda: ("drain", frozenset({0, 1})) in member.events)
        member.may_drain.set()
        await until(lambda: member.holdings.keys.keys() == coordinator.places)
        assert [event for event, _ in member.events] == ["begin", "drain", "gone", "begin"]


async def test_what_is_about_to_begin_is_named_as_owned() -> None:
    """A heartbeat that left it out would free it, if it is taken away just then, and two members would consume it."""
    coordinator = FakeCoordinator()
    asked, goes_on = asyncio.Event(), asyncio.Event()
    member = AMember(coordinator)
    starts = member.starts

    async def slow(keys):  # type: ignore[no-untyped-def]
        found = await starts(keys)
        asked.set()
        await goes_on.wait()
        return found

    async def crossed(request: object) -> object:
        """Answer after the partitions have begun."""
        answer = coordinator._usual(request)
        goes_on.set()
        await until(lambda: member.consumes)
        held = coordinator.members[member.name].assigned | coordinator.members[member.name].revoked
        freed.append(member.consumes - {place.partition for place in held})
        return answer

    member.starts = slow  # type: ignore[method-assign]
    freed: list[set[int]] = []
    member.start()
    await asked.wait()
    coordinator.retarget(**{member.name: [0]})
    coordinator.script[HeartbeatRequest] += ["before", crossed]
    await until(lambda: member.consumes == {0})
    assert freed == [set()]
    await until(lambda: not coordinator.members[member.name].revoked)
    await member.end()


@pytest.mark.parametrize("kind", [OffsetFetchRequest, TopicsRequest])
async def test_what_does_not_begin_is_named(kind: type) -> None:
    """A partition that was given waits for its offset, or its topic's name: a watchdog sees it before it begins."""
    coordinator = FakeCoordinator()
    coordinator.script[kind] += [88 if kind is OffsetFetchRequest else "unknown"] * 1000
    member = AMember(coordinator)
    member.start()
    await until(lambda: member.reconciliation.unbegun == {key(each) for each in range(4)})
    coordinator.script[kind].clear()
    await until(lambda: len(member.consumes) == 4)
    assert member.reconciliation.unbegun == set()
    coordinator.retarget(**{member.name: [0]})
    member.may_drain.clear()
    await until(lambda: member.reconciliation.draining)
    assert member.reconciliation.unbegun == set()
    await member.end()


async def test_a_partition_whose_offset_is_not_known_delays_no_other() -> None:
    """An open transaction, or a right that is missing, is of one partition: the others begin."""
    coordinator = FakeCoordinator()

    def unstable(request: OffsetFetchRequest) -> object:
        answer = coordinator._usual(request)
        ((_, topics, *_),) = answer.groups
        for _, rows, _ in topics:
            rows[:] = [(*row[:4], 88, {}) if row[0] == 0 else row for row in rows]
        return answer

    coordinator.script[OffsetFetchRequest] += [unstable] * 1000
    member = AMember(coordinator)
    member.start()
    await until(lambda: member.consumes == {1, 2, 3})
    assert member.reconciliation.unbegun == {key(0)}
    coordinator.places.add(Place(ID, 4))
    coordinator.change()
    await until(lambda: member.consumes == {1, 2, 3, 4})
    coordinator.script[OffsetFetchRequest].clear()
    await until(lambda: member.consumes == {0, 1, 2, 3, 4})
    await member.end()


async def test_a_lost_partition_begins_again_when_its_calls_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that was thrown out joins at once; what it still drains begins later."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        goes_on, let_go = asyncio.Event(), member.let_go

        async def slow(keys, *, lost):  # type: ignore[no-untyped-def]
            await goes_on.wait()
            await let_go(keys, lost=lost)

        monkeypatch.setattr(member, "let_go", slow)
        coordinator.remove(member.name)
        await until(lambda: member.member.life == 1 and len(member.member.target) == 4)
        sent = len(coordinator.requests)
        await until(lambda: len(coordinator.requests) > sent + 3)
        assert member.events == [("begin", frozenset({0, 1, 2, 3}))]
        goes_on.set()
        await until(lambda: [event for event, _ in member.events] == ["begin", "lost", "gone", "begin"])


async def test_a_commit_of_what_was_lost_is_not_sent() -> None:
    """Under today's epoch the coordinator would take it, though another member owns the partition."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        coordinator.script[OffsetCommitRequest] += ["before"] * 1000
        committing = asyncio.create_task(member.offsets.commit({key(0): 5, key(1): 6}, ""))
        await asyncio.sleep(0)
        del member.positions[key(0)]
        coordinator.retarget(**{member.name: [1, 2, 3]})
        await until(lambda: member.holdings.mark(key(0)) is None)
        coordinator.script[OffsetCommitRequest].clear()
        assert await committing == "ok"
        assert {each.partition for each in coordinator.commits if each.offset in (5, 6)} == {1}


async def test_a_commit_of_an_earlier_ownership_is_not_sent() -> None:
    """A partition that was lost and came back is another ownership: its old commit could set the offset back."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        cut = asyncio.Event()

        async def lost(_request: object) -> None:
            await cut.wait()
            raise KafkaConnectionError("lost")

        coordinator.script[OffsetCommitRequest].append(lost)
        committing = asyncio.create_task(member.offsets.commit({key(0): 5}, ""))
        await asyncio.sleep(0)
        coordinator.remove(member.name)
        await until(lambda: member.member.life == 1 and member.consumes == {0, 1, 2, 3})
        cut.set()
        assert await committing == "fenced"
        assert coordinator.commits == []


async def test_a_commit_has_the_id_under_which_the_topic_is_owned() -> None:
    """A topic that was made again may have its new id already, while partitions of the old one are drained."""
    coordinator = FakeCoordinator()
    sent: list[OffsetCommitRequest] = []

    def note(request: OffsetCommitRequest) -> object:
        sent.append(request)
        return coordinator._usual(request)

    async with joined(coordinator) as (member,):
        coordinator.script[OffsetCommitRequest].append(note)
        coordinator.topics[RECREATED] = "t"
        assert await member.offsets.commit({key(0): 5, key(1): 6}, "") == "ok"
        assert [list(each.ids) for each in sent] == [[ID]]


async def test_a_stale_epoch_is_learnt_and_the_commit_sent_again() -> None:
    """113: a heartbeat brings the epoch, under which the same is committed."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        epoch = member.member.epoch
        coordinator.script[HeartbeatRequest].append("after")
        coordinator.retarget(**{member.name: [0, 1, 2, 3]})
        await until(lambda: coordinator.members[member.name].epoch > epoch)
        assert member.member.epoch == epoch
        assert await member.offsets.commit({key(0): 5}, "") == "ok"
        assert [(each.epoch > epoch, each.offset) for each in coordinator.commits] == [(True, 5)]


@pytest.mark.parametrize(
    ("codes", "result"), [([16, 14], "ok"), ([25], "fenced"), ([110], "fenced"), ([12], "failed"), ([], "ok")]
)
async def test_what_an_error_of_a_commit_means(codes: list[int], result: str) -> None:
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        coordinator.script[OffsetCommitRequest] += codes
        assert await member.offsets.commit({key(0): 5}, "") == result
        assert await member.offsets.commit({key(9): 5}, "") == "fenced"


async def test_a_client_that_is_replaced_begins_nothing() -> None:
    """While its partitions are revoked it takes none, and what it loses is committed no more."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):
        member.reconciliation.hold()
        coordinator.places.add(Place(ID, 4))
        coordinator.change()
        await until(lambda: len(member.member.target) == 5)
        sent = len(coordinator.requests)
        await until(lambda: len(coordinator.requests) > sent + 3)
        assert member.consumes == {0, 1, 2, 3}
        coordinator.remove(member.name)
        await until(lambda: member.member.life == 1 and member.member.epoch > 0)
        assert await member.offsets.commit({key(0): 5}, "") == "fenced"
        assert coordinator.commits == []


async def test_an_error_of_a_rebalance_ends_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was to be let go of is not acknowledged: its calls may be under way."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):

        async def refuse(_keys: object, *, lost: bool) -> None:
            raise RuntimeError(f"a defect {lost}")

        monkeypatch.setattr(member, "let_go", refuse)
        coordinator.retarget(**{member.name: [0]})
        await until(lambda: member.failures)
        sent = len(coordinator.requests)
        await until(lambda: len(coordinator.requests) > sent + 3)
        assert {each.partition for each in coordinator.members[member.name].revoked} == {1, 2, 3}
        assert "a rebalance failed: RuntimeError: a defect False" in str(member.failures.pop())
