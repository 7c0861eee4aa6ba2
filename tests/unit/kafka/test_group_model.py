"""Random schedules of members that come, go, drain slowly, are thrown out and lose answers, on one coordinator.

Whatever happens: a partition is consumed by one member that the coordinator knows, no commit falls, none is ahead of
what was consumed, and in the end every partition is consumed by its owner.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from consumer.kafka import group_offsets, heartbeats, membership, reconciliation
from consumer.kafka.wire_questions import TopicsRequest
from consumer.kafka.wire_requests import HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest
from consumer.record import TopicPartition
from tests.fakes.coordinator import FakeCoordinator, Script
from tests.unit.kafka.members import AMember, settled, until

FAULTS: dict[type, list[Script]] = {
    HeartbeatRequest: ["before", "after", 14, 16, 110, None],
    OffsetCommitRequest: ["before", "after", 16, 113, 7],
    OffsetFetchRequest: ["before", "after", 14, 88, 113],
    TopicsRequest: ["before", "unknown"],
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (heartbeats, reconciliation, group_offsets):
        monkeypatch.setattr(module, "AGAIN_SECONDS", 0.0005)
    monkeypatch.setattr(membership, "EAGER_SECONDS", 0.001)
    monkeypatch.setattr(membership, "MOST_SECONDS", 0.002)


class Consuming(AMember):
    """A member that consumes, commits now and then, and drains for a random time."""

    def __init__(self, coordinator: FakeCoordinator, chance: random.Random, reached: dict[int, int]) -> None:
        super().__init__(coordinator)
        self.chance = chance
        self.reached = reached
        """The highest offset that any member has consumed, by partition."""
        self.works: asyncio.Task[None] | None = None

    def start(self) -> None:
        super().start()
        self.works = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while True:
            for key in list(self.positions):
                self.positions[key] += self.chance.randint(0, 3)
                self.reached[key.partition] = max(self.reached.get(key.partition, 0), self.positions[key])
            if self.positions and self.chance.random() < 0.3:
                await asyncio.wait([asyncio.create_task(self._commit(dict(self.positions)))], timeout=0.02)
            await asyncio.sleep(0.0005 * self.chance.random())

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        async with self._one_at_a_time:
            await self.offsets.commit(offsets, "")

    @property
    def _one_at_a_time(self) -> asyncio.Lock:
        self.__dict__.setdefault("_lock", asyncio.Lock())
        lock: asyncio.Lock = self.__dict__["_lock"]
        return lock

    async def let_go(self, keys: Any, *, lost: bool) -> None:
        if lost:
            for key in keys:
                self.positions.pop(key, None)
        await asyncio.sleep(0.004 * self.chance.random())
        async with self._one_at_a_time:
            await super().let_go(keys, lost=lost)

    async def end(self, *, leave: bool = True) -> None:
        assert self.works is not None
        self.works.cancel()
        await asyncio.wait([self.works])
        await super().end(leave=leave)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("seed", range(12))
async def test_any_schedule_converges(seed: int, *, strict: bool) -> None:
    """One owner, commits that neither fall nor run ahead, and every partition with its owner in the end."""
    chance = random.Random(seed)
    coordinator = FakeCoordinator(partitions=chance.randint(1, 9))
    coordinator.strict = strict
    reached: dict[int, int] = {}
    members: list[Consuming] = []
    try:
        for _ in range(60):
            await _disturb(chance, coordinator, members, reached)
            await asyncio.sleep(0.004 * chance.random())
            _check(coordinator, members, reached)
        for scripts in coordinator.script.values():
            scripts.clear()
        if not members:
            members.append(Consuming(coordinator, chance, reached))
            members[-1].start()
        await until(lambda: settled(coordinator, members), 20)
        _check(coordinator, members, reached)
    finally:
        for each in members:
            await each.end(leave=False)
    assert [failure for each in members for failure in each.failures] == []


async def _disturb(
    chance: random.Random, coordinator: FakeCoordinator, members: list[Consuming], reached: dict[int, int]
) -> None:
    what = chance.choice(["join", "leave", "vanish", "throw out", "fault", "fault", "fault", "shift"])
    if what == "join" and len(members) < 4:
        members.append(Consuming(coordinator, chance, reached))
        members[-1].start()
    elif what in ("leave", "vanish") and members:
        member = members.pop(chance.randrange(len(members)))
        await member.end(leave=what == "leave")
        coordinator.remove(member.name)  # of one that vanished the session ends
    elif what == "throw out" and members:
        coordinator.remove(chance.choice(members).name)
    elif what == "fault":
        kind = chance.choice(list(FAULTS))
        coordinator.script[kind].append(chance.choice(FAULTS[kind]))
    elif what == "shift":
        coordinator.change()


def _check(coordinator: FakeCoordinator, members: list[Consuming], reached: dict[int, int]) -> None:
    """One owner among the members that know their epoch; commits neither fall nor run ahead."""
    current = [
        each
        for each in members
        if each.name in coordinator.members and each.member.epoch >= coordinator.members[each.name].before > 0
    ]
    for number, one in enumerate(current):
        for other in current[number + 1 :]:
            assert not one.consumes & other.consumes, (one.events, other.events)
    highest: dict[int, int] = {}
    for each in coordinator.commits:
        assert each.offset >= highest.get(each.partition, 0), "a commit fell"
        assert each.offset <= reached.get(each.partition, 0), "a commit ran ahead"
        highest[each.partition] = each.offset
