"""``python -m bench.sizing`` measures memory by partitions and pauses by members, and writes ``SIZING.md``.

Memory: a daemon whose calls never end, so that each partition is filled to its limits by one key. Pauses: daemons of
one group at 200 records a second; each step's window lasts until the group is at rest again. The pause of a partition
is the longest time from a record's production to its call.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from bench.environment import ROOT
from bench.machine import machine
from consumer.kafka.local.cluster import LocalKafka
from consumer.settings.sections import Settings
from tests.cluster import Cluster, a_route
from tests.process import RunningConsumer

RECORD_BYTES = 10_000
PARTITIONS = 24
RATE = 200.0
LATE_SECONDS = 0.25
REST_SECONDS = 8.0
"""Length of a step's window; a kill is not among the steps."""
RAW = '[[schemas]]\ntopic = "*"\ntype = "bytes"\n'


class Pauses(NamedTuple):
    """Partitions that paused for 0.25 s or more, the longest pause in s, and the sum over partitions in s."""

    partitions: int
    worst: float
    total: float

    def __str__(self) -> str:
        return f"{self.partitions} of {PARTITIONS}, {self.worst:.1f} s, {self.total:.1f}"


def _run(cluster: Cluster, *sets: str, routes: str, name: str = "a") -> RunningConsumer:
    daemon = cluster.run(*sets, routes=routes, name=name)
    daemon.environment = {"PYTHONPATH": str(ROOT)}
    return daemon


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def memory(servers: str, folder: Path, partitions: int) -> tuple[float, float]:
    """Return MiB of a daemon that owns ``partitions`` empty partitions, and of one that holds all it may of each."""
    cluster = Cluster(servers, "memory", folder)
    await cluster.create(partitions, dead_letters=1)
    routes = RAW + a_route("bench.loops.sizing_handlers:never")
    routes = routes.replace("options = {  }\n", "")
    async with _run(cluster, "delivery.ordering=key", routes=routes) as daemon:
        await daemon.said("partitions_assigned")
        await asyncio.sleep(10)
        idle = resident(daemon.pid)
        limits = Settings()
        count = int(limits.delivery.max_in_flight_bytes * 1.6) // RECORD_BYTES
        for partition in range(partitions):
            values = (random.randbytes(RECORD_BYTES) for _ in range(count))
            await cluster.produce(values, partition, compression_type="lz4", max_batch_size=1_000_000, linger_ms=50)
        await _at_rest(daemon)
        return idle, resident(daemon.pid)


async def _at_rest(daemon: RunningConsumer) -> None:
    """Wait until the memory of a daemon has not grown for 10 s."""
    highest, since = 0.0, time.monotonic()
    while time.monotonic() < since + 10:
        await asyncio.sleep(0.5)
        if (now := resident(daemon.pid)) > highest + 1:
            highest, since = now, time.monotonic()


class Group:
    """Daemons of one group, and what their records waited."""

    def __init__(self, cluster: Cluster, *, static: bool) -> None:
        self._cluster, self._static = cluster, static
        self._names = 0
        self._offset = 0

    @asynccontextmanager
    async def daemon(self, number: int) -> AsyncIterator[RunningConsumer]:
        self._names += 1
        path = self._cluster.folder / "late.txt"
        routes = RAW + a_route("bench.loops.sizing_handlers:Late", path=str(path), late_seconds=LATE_SECONDS)
        sets = [f"kafka.group_instance_id=member-{number}"] if self._static else []
        async with _run(self._cluster, *sets, routes=routes, name=f"daemon-{self._names}") as daemon:
            await daemon.said("daemon_started")
            yield daemon

    async def produce(self) -> None:
        """Produce to all partitions by turns until cancelled."""
        async with self._cluster.producer(linger_ms=0) as producer:
            began, number = time.monotonic(), 0
            while True:
                await producer.send(self._cluster.topic, b"{}", partition=number % PARTITIONS)
                number += 1
                await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))

    async def pauses(self) -> Pauses:
        """Wait for the end of the window, and return the pauses since the last call."""
        await asyncio.sleep(REST_SECONDS)
        text = (self._cluster.folder / "late.txt").read_text()
        lines, self._offset = text[self._offset :].splitlines(), len(text)
        longest: dict[str, float] = {}
        for partition, _produced, late in map(str.split, lines):
            longest[partition] = max(longest.get(partition, 0.0), float(late))
        return Pauses(len(longest), max(longest.values(), default=0.0), sum(longest.values()))


async def rebalances(servers: str, folder: Path, members: int, *, static: bool) -> dict[str, Pauses]:
    """Return the pauses of each step: a member joins, leaves, and is restarted."""
    cluster = Cluster(servers, f"group-{members}-{static}", folder)
    await cluster.create(PARTITIONS, dead_letters=1)
    group, found = Group(cluster, static=static), {}
    async with AsyncExitStack() as opened:
        producing = asyncio.create_task(group.produce())
        opened.callback(producing.cancel)
        for number in range(members - 1):
            await opened.enter_async_context(group.daemon(number))
        await group.pauses()
        await group.pauses()
        last = await opened.enter_async_context(group.daemon(members))
        found["joins"] = await group.pauses()
        assert await last.stop() == 0
        if static:
            last = await opened.enter_async_context(group.daemon(members))
        found["restarts" if static else "leaves"] = await group.pauses()
        if not static:
            last = await opened.enter_async_context(group.daemon(members))
            await group.pauses()
            assert await last.stop() == 0
            await opened.enter_async_context(group.daemon(members))
            found["restarts"] = await group.pauses()
    return found


def report(memory_by: dict[int, tuple[float, float]], pauses_by: dict[tuple[int, bool], dict[str, Pauses]]) -> str:
    """Return SIZING.md."""
    limits, where = Settings(), machine()
    bound = (limits.delivery.max_in_flight_bytes + 2 * limits.kafka.fetch_bytes) / 2**20
    lines = [
        "# Memory and rebalances",
        "",
        "Written by `python -m bench.sizing`; not edited by hand.",
        "",
        f"Machine: {where['cores']} cores of {where['cpu']}, {where['memory_gb']} GB, Python {where['python']}, Kafka",
        f"{where['kafka']} on the same cores.",
        "",
        "## Memory of a daemon, MiB resident",
        "",
        f"Default limits, values of {RECORD_BYTES:,} random bytes in batches of 1 MB, calls that never end.",
        f"The formula is {bound:.0f} MiB of records and fetches and one batch of 1 MiB for each partition.",
        "",
        "| partitions | idle | full | a partition | the formula |",
        "|---|---|---|---|---|",
    ]
    for partitions, (idle, full) in memory_by.items():
        each = (full - idle) / partitions
        lines.append(f"| {partitions} | {idle:.0f} | {full:.0f} | {each:.1f} | {bound + 1:.0f} |")
    lines += [
        "",
        "## Pauses in a rebalance of the classic protocol",
        "",
        f"{PARTITIONS} partitions, {RATE:.0f} records a second, calls of microseconds, default settings. Each cell:",
        f"partitions that paused for {LATE_SECONDS} s or more, the longest pause, and the sum over partitions in s.",
        "",
        "| members | static | one joins | one leaves | one is restarted |",
        "|---|---|---|---|---|",
    ]
    for (members, static), found in pauses_by.items():
        cells = " | ".join(str(found.get(step, "")) for step in ("joins", "leaves", "restarts"))
        lines.append(f"| {members} | {'yes' if static else 'no'} | {cells} |")
    return "\n".join([*lines, ""])


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__)
    parser.add_argument("--partitions", type=int, nargs="*", default=[1, 4, 16, 48])
    parser.add_argument("--members", type=int, nargs="*", default=[2, 4, 8])
    options = parser.parse_args()
    memory_by, pauses_by = {}, {}
    async with LocalKafka() as kafka:
        for partitions in options.partitions:
            with tempfile.TemporaryDirectory() as folder:
                memory_by[partitions] = await memory(kafka.bootstrap_servers, Path(folder), partitions)
                print(partitions, memory_by[partitions], flush=True)
        for members in options.members:
            for static in (False, True):
                with tempfile.TemporaryDirectory() as folder:
                    found = await rebalances(kafka.bootstrap_servers, Path(folder), members, static=static)
                    pauses_by[members, static] = found
                    print(members, static, found, flush=True)
    (ROOT / "bench" / "SIZING.md").write_text(report(memory_by, pauses_by))


if __name__ == "__main__":
    asyncio.run(main())
