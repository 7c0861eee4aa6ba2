"""A fenced member (110) joins when its calls have ended: its join, which owns nothing, frees what they work on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from consumer.kafka import group_offsets, heartbeats, reconciliation
from consumer.kafka.wire_requests import HeartbeatRequest, OffsetCommitRequest
from consumer.record import TopicPartition
from tests.fakes.coordinator import FakeCoordinator, heartbeat_answer
from tests.unit.kafka.members import AMember, joined, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (heartbeats, reconciliation, group_offsets):
        monkeypatch.setattr(module, "AGAIN_SECONDS", 0.001)


class Slow(AMember):
    """A member with calls under way, of what it lets go of and of what it loses, until ``calls_end``."""

    def __init__(self, coordinator: FakeCoordinator) -> None:
        super().__init__(coordinator)
        self.calls_end = asyncio.Event()
        self.calls_end.set()
        self.under_way: set[TopicPartition] = set()

    async def let_go(self, keys: Any, *, lost: bool) -> None:
        self.under_way |= set(keys)
        await self.calls_end.wait()
        self.under_way -= set(keys)
        await super().let_go(keys, lost=lost)


def of(member: AMember, coordinator: FakeCoordinator, *scripts: Any) -> None:
    """Script the next heartbeats of one member; those of others get their usual answers."""
    left = list(scripts)

    def answer(request: Any) -> Any:
        if request.fields[1] != member.name:
            if left:
                coordinator.script[HeartbeatRequest].append(answer)
            return coordinator._usual(request)
        script = left.pop(0)
        if left:
            coordinator.script[HeartbeatRequest].append(answer)
        return script(request)

    coordinator.script[HeartbeatRequest].append(answer)


@asynccontextmanager
async def two_members(coordinator: FakeCoordinator) -> AsyncIterator[tuple[Slow, AMember]]:
    """Run a member that consumes all partitions, beside another that is to start."""
    first, second = Slow(coordinator), AMember(coordinator)
    first.start()
    await until(lambda: len(first.consumes) == 4)
    yield first, second
    first.calls_end.set()
    await first.end(leave=False)
    await second.end(leave=False)


async def overlap(first: Slow, second: AMember) -> set[int]:
    """Return the partitions that the second consumes while calls of the first, now thrown out, are under way."""
    await until(lambda: first.member.life == 1)
    found: set[int] = set()
    for _ in range(200):
        found |= second.consumes & {key.partition for key in first.under_way}
        await asyncio.sleep(0.001)
    return found


async def test_110_during_a_drain() -> None:
    """The coordinator frees what is drained at the join, long before the drain has ended."""
    coordinator = FakeCoordinator()
    async with two_members(coordinator) as (first, second):
        first.calls_end.clear()
        second.start()
        await until(lambda: first.under_way)  # it drains what the second is to get
        assert second.consumes == set()
        of(first, coordinator, lambda _request: heartbeat_answer(code=110))
        assert await overlap(first, second) == set()


async def test_110_after_two_lost_answers() -> None:
    """How it comes to a 110 without any fault but of the network: an acknowledgement and what follows it are lost."""
    coordinator = FakeCoordinator()
    async with two_members(coordinator) as (first, second):

        def acknowledges(request: Any) -> Any:
            """Lose the answer to the acknowledgement of the first rebalance; then the second one begins."""
            answer = coordinator._usual(request)
            if request.fields[9] is None or coordinator.members[first.name].revoked:
                of(first, coordinator, acknowledges)
                return answer
            coordinator.retarget(**{first.name: [0], second.name: [1, 2, 3]})
            of(first, coordinator, lost)
            raise KafkaConnectionError("lost after")

        def lost(request: Any) -> Any:
            coordinator._usual(request)
            raise KafkaConnectionError("lost after")

        of(first, coordinator, acknowledges)
        second.start()
        await until(lambda: first.consumes == {0, 1})
        first.calls_end.clear()
        assert await overlap(first, second) == set()


async def test_110_while_a_commit_waits_for_a_heartbeat() -> None:
    """The drain waits for its commit, this for a heartbeat, and the heartbeat for the drain: the commit gives up."""
    coordinator = FakeCoordinator()
    async with joined(coordinator) as (member,):

        async def stale(request: Any) -> Any:
            coordinator.script[HeartbeatRequest].append(110)
            await until(lambda: member.member.life == 1)
            return coordinator._scripted(request, 113)

        coordinator.script[OffsetCommitRequest].append(stale)
        coordinator.retarget(**{member.name: [0]})
        await until(lambda: member.member.life == 1 and member.member.epoch > 0)
