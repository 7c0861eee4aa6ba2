"""A daemon on a fake broker, with time limits of tenths of a second; it notes what its handler got."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consumer.delivery.engine import Engine
from consumer.kafka.client_source import ClientSource
from consumer.outcome import HaltReason
from consumer.process.parts import make_daemon
from consumer.record import Record
from consumer.settings.sections import DeadLetterSettings, Delivery, Http, Kafka, Settings, WatchdogSettings
from schemas.session import Session
from tests.fakes.broker import Answer, FakeBroker
from tests.unit.delivery.engines import a_route

STALLED_SECONDS = 0.8
WITHOUT_CURE_SECONDS = 1.6
"""Long enough for the watchdog to have found it and another client to have joined."""
PATHS = pytest.mark.parametrize("path", ["raw", "plain"])


class Run:
    """A daemon on a fake broker, and the offsets that its handler got."""

    def __init__(self, broker: FakeBroker, **changes: Any) -> None:
        kafka: dict[str, Any] = {
            "bootstrap_servers": [broker.bootstrap_servers],
            "topics": [broker.topic],
            "session_timeout_seconds": 1.5,
            "heartbeat_interval_seconds": 0.1,
            "rebalance_timeout_seconds": 0.6,
            "request_timeout_seconds": 9.0,
            "fetch_path": changes.pop("path", "auto"),
        }
        self.settings = Settings(
            kafka=Kafka(**(kafka | changes.pop("kafka", {}))),
            delivery=Delivery(drain_seconds=0.5, commit_interval_seconds=0.05),
            dead_letter=DeadLetterSettings(topic=""),
            watchdog=WatchdogSettings(**({"stalled_seconds": STALLED_SECONDS} | changes.pop("watchdog", {}))),
            http=Http(port=0),
        )
        handler = changes.pop("handler", None)
        assert not changes
        self.broker = broker
        self.handled = 0
        self.next: dict[int, int] = {}
        """For each partition, the offset that was never handled yet."""
        self.gaps: list[str] = []

        def handle(event: Session, record: Record) -> None:
            expected = self.next.get(record.partition, 0)
            if record.offset > expected:
                self.gaps.append(f"{record.partition}: {record.offset} came instead of {expected}")
            self.next[record.partition] = max(expected, record.offset + 1)
            self.handled += 1
            if handler is not None:
                handler()

        self.daemon = make_daemon(self.settings, [a_route(handle)])
        self.task: asyncio.Task[None] | None = None

    @property
    def source(self) -> ClientSource:
        return self.daemon._parts.source

    @property
    def engine(self) -> Engine:
        return self.daemon._parts.engine

    @property
    def client(self) -> Any:
        """aiokafka's consumer."""
        return self.source._consumer

    @property
    def rebuilds(self) -> dict[str, int]:
        return {reason: count for reason, count in self.daemon.counters.client_rebuilds.items() if count}

    @property
    def halted(self) -> dict[int, HaltReason]:
        partitions = self.engine.partitions
        return {key.partition: each.halt.reason for key, each in partitions.items() if each.halt is not None}

    async def get(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(get, self.daemon.http.port, path)

    async def until(self, condition: Callable[[], object], seconds: float = 8.0) -> None:
        """Wait until a condition holds; fail when it does not in time, or when the daemon ends first."""
        assert self.task is not None
        deadline = time.monotonic() + seconds
        while not condition():
            if self.task.done():
                await self.task
            assert not self.task.done(), "the daemon has ended"
            assert time.monotonic() < deadline, f"not within {seconds} s: {self.daemon.state}, {self.rebuilds}"
            await asyncio.sleep(0.01)

    async def consumes(self, partitions: int | None = None) -> None:
        """Wait until every partition has advanced, in handled and in committed offsets."""
        wanted = range(self.broker.partitions) if partitions is None else [partitions]
        before = {number: self.next.get(number, 0) for number in wanted}
        await self.until(
            lambda: all(
                self.next.get(n, 0) > before[n] and self.broker.committed.get(n, -1) > before[n] for n in wanted
            )
        )

    async def stays(self, value: Callable[[], object], seconds: float = WITHOUT_CURE_SECONDS) -> bool:
        """Tell whether a value is unchanged after some seconds."""
        before = value()
        await asyncio.sleep(seconds)
        return value() == before

    async def rebuilt(self, times: int = 1) -> None:
        await self.until(lambda: sum(self.rebuilds.values()) >= times)

    async def end(self, within_seconds: float = 6.0) -> None:
        """Stop the daemon, and check that it ends in time and leaves nothing."""
        assert self.task is not None
        begun = time.monotonic()
        self.daemon.stop()
        try:
            async with asyncio.timeout(within_seconds + 10):
                await self.task
        finally:
            assert time.monotonic() - begun < within_seconds
            await self.leaves_nothing()

    async def leaves_nothing(self) -> None:
        """Wait for the sockets to close; then no connection is open and no task of the daemon is left."""
        for _ in range(300):
            if not self.broker.connections and not tasks_of_aiokafka():
                break
            await asyncio.sleep(0.01)
        assert tasks_of_aiokafka() == []
        assert self.broker.connections == 0

    def lost_nothing(self) -> None:
        """Check that offsets were handled without a gap, and that no commit ran ahead, fell, or came too late."""
        assert self.gaps == []
        committed: dict[int, int] = {}
        generation = 0
        for each in self.broker.commits:
            assert each.offset >= committed.get(each.partition, 0)
            assert each.generation >= generation
            committed[each.partition], generation = each.offset, each.generation
        assert all(offset <= self.next.get(number, 0) for number, offset in committed.items())
        assert self.broker.refused == []


def tasks_of_aiokafka() -> list[str]:
    """Return the names of tasks that belong neither to the test nor to the broker."""
    names = [str(getattr(task.get_coro(), "__qualname__", "")) for task in asyncio.all_tasks()]
    return [name for name in names if not name.startswith(("FakeBroker", "test_"))]


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=3) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@asynccontextmanager
async def a_run_on(broker: FakeBroker, **changes: Any) -> AsyncIterator[Run]:
    """Run a daemon until the end of the block; check that it lost nothing and left nothing."""
    async with running(Run(broker, **changes)) as run:
        await run.consumes()
        yield run
        await run.end()
    run.lost_nothing()


@asynccontextmanager
async def running(run: Run) -> AsyncIterator[Run]:
    run.task = asyncio.create_task(run.daemon.run(), name="daemon")
    try:
        yield run
    finally:
        if not run.task.done():  # the test has failed; what it leaves must not fail the next
            run.task.cancel()
            await asyncio.wait([run.task])
            await run.source.stop()


def a_few(count: int, answer: Any) -> Answer:
    """Give this answer, or what it returns if it is an ``Answer``, to a few requests, then the usual one."""
    left = count

    def give(*request: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            return None
        return answer(*request) if callable(answer) else answer

    return give


async def kill_fetcher(run: Run) -> None:
    """Make the fetch task raise; return when it has ended."""

    async def defect(*_: Any) -> None:
        raise RuntimeError("a defect")

    fetcher = run.client._fetcher
    fetcher._proc_fetch_request = defect
    await run.until(fetcher._fetch_task.done)


async def empty(version: int, response: Any, request: Any) -> Any:
    """Answer a fetch without records, though there are some."""
    await asyncio.sleep(0.02)
    rest: tuple[Any, ...] = (0, [], -1, b"") if version >= 11 else ((0, [], b"") if version >= 5 else ([], b""))
    topics = [(topic, [(each[0], 0, 10**6, 10**6, *rest) for each in rows]) for topic, rows in request.topics]
    return response(0, 0, 0, topics) if version >= 7 else response(0, topics)
