"""``python -m bench.rebalance``: how long partitions stand still at rebalances, by either group protocol.

Members join, leave, are killed and restarted, partitions are added, while records flow. They are daemons of the product
in one process, on a local Kafka. The pause of a partition is the longest time from the append of a record to its call,
of the records that were appended during a step. It writes ``REBALANCE.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiokafka
import msgspec
import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from bench.machine import commit, machine
from consumer import Record
from consumer.kafka.client_internals import _end_tasks
from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.producer import create_topic
from consumer.process.daemon import Daemon
from consumer.process.parts import make_daemon
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from consumer.settings.sections import DeadLetterSettings, Delivery, Http, Kafka, SchemaSettings, Settings

PARTITIONS, MORE = 12, 16
RATE = 200.0
SLOW_SECONDS = 2.5
SESSION_SECONDS, HEARTBEAT_SECONDS = 6.0, 1.0
REST_SECONDS = {"classic": 3.5, "consumer": 11.0}
"""Time without a change before each step, after which heartbeats are as rare as they get."""
PAUSED_SECONDS = 0.25
FILE = Path(__file__).parent / "REBALANCE.md"
KEPT = FILE.with_name("rebalance.json")
"""The runs of the page; those that are run again replace theirs."""
PROTOCOLS = ("classic", "consumer")
BROKER = {
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": str(int(SESSION_SECONDS * 1000)),
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": str(int(HEARTBEAT_SECONDS * 1000)),
}
Place = tuple[int, int]


class Pause(NamedTuple):
    """What one step did to the partitions."""

    partitions: int
    """How many stood still for longer than PAUSED_SECONDS."""
    worst: float
    total: float
    """Sum of the pauses over PAUSED_SECONDS, in seconds."""
    moved: bool | None
    """Whether the partition with the slow call moved; None without one."""

    def __str__(self) -> str:
        return f"{self.partitions} / {self.worst:.2f} / {self.total:.1f}"


class Measured(NamedTuple):
    """One run by one protocol: the pauses by step, and a line on losses and repeats."""

    pauses: dict[str, Pause]
    line: str


class Bench:
    """One topic and its members, by one protocol."""

    def __init__(self, servers: str, protocol: str, name: str) -> None:
        short = {"session_timeout_seconds": SESSION_SECONDS, "heartbeat_interval_seconds": HEARTBEAT_SECONDS}
        given: Any = short if protocol == "classic" else {}
        self.kafka = Kafka(bootstrap_servers=[servers], topics=[name], group_id=name, group_protocol=protocol, **given)
        self.members: list[tuple[Daemon, asyncio.Task[None]]] = []
        self.appended: dict[Place, float] = {}
        self.handled: dict[Place, float] = {}
        self.repeats = 0
        self.slow: set[Place] = set()
        self.in_work: asyncio.Event = asyncio.Event()
        self._partitions = PARTITIONS

    async def handle(self, _event: bytes, record: Record) -> None:
        """Note when a record was called; one that is marked takes its time."""
        place = record.partition, record.offset
        self.repeats += place in self.handled
        self.handled.setdefault(place, time.monotonic())
        if record.value == b"slow":
            self.in_work.set()
            await asyncio.sleep(SLOW_SECONDS)

    async def produce(self) -> None:
        """Append to the partitions in turn."""
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap_servers)
        await producer.start()
        self._producer = producer
        number, began = 0, time.monotonic()
        try:
            while True:
                await self._append(number % self._partitions, b"x")
                number += 1
                await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
        finally:
            await producer.stop()

    async def _append(self, partition: int, value: bytes) -> None:
        at = time.monotonic()
        sent = await self._producer.send(self.kafka.topics[0], value, partition=partition)
        sent.add_done_callback(lambda done: self._note(done, at))

    def _note(self, done: asyncio.Future[Any], at: float) -> None:
        if not done.cancelled() and done.exception() is None:
            self.appended[done.result().partition, done.result().offset] = at

    async def join(self) -> None:
        """Start a member."""
        settings = Settings(
            kafka=self.kafka,
            delivery=Delivery(commit_interval_seconds=0.25),
            dead_letter=DeadLetterSettings(topic=""),
            schemas=[SchemaSettings(topic="*", type="bytes")],
            http=Http(port=0),
        )
        route = Route("bench", None, bind_handler(self.handle, "bench"))
        daemon = make_daemon(settings, [route])
        self.members.append((daemon, asyncio.create_task(daemon.run())))

    async def leave(self) -> None:
        """Stop the oldest member."""
        daemon, task = self.members.pop(0)
        daemon.stop()
        await task

    async def kill(self) -> None:
        """End the oldest member without a word to the group."""
        daemon, task = self.members.pop(0)
        consumer = daemon._parts.source.client
        parts = getattr(daemon._parts.source, "_parts", None)
        if parts is not None:
            parts.beating.cancel()
        task.cancel()
        await asyncio.wait([task])
        await _end_tasks(consumer)
        await consumer._client.close()

    async def roll(self) -> None:
        """Replace both members: one joins, one leaves, twice."""
        for _ in range(2):
            await self.join()
            await self.settled()
            await self.leave()
            await self.settled()

    async def grow(self) -> None:
        """Add partitions."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers)
        await admin.start()
        try:
            await admin.create_partitions({self.kafka.topics[0]: NewPartitions(MORE)})
        finally:
            await admin.close()
        while len(await self._producer.partitions_for(self.kafka.topics[0])) < MORE:
            await self._producer.client.force_metadata_update()
        self._partitions = MORE

    def owned(self) -> list[set[int]]:
        """Return the partitions of each member."""
        return [{key.partition for key in daemon._parts.engine.partitions} for daemon, _ in self.members]

    async def settled(self) -> None:
        """Wait until the members share all partitions."""
        while True:
            found = self.owned()
            even = max(map(len, found)) - min(map(len, found)) <= 1
            if even and len(set().union(*found)) == sum(map(len, found)) == self._partitions:
                return
            await asyncio.sleep(0.02)

    async def step(self, act: Callable[[], Awaitable[None]], *, slow: str) -> Pause:
        """Do one step at rest; return what the partitions did until all was settled, and for a second after."""
        await asyncio.sleep(REST_SECONDS[self.kafka.group_protocol])
        marked: int | None = None
        if slow:
            largest = max(self.owned(), key=len)
            marked = min(largest) if slow == "first" else max(largest)
            owners = [marked in each for each in self.owned()]
            owner = self.members[owners.index(True)][0]
            self.in_work.clear()
            await self._append(marked, b"slow")
            await self.in_work.wait()
        began = time.monotonic()
        await act()
        await self.settled()
        moved = None
        if marked is not None:
            still = next((each for each, _ in self.members if each is owner), None)
            moved = still is None or all(key.partition != marked for key in still._parts.engine.partitions)
            await asyncio.sleep(max(0.0, SLOW_SECONDS - (time.monotonic() - began)))
        await asyncio.sleep(1.0)
        return self._judged(began, marked, moved)

    def _judged(self, began: float, marked: int | None, moved: bool | None) -> Pause:
        now, longest = time.monotonic(), dict[int, float]()
        for (partition, offset), at in self.appended.items():
            if at >= began - 0.3 and at < now - 0.5 and partition != marked:
                waited = self.handled.get((partition, offset), now) - at
                longest[partition] = max(longest.get(partition, 0.0), waited)
        over = [each for each in longest.values() if each > PAUSED_SECONDS]
        return Pause(len(over), max(longest.values()), sum(over), moved)


STEPS = ["2nd joins", "3rd joins", "one killed", "4th joins", "one leaves", "4 partitions more", "roll of both"]


async def run(servers: str, protocol: str, slow: str) -> Measured:
    """Run all steps on a new topic; return the pauses, and a line on losses and repeats."""
    name = f"rebalance-{protocol}-{slow or 'quick'}"
    bench = Bench(servers, protocol, name)
    await create_topic(bench.kafka, name, PARTITIONS)
    producing = asyncio.create_task(bench.produce())
    await bench.join()
    await bench.settled()
    acts = [bench.join, bench.join, bench.kill, bench.join, bench.leave, bench.grow, bench.roll]
    found = {}
    for label, act in zip(STEPS, acts, strict=True):
        found[label] = await bench.step(act, slow=slow if act != bench.kill else "")
        print(f"{protocol:9} {slow or 'quick':6} {label:18} {found[label]} {found[label].moved}", flush=True)
    producing.cancel()
    await asyncio.wait([producing])
    await asyncio.sleep(1.0)
    missing = len(bench.appended.keys() - bench.handled.keys())
    for daemon, _ in bench.members:
        daemon.stop()
    await asyncio.wait([task for _, task in bench.members])
    line = f"{len(bench.appended):,} records, {missing} lost, {bench.repeats} called twice"
    print(f"{protocol:9} {line}", flush=True)
    return Measured(found, line)


def table(results: dict[str, Measured], slow: str) -> list[str]:
    """Return the rows of one kind of run, the protocols side by side."""
    rows = ["| step | classic | consumer |", "|---|---|---|"]
    for label in STEPS:
        cells = []
        for protocol in PROTOCOLS:
            pause = results[f"{protocol} {slow}"].pauses[label]
            moved = "" if pause.moved is None else (" (moves)" if pause.moved else " (stays)")
            cells.append(f"{pause}{moved}")
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return rows


async def main(kinds: list[str]) -> None:
    """Run everything and write the page."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    results = msgspec.json.decode(KEPT.read_bytes(), type=dict[str, Measured]) if KEPT.exists() else {}
    async with LocalKafka(properties=BROKER) as kafka:
        for slow in kinds:
            for protocol in PROTOCOLS:
                results[f"{protocol} {slow}"] = await run(kafka.bootstrap_servers, protocol, slow)
    KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    FILE.write_text(page(results))


def page(results: dict[str, Measured]) -> str:
    """Return the page as Markdown."""
    titles = {
        "": "Calls of microseconds",
        "first": "One call of 2.5 s in work, in the owner's lowest partition",
        "last": "One call of 2.5 s in work, in the owner's highest partition",
    }
    of = machine()
    where = f"{of['cores']} cores of {of['cpu']}, commit {commit()}."
    text = HEAD.format(rate=RATE, session=SESSION_SECONDS, machine=where)
    for slow, title in titles.items():
        text += "\n".join(["", f"## {title}", "", *table(results, slow), ""])
    lines = [
        f"- {protocol}, {title[0].lower()}{title[1:]}: {results[f'{protocol} {slow}'].line}"
        for slow, title in titles.items()
        for protocol in PROTOCOLS
    ]
    return text + "\n".join(["", "## Losses and repeats", "", *lines, ""])


HEAD = """\
# How long partitions stand still at a rebalance

Written by `python -m bench.rebalance`; not edited by hand. {machine}

Daemons in one process on a local Kafka, 12 partitions (16 after the growth), {rate:g} records/s, a commit each
0.25 s, heartbeats of the brokers 1 s, sessions {session:g} s. A cell is: partitions that stood still for more than
0.25 s / the longest time in s / the sum in partition-seconds. The time is from a record's append to its call. The
partition with the slow call is not counted itself; (stays) and (moves) say what became of it. Before each step the
members are at rest. Two changes within a second, as in the roll, wait for the brokers
(`group.consumer.assignment.interval.ms`, 1 s by default).
"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.rebalance")
    parser.add_argument("kinds", nargs="*", default=["quick", "first", "last"], help="quick, first, last; none: all")
    asyncio.run(main([kind.replace("quick", "") for kind in parser.parse_args().kinds]))
