"""A member of the consumer group protocol on a coordinator in this process; what it consumes is a number each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from consumer.kafka.group_offsets import GroupOffsets
from consumer.kafka.heartbeats import Heartbeats
from consumer.kafka.holdings import Holdings
from consumer.kafka.membership import Membership, Subscription
from consumer.kafka.reconciliation import Reconciliation
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka
from tests.fakes.coordinator import FakeCoordinator

KAFKA = Kafka(group_id="g", topics=["t"], group_protocol="consumer")


class AMember:
    """One client of one member; ``positions`` has what it consumes, with the next offset of each partition."""

    def __init__(self, coordinator: FakeCoordinator, instance: str | None = None) -> None:
        self.coordinator = coordinator
        self.member = Membership(Subscription("g", instance, 1000, ["t"], None, None))
        self.member.begin(0.0)
        self.holdings = Holdings()
        fake: Any = coordinator
        self.heartbeats = Heartbeats(KAFKA, self.member, fake, self.holdings)
        self.offsets = GroupOffsets("g", self.member, fake, self.heartbeats, self.holdings)
        self.reconciliation = Reconciliation(self.member, self.heartbeats, self.holdings, fake, self)
        self.positions: dict[TopicPartition, int] = {}
        self.events: list[tuple[str, frozenset[int]]] = []
        self.may_drain = asyncio.Event()
        self.may_drain.set()
        self.failures: list[Exception] = []
        self.moves: Counter[str] = Counter()
        self.task: asyncio.Task[None] | None = None

    async def let_go(self, keys: Collection[TopicPartition], *, lost: bool) -> None:
        numbers = frozenset(key.partition for key in keys)
        self.events.append(("lost" if lost else "drain", numbers))
        if not lost:
            await self.may_drain.wait()
            done = {key: self.positions[key] for key in keys if key in self.positions}
            if done:
                await self.offsets.commit(done, "")
        for key in keys:
            self.positions.pop(key, None)
        self.events.append(("gone", numbers))

    async def starts(self, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        return await self.offsets.committed(keys)

    def begin(self, starts: Mapping[TopicPartition, int], since: float) -> None:
        assert since > 0
        assert not starts.keys() & self.positions.keys(), "began twice"
        self.positions |= {key: max(0, offset) for key, offset in starts.items()}
        self.events.append(("begin", frozenset(key.partition for key in starts)))

    def acknowledged(self) -> None:
        self.moves["acknowledged"] += 1

    def fail(self, error: Exception) -> None:
        self.failures.append(error)

    @property
    def consumes(self) -> set[int]:
        """Numbers of the partitions that are consumed."""
        return {key.partition for key in self.positions}

    @property
    def name(self) -> str:
        return self.member.member_id

    def start(self) -> None:
        self.task = asyncio.create_task(self.heartbeats.run())

    async def end(self, *, leave: bool = True) -> None:
        self.may_drain.set()
        if leave:
            await self.let_go(list(self.positions), lost=False)
        await self.reconciliation.stop()
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])
        if leave:
            await self.heartbeats.leave()


async def until(holds: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something holds; fail when it does not in time."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def joined(coordinator: FakeCoordinator, count: int = 1, **options: Any) -> AsyncIterator[list[AMember]]:
    """Run some members that have shared all partitions out."""
    members = [AMember(coordinator, **options) for _ in range(count)]
    try:
        for each in members:
            each.start()
            await until(lambda each=each: each.heartbeats.joined.done())  # type: ignore[misc]
        await until(lambda: settled(coordinator, members))
        yield members
    finally:
        for each in members:
            if each.task is not None and not each.task.done():
                await each.end(leave=False)
    assert [each.failures for each in members if each.failures] == []


def settled(coordinator: FakeCoordinator, members: Collection[AMember]) -> bool:
    """Whether each member consumes its target, and all partitions are consumed."""
    every = {place.partition for place in coordinator.places}
    return set().union(*(each.consumes for each in members)) == every and all(
        each.name in coordinator.members
        and each.consumes == {place.partition for place in coordinator.members[each.name].target}
        for each in members
    )
