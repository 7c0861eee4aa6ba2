"""Faults of brokers, network and workers, one after another, while records flow; recovery times are measured."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from consumer.kafka.probe import group_offsets
from tests.chaos import checker
from tests.chaos.harness import SESSION_SECONDS, Plan, Report, Run
from tests.chaos.history import read_calls
from tests.chaos.proxy import Mode
from tests.chaos.three import Three
from tests.cluster import Cluster

SESSION = SESSION_SECONDS
REQUEST = 20.0
OVERRIDES = (
    "kafka.rebalance_timeout_seconds=12",
    f"kafka.request_timeout_seconds={REQUEST}",
    "delivery.drain_seconds=5",
    "delivery.commit_interval_seconds=0.2",
    "log.level=info",
)


class Fault(NamedTuple):
    """One fault; ``heal`` ends it."""

    name: str
    bound: float
    """Seconds within which all partitions must flow again."""
    begin: Callable[[Storm], Awaitable[None]]
    heal: Callable[[Storm], Awaitable[None]] | None = None
    seconds: float = 0.0
    """How long it lasts; 0: until all flows again without it being healed."""
    from_its_end: bool = False
    """Whether the time counts from when it is over: it lasts by itself."""
    calm: bool = False
    """Whether the group has no reason to notice: nobody's partitions may be taken away."""
    zombie: bool = False
    """Whether a worker goes on with what is no longer its own: two calls of a key may overlap then."""


class Recovery(NamedTuple):
    """The time until all partitions flowed again after one fault, in seconds."""

    fault: str
    seconds: float
    bound: float
    rebalances: int = 0
    """Number of epochs that workers lost during the fault."""


class Storm(Run):
    """A run on three brokers behind proxies, with faults drawn by the seed or in order."""

    def __init__(
        self, cluster: Cluster, plan: Plan, three: Three, faults: list[Fault], tell: Callable[[Recovery], object]
    ) -> None:
        super().__init__(cluster, plan)
        self.three = three
        self.victim = 1
        self.frozen: Any = None
        self.spared = 0
        """Number of first workers that no fault touches."""
        self.opened: AsyncExitStack
        self.recoveries: list[Recovery] = []
        self._left = list(faults)
        self._zombies = any(fault.zombie for fault in faults)
        self._tell = tell
        self._over = False

    def _numbers(self) -> Iterator[int]:
        number = 0
        while not self._over:
            yield number
            number += 1

    async def _disturb(self, opened: AsyncExitStack) -> None:
        """Run the next fault from begin to recovery; the run ends after the last one."""
        self.opened = opened
        if not self._left:
            self._over = True
            await asyncio.sleep(0.1)
            return
        fault = self._left.pop(0)
        self._disturbances += 1
        for worker in self._workers:
            await worker.said("partitions_assigned")
        await self._flows(60.0)
        began, rebalances = time.monotonic(), self._rebalances()
        await fault.begin(self)
        if fault.from_its_end:
            began = time.monotonic()
        if fault.seconds and fault.heal is not None:
            await asyncio.sleep(fault.seconds)
            await fault.heal(self)
            began = time.monotonic()
        try:
            await self._flows(fault.bound + 60.0)
        finally:
            seconds, lost = round(time.monotonic() - began, 1), self._rebalances() - rebalances
            self.recoveries.append(Recovery(fault.name, seconds, fault.bound, lost))
            self._tell(self.recoveries[-1])
        if fault.heal is not None and not fault.seconds:
            await fault.heal(self)

    def _rebalances(self) -> int:
        """Count how often workers have had partitions taken away."""
        return sum('"partitions_revoked"' in line or '"partitions_lost"' in line for w in self._all for line in w.lines)

    async def _flows(self, seconds: float) -> None:
        """Wait until all records that exist now, in every partition, are committed."""
        async with asyncio.timeout(seconds):
            ends = {key: end for key, (_, end) in (await self._offsets()).items()}
            while True:
                now = await self._offsets()
                if all((now[key][0] or 0) >= end for key, end in ends.items()):
                    return
                await asyncio.sleep(0.1)

    async def _offsets(self) -> Any:
        while True:
            with contextlib.suppress(Exception):  # brokers may be away just now
                return await group_offsets(self._cluster.kafka)
            await asyncio.sleep(0.2)

    async def judged(self) -> Report:
        """Run and check; two calls of a key may overlap only where a worker was frozen."""
        report = await self.go()
        late = [
            f"{r.fault}: flowed after {r.seconds} s, not within {r.bound}"
            for r in self.recoveries
            if r.seconds > r.bound
        ]
        # A worker that was frozen in a call ends it, and may begin a few more before it looks at the clock.
        of_zombies = (" began before ", " was repeated below ") if self._zombies else ()
        broken = [line for line in report.broken if not any(words in line for words in of_zombies)]
        return report._replace(broken=[*late, *needless(self.recoveries), *broken])

    def repeats_below_commits(self) -> int:
        """Count repeats; the checker has shown that each lies at or above the offset committed when it began."""
        return checker.repeats(read_calls(self._folder))

    async def choose_leader(self) -> int:
        """Choose the broker that leads a partition of the topic."""
        self.victim = await self.three.leader(self._cluster.topic, self._random.randrange(self._plan.partitions))
        return self.victim

    async def choose_coordinator(self) -> int:
        """Choose the broker that coordinates the group."""
        self.victim = await self.three.coordinator(self._cluster.kafka.group_id)
        return self.victim

    def set_network(self, mode: Mode, *, everywhere: bool = False) -> None:
        """Change the network in front of the victim, or of all brokers."""
        for node, proxy in self.three.proxies.items():
            if everywhere or node == self.victim:
                proxy.mode = mode

    async def end_worker(self, number: signal.Signals) -> None:
        """Signal one worker, wait for its end, and start another one."""
        worker = self._workers.pop(self._random.randrange(self.spared, len(self._workers)))
        await worker.said("daemon_started")  # before that it is Python's own start that is signalled
        worker.signal(number)
        code = await worker.exit_code()
        assert code == (-number if number == signal.SIGKILL else 0), (code, worker.lines[-5:])
        await self._join(self.opened)

    def freeze_worker(self) -> None:
        """Stop one worker with SIGSTOP; the group will take its partitions away."""
        self.frozen = self._random.choice(self._workers[self.spared :])
        self.frozen.signal(signal.SIGSTOP)


async def kill_leader(storm: Storm) -> None:
    storm.three.kill(await storm.choose_leader())


async def kill_coordinator(storm: Storm) -> None:
    storm.three.kill(await storm.choose_coordinator())


async def start_victim(storm: Storm) -> None:
    await storm.three.start(storm.victim)


async def freeze_leader(storm: Storm) -> None:
    storm.three.freeze(await storm.choose_leader())


async def thaw_victim(storm: Storm) -> None:
    storm.three.thaw(storm.victim)


async def roll(storm: Storm) -> None:
    for node in (1, 2, 3):
        await storm.three.end(node)
        await storm.three.start(node)


async def kill_all(storm: Storm) -> None:
    for node in (1, 2, 3):
        storm.three.kill(node)


async def start_all(storm: Storm) -> None:
    await storm.three.start(1, 2, 3)


def network(mode: Mode, *, coordinator: bool = False, everywhere: bool = False) -> Callable[[Storm], Awaitable[None]]:
    async def set_mode(storm: Storm) -> None:
        await (storm.choose_coordinator() if coordinator else storm.choose_leader())
        storm.set_network(mode, everywhere=everywhere)

    return set_mode


async def pass_on(storm: Storm) -> None:
    storm.set_network("pass", everywhere=True)


async def reset_connections(storm: Storm) -> None:
    for proxy in storm.three.proxies.values():
        proxy.reset()


async def kill_worker(storm: Storm) -> None:
    await storm.end_worker(signal.SIGKILL)


async def replace_worker(storm: Storm) -> None:
    await storm.end_worker(signal.SIGTERM)


async def come_and_go(storm: Storm) -> None:
    for _ in range(4):
        await storm.end_worker(signal.SIGTERM)


async def freeze_worker(storm: Storm) -> None:
    storm.freeze_worker()


async def thaw_worker(storm: Storm) -> None:
    storm.frozen.signal(signal.SIGCONT)


FAULTS = [
    Fault("leader killed", 15.0, kill_leader, start_victim, calm=True),
    Fault("coordinator killed", 15.0, kill_coordinator, start_victim, calm=True),
    Fault("leader frozen for 10 s", 15.0, freeze_leader, thaw_victim, seconds=10.0),
    Fault("rolling restart", 15.0, roll, from_its_end=True, calm=True),
    Fault("all brokers killed, away for 20 s", 30.0, kill_all, start_all, seconds=20.0),
    Fault("leader refuses connections for 8 s", 15.0, network("refuse"), pass_on, seconds=8.0),
    Fault("coordinator refuses connections for 8 s", 15.0, network("refuse", coordinator=True), pass_on, seconds=8.0),
    Fault("all refuse connections for 15 s", 15.0, network("refuse", everywhere=True), pass_on, seconds=15.0),
    Fault("all connections reset", 15.0, reset_connections, calm=True),
    Fault("leader in a black hole for 3 s", REQUEST + 10, network("black_hole"), pass_on, seconds=3.0),
    Fault(
        "coordinator in a black hole for 3 s",
        REQUEST + 10,
        network("black_hole", coordinator=True),
        pass_on,
        seconds=3.0,
    ),
    Fault("leader heard by nobody for 3 s", REQUEST + 10, network("one_way"), pass_on, seconds=3.0),
    Fault("slow network for 10 s", 15.0, network("slow", everywhere=True), pass_on, seconds=10.0, calm=True),
    Fault("flaky network for 10 s", 15.0, network("flaky", everywhere=True), pass_on, seconds=10.0, calm=True),
    Fault("worker killed", SESSION + 5.0, kill_worker),
    Fault("worker replaced", 10.0, replace_worker),
    Fault("four workers replaced in a row", 15.0, come_and_go),
    Fault("worker frozen for twice its session", 15.0, freeze_worker, thaw_worker, seconds=2 * SESSION, zombie=True),
]


def needless(recoveries: list[Recovery]) -> list[str]:
    """Return where partitions were taken away although the group had no reason to notice the fault."""
    calm = {fault.name for fault in FAULTS if fault.calm}
    lost = [each for each in recoveries if each.rebalances and each.fault in calm]
    return [f"{each.fault}: {each.rebalances} epochs were lost for nothing" for each in lost]
