"""What aiokafka does wrong, on a broker that brings it about: consuming resumes by itself, and nothing is lost.

The ids (S1, L1, F1 …) number the known ways in which aiokafka 0.14 stalls, loses records, or lets a stale member
commit. A fault that the daemon has to cure is also shown without the cure, so that the test can fail.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaConnectionError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import consumer.kafka.source
from consumer.delivery import engine as engine_module
from consumer.errors import StalledError
from consumer.kafka.client import make_consumer
from consumer.kafka.source import KafkaSource
from consumer.logs import configure_logging
from consumer.observe.watchdog import Limits, Vital, Vitals, Watchdog
from consumer.outcome import HaltReason
from consumer.process import daemon as daemon_module
from consumer.process import reconnect as clients_module
from consumer.process import supervisor as supervisor_module
from consumer.process.daemon import Daemon
from consumer.record import Record, TopicPartition
from consumer.settings.sections import DeadLetterSettings, Delivery, Http, Kafka, Log, Settings, WatchdogSettings
from schemas.session import Session
from tests.fakes.broker import (
    FETCH,
    FIND_COORDINATOR,
    HEARTBEAT,
    JOIN,
    LEAVE,
    LIST_OFFSETS,
    METADATA,
    OFFSET_COMMIT,
    OFFSET_FETCH,
    SILENCE,
    SYNC,
    Answer,
    Commit,
    FakeBroker,
)
from tests.unit.delivery.engines import a_route

STALLED_SECONDS = 0.8
WITHOUT_CURE_SECONDS = 1.6
"""Long enough for the watchdog to have found it and another client to have joined."""
PATHS = pytest.mark.parametrize("path", ["raw", "plain"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that takes seconds in production takes a tenth of them."""
    monkeypatch.setattr(supervisor_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(engine_module, "MEASURE_SECONDS", 0.2)
    monkeypatch.setattr(engine_module, "COMMIT_BUDGET_SECONDS", 0.3)
    monkeypatch.setattr(daemon_module, "MEASURE_SECONDS", -0.5)
    monkeypatch.setattr(daemon_module, "REQUEST_MARGIN_SECONDS", -8.0)
    monkeypatch.setattr(clients_module, "LONGEST_BACKOFF_SECONDS", 0.1)
    monkeypatch.setattr(consumer.kafka.client_internals, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(consumer.kafka.client_internals, "CLOSE_SECONDS", 0.5)


@pytest.fixture
def uncured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing looked for and nothing replaced: what is left is aiokafka alone."""

    async def go_on(_clients: clients_module.Reconnect, _lost: Exception) -> None:
        await asyncio.sleep(0.05)

    monkeypatch.setattr(consumer.kafka.source, "ended_task", lambda _consumer: None)
    monkeypatch.setattr(clients_module.Reconnect, "_replace", go_on)
    monkeypatch.setattr(clients_module.Reconnect, "lose", lambda _clients, _reason, _why: None)


class Run:
    """A daemon on a fake broker, and what its handler was given."""

    def __init__(self, broker: FakeBroker, **changes: Any) -> None:
        kafka: dict[str, Any] = {
            "bootstrap_servers": [broker.bootstrap_servers],
            "topics": [broker.topic],
            "session_timeout_seconds": 1.5,
            "heartbeat_interval_seconds": 0.1,
            "rebalance_timeout_seconds": 1.0,
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

        self.daemon = Daemon(self.settings, [a_route(handle)])
        self.task: asyncio.Task[None] | None = None

    # -- what it is at -------------------------------------------------------------------------------------------

    @property
    def source(self) -> KafkaSource:
        return self.daemon._source

    @property
    def client(self) -> Any:
        """aiokafka's consumer."""
        return self.source._consumer

    @property
    def rebuilds(self) -> dict[str, int]:
        return {reason: count for reason, count in self.daemon.counters.client_rebuilds.items() if count}

    @property
    def halted(self) -> dict[int, HaltReason]:
        partitions = self.daemon.engine.partitions if self.daemon.engine is not None else {}
        return {key.partition: each.halt.reason for key, each in partitions.items() if each.halt is not None}

    async def get(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(get, self.daemon.http.port, path)

    # -- waiting for it ------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], object], seconds: float = 8.0) -> None:
        """Wait until something holds; fail when it does not, or when the daemon ends meanwhile."""
        assert self.task is not None
        deadline = time.monotonic() + seconds
        while not condition():
            if self.task.done():
                await self.task
            assert not self.task.done(), "the daemon has ended"
            assert time.monotonic() < deadline, f"not within {seconds} s: {self.daemon.state}, {self.rebuilds}"
            await asyncio.sleep(0.01)

    async def consumes(self, partitions: int | None = None) -> None:
        """Wait until each partition has moved on, in what is handled and in what is committed."""
        wanted = range(self.broker.partitions) if partitions is None else [partitions]
        before = {number: self.next.get(number, 0) for number in wanted}
        await self.until(
            lambda: all(
                self.next.get(n, 0) > before[n] and self.broker.committed.get(n, -1) > before[n] for n in wanted
            )
        )

    async def stays(self, value: Callable[[], object], seconds: float = WITHOUT_CURE_SECONDS) -> bool:
        """Whether something is the same after so long."""
        before = value()
        await asyncio.sleep(seconds)
        return value() == before

    async def rebuilt(self, times: int = 1) -> None:
        await self.until(lambda: sum(self.rebuilds.values()) >= times)

    # -- its end -------------------------------------------------------------------------------------------------

    async def end(self, within_seconds: float = 6.0) -> None:
        """Stop it, and look that it takes everything of its own with it."""
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
        """Wait for the sockets to close; then no connection and no task is left but the test's and the broker's."""
        for _ in range(50):
            if not self.broker.connections and not tasks_of_aiokafka():
                break
            await asyncio.sleep(0.01)
        assert tasks_of_aiokafka() == []
        assert self.broker.connections == 0

    def lost_nothing(self) -> None:
        """Offsets are handled without a gap, from the first on; commits never pass them, fall, or come too late."""
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
    """Name the tasks that are neither the test's nor the broker's."""
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
    """Run a daemon until the end of the block; it has lost nothing then, and left nothing behind."""
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
    """Answer so for a few requests, and as usual after that."""
    left = count

    def give(_version: int, _response: Any, _request: Any) -> Any:
        nonlocal left
        left -= 1
        return answer if left >= 0 else None

    return give


# -- stalls ------------------------------------------------------------------------------------------------------


async def kill_fetcher(run: Run) -> None:
    """Have the fetch task meet a defect; return when it has ended."""

    async def defect(*_: Any) -> None:
        raise RuntimeError("a defect")

    fetcher = run.client._fetcher
    fetcher._proc_fetch_request = defect
    await run.until(fetcher._fetch_task.done)


async def test_a_fetch_task_that_died_is_found() -> None:
    """S1: the client whose fetch task ended is replaced, though its heartbeats went on."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        await kill_fetcher(run)
        await run.rebuilt()
        await run.consumes()
        assert run.rebuilds == {"task_ended": 1}
        assert 'client_rebuilds_total{reason="task_ended"} 1.0' in (await run.get("/metrics"))[1]
        assert [(await run.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.usefixtures("uncured")
async def test_a_fetch_task_that_died_is_not_found_by_aiokafka() -> None:
    """S1, uncured: nothing is raised and nothing arrives, while heartbeats say that all is well."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        await kill_fetcher(run)
        heartbeats = broker.requests[HEARTBEAT]
        assert await run.stays(lambda: run.handled)
        assert broker.requests[HEARTBEAT] > heartbeats
        assert (await run.get("/healthz"))[0] == 503


async def test_an_unknown_error_of_an_offset_lookup_is_tried_again() -> None:
    """S1: an answer that aiokafka does not know is a KeyError; where we ask, it ends neither client nor daemon."""
    async with FakeBroker() as broker:
        left = 2

        def answer(version: int, response: Any, request: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                return None
            return response(0, [(topic, [(each[0], 43, -1, -1) for each in rows]) for topic, rows in request.topics])

        broker.answers[LIST_OFFSETS] = answer
        async with a_run_on(broker) as run:
            assert left < 0
            assert run.rebuilds == {}


@PATHS
async def test_fetches_that_bring_nothing_are_found(path: str) -> None:
    """S1: while ends grow and fetches are answered empty, the client is stalled, says so, and is replaced."""
    async with FakeBroker() as broker, a_run_on(broker, path=path) as run:
        broker.answers[FETCH] = empty
        await run.rebuilt()
        broker.answers.clear()
        await run.consumes()
        assert run.rebuilds == {"fetch": 1}
        await run.until(lambda: run.daemon._supervisor.unhealthy is None)
        assert [(await run.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.usefixtures("uncured")
async def test_fetches_that_bring_nothing_are_not_found_by_aiokafka() -> None:
    """S1, uncured: it asks again and again; /healthz and /readyz say what is wrong."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.answers[FETCH] = empty
        await asyncio.sleep(0.1)
        assert await run.stays(lambda: run.handled)
        for page in "/healthz", "/readyz":
            status, why = await run.get(page)
            assert status == 503
            assert "records wait at the brokers and none arrives (t-0, t-1)" in why


async def empty(version: int, response: Any, request: Any) -> Any:
    """Answer a fetch with no records, though there are some."""
    await asyncio.sleep(0.02)
    rest: tuple[Any, ...] = (0, [], -1, b"") if version >= 11 else ((0, [], b"") if version >= 5 else ([], b""))
    topics = [(topic, [(each[0], 0, 10**6, 10**6, *rest) for each in rows]) for topic, rows in request.topics]
    return response(0, 0, 0, topics) if version >= 7 else response(0, topics)


async def test_a_connection_that_fell_silent_is_found(deaf_soon: None) -> None:
    """S1: a fetch that is never answered keeps all behind it waiting; a new client hears what this one does not."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.answers[FETCH] = a_few(1, SILENCE)
        await run.rebuilt()
        await run.consumes()
        assert run.rebuilds == {"deaf": 1}
        assert [(await run.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.usefixtures("uncured")
async def test_a_connection_that_fell_silent_is_not_found_by_aiokafka(
    deaf_soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1, uncured: nothing arrives for as long as a request may last; it is not ready, and not to be restarted."""

    async def never(*_: Any) -> bool:
        return False

    monkeypatch.setattr(KafkaSource, "deaf", never)
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.answers[FETCH] = a_few(1, SILENCE)
        await asyncio.sleep(0.3)
        assert await run.stays(lambda: run.handled)
        assert (await run.get("/healthz"))[0] == 200
        assert (await run.get("/readyz"))[1] == "no broker heard for 0.5 s\n"


@pytest.fixture
def deaf_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it found out early that brokers answer others."""
    monkeypatch.setattr(clients_module, "HEARD_SECONDS", 0.5)
    monkeypatch.setattr(clients_module, "LISTEN_SECONDS", 0.2)
    monkeypatch.setattr(consumer.kafka.source, "ANSWER_SECONDS", 0.5)


async def test_idle_detection_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: aiokafka loses count of polls that raise or are cancelled; it counts none of ours."""
    seen: list[float] = []
    wait = KafkaSource.wait

    async def noting(source: KafkaSource, *arguments: Any) -> None:
        await wait(source, *arguments)
        seen.append(source._consumer._subscription._fetch_count)

    monkeypatch.setattr(KafkaSource, "wait", noting)
    async with FakeBroker() as broker, a_run_on(broker) as run:
        await kill_fetcher(run)
        await run.rebuilt()
        await run.consumes()
        assert set(seen) == {0}


async def test_a_raw_poll_may_be_cancelled() -> None:
    """S2: the raw path sets the clock itself, so that not even a cancelled wait stops it."""
    async with FakeBroker(records=5) as broker, a_run_on(broker) as run:
        for _ in range(3):
            waiting = asyncio.create_task(run.source.wait([], 1.0))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert run.client._subscription._fetch_count == 0
        assert 0 < run.client._subscription.fetcher_idle_time < 1


@pytest.mark.parametrize("code", [82, 30])
async def test_a_heartbeat_that_failed_for_good_is_found(code: int) -> None:
    """S3: after an error that aiokafka does not know, or a refusal, no heartbeat is ever sent again: replaced."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.errors[HEARTBEAT] = code
        await run.rebuilt()
        broker.errors.clear()
        await run.consumes()
        heartbeats = broker.requests[HEARTBEAT]
        await run.until(lambda: broker.requests[HEARTBEAT] > heartbeats)
        assert set(run.rebuilds) <= {"task_ended", "error"}
        assert sum(run.rebuilds.values()) <= 2


@pytest.mark.usefixtures("uncured")
async def test_a_heartbeat_that_failed_for_good_stays_so_in_aiokafka() -> None:
    """S3, uncured: the fault is over, and no heartbeat is sent."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.errors[HEARTBEAT] = 82
        await run.until(run.client._coordinator._heartbeat_task.done)
        broker.errors.clear()
        assert await run.stays(lambda: broker.requests[HEARTBEAT], 1.0)


async def test_a_topic_missing_in_one_answer_comes_back() -> None:
    """S4: one bad metadata answer takes all partitions away; asking for an end every few seconds brings them back."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.topic_error = 5
        await run.client._client.force_metadata_update()
        await run.until(lambda: run.daemon.engine is not None and not run.daemon.engine.partitions)
        broker.topic_error = 0
        await run.consumes()
        assert run.rebuilds == {}
        assert broker.requests[JOIN] == 3


async def test_a_topic_missing_while_the_client_is_replaced_ends_nothing() -> None:
    """S4: whether the topic is there is asked at the first start only."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.topic_error = 5
        await kill_fetcher(run)
        await run.rebuilt()
        await asyncio.sleep(0.5)
        broker.topic_error = 0
        await run.consumes()
        assert run.rebuilds == {"task_ended": 1}


async def test_a_join_that_is_never_answered_is_found() -> None:
    """S5: getmany() waits without end while the group decides; the watchdog does not."""
    async with FakeBroker() as broker, a_run_on(broker, path="plain") as run:
        broker.answers[JOIN] = a_few(1, SILENCE)
        broker.rebalance()
        await run.rebuilt()
        await run.consumes()
        assert run.rebuilds == {"rebalance": 1}


async def test_a_stop_while_the_group_does_not_decide_is_bounded() -> None:
    """S5: nothing that must end waits for the poll."""
    async with FakeBroker() as broker, a_run_on(broker, path="plain") as run:
        broker.silent.add(JOIN)
        broker.rebalance()
        await run.until(lambda: run.source.rebalancing)
        await run.until(lambda: broker.requests[JOIN] == 2)


async def test_a_commit_that_is_never_answered_is_found() -> None:
    """S6: its client is replaced, and the commits after it are the new one's."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.answers[OFFSET_COMMIT] = a_few(1, SILENCE)
        await run.rebuilt()
        await run.consumes()
        assert run.rebuilds == {"commit": 1}
        assert run.daemon.counters.commits["failed"] == 1


@pytest.mark.usefixtures("uncured")
async def test_a_commit_that_is_never_answered_is_not_found_by_aiokafka() -> None:
    """S6, uncured: records are handled, and nothing is committed for as long as a request may last."""
    async with FakeBroker() as broker, a_run_on(broker, kafka={"session_timeout_seconds": 20.0}) as run:
        broker.answers[OFFSET_COMMIT] = a_few(1, SILENCE)
        requests = broker.requests[OFFSET_COMMIT]
        await run.until(lambda: broker.requests[OFFSET_COMMIT] > requests)
        handled = run.handled
        assert await run.stays(broker.committed.copy)
        assert run.handled > handled
        assert "finished records are not committed" in (await run.get("/healthz"))[1]


async def test_a_commit_refused_for_ever_is_found() -> None:
    """S6: a retriable error is tried again without end by aiokafka, and ended by the watchdog."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.errors[OFFSET_COMMIT] = 14
        await run.rebuilt()
        broker.errors.clear()
        await run.consumes()
        assert run.rebuilds == {"commit": 1}


async def test_a_stop_without_brokers_is_bounded() -> None:
    """S7, S8: with autocommit off there is nothing that aiokafka would try for ever; what it leaves open is closed."""
    async with FakeBroker() as broker, running(Run(broker)) as run:
        await run.consumes()
        await broker.__aexit__(None, None, None)
        await asyncio.sleep(0.3)
        await run.end()
        assert run.rebuilds == {}


@pytest.mark.parametrize("silent", [{FIND_COORDINATOR}, {FETCH, LEAVE, OFFSET_COMMIT, METADATA}])
async def test_a_stop_with_silent_brokers_is_bounded(silent: set[int]) -> None:
    """S7: requests under way are given up, and the tasks that waited for them are ended."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.silent |= silent
        if FIND_COORDINATOR in silent:
            run.client._coordinator.coordinator_dead()
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", ["hangs", "raises CancelledError", "raises"])
@pytest.mark.parametrize("when", ["at the end", "at a rebuild"])
async def test_a_stop_of_aiokafka_that_fails_leaves_nothing(
    how: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S7, S8: its sockets and its tasks end, whatever its stop does."""

    async def bad_stop(_consumer: Any) -> None:
        if how == "hangs":
            await asyncio.Event().wait()
        raise asyncio.CancelledError if how == "raises CancelledError" else KafkaConnectionError

    async with FakeBroker() as broker, a_run_on(broker) as run:
        run.client._closed = True  # or its finalizer warns of it
        monkeypatch.setattr(aiokafka.AIOKafkaConsumer, "stop", bad_stop)
        if when == "at a rebuild":
            connections = broker.connections
            await kill_fetcher(run)
            await run.rebuilt()
            await run.consumes()
            assert broker.connections <= connections
            run.client._closed = True


async def test_a_cancelled_daemon_is_cancelled() -> None:
    """S8: the CancelledError that is meant for us is not taken for aiokafka's."""
    async with FakeBroker() as broker, running(Run(broker)) as run:
        await run.consumes()
        assert run.task is not None
        run.task.cancel()
        await asyncio.wait([run.task], timeout=5)
        assert run.task.cancelled()
        await run.source.stop()
        await run.leaves_nothing()


async def test_a_slow_join_is_one_join() -> None:
    """S9: requests may last longer than a rebalance."""
    async with FakeBroker() as broker, running(Run(broker)) as run:

        async def slow(*_: Any) -> None:
            await asyncio.sleep(0.9)

        broker.answers[JOIN] = slow
        await run.consumes()
        assert broker.requests[JOIN] == 1
        assert run.rebuilds == {}
        await run.end()


async def test_brokers_that_all_moved_are_found_again(deaf_soon: None) -> None:
    """S10: aiokafka never asks its first addresses again; another client does, hears them, and takes over."""
    async with FakeBroker() as broker, FakeBroker() as other:
        servers = [broker.bootstrap_servers, other.bootstrap_servers]
        port = other.port
        await other.__aexit__(None, None, None)
        async with running(Run(broker, kafka={"bootstrap_servers": servers})) as run:
            await run.consumes()
            await broker.__aexit__(None, None, None)
            broker.port = port
            await asyncio.sleep(0.6)
            assert (await run.get("/readyz"))[0] == 503
            assert (await run.get("/healthz"))[0] == 200
            await broker.__aenter__()
            await run.consumes()
            assert run.rebuilds == {"deaf": 1}
            assert (await run.get("/readyz"))[0] == 200
            await run.end()
            run.lost_nothing()


async def test_a_fetch_error_that_passes_needs_nothing() -> None:
    """S12: partition errors that aiokafka shows nobody: it asks again by itself."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        for code in 3, 6, 9, 56, 74, 75, 78, 100:
            broker.errors[FETCH] = code
            await asyncio.sleep(0.05)
            broker.errors.clear()
            await run.consumes()
        assert run.rebuilds == {}


async def test_a_fetch_error_that_stays_is_found_and_floods_no_log() -> None:
    """S12: the client asks hundreds of times a second and says so each time; we pass on one line, and replace it."""
    root, lines = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers, root.level
    configure_logging(Log(format="json"), lines)
    try:
        async with FakeBroker() as broker, a_run_on(broker) as run:
            broker.fetch_seconds = 0.001
            requests = broker.requests[FETCH]
            broker.errors[FETCH] = 74
            await run.rebuilt()
            asked = broker.requests[FETCH] - requests
            broker.errors.clear()
            await run.consumes()
            assert run.rebuilds == {"fetch": 1}
    finally:
        root.handlers = handlers
        root.setLevel(level)
    assert asked > 100
    assert sum("aiokafka" in line for line in lines.getvalue().splitlines()) < 10


async def test_a_header_key_that_is_no_text_stops_its_partition_only() -> None:
    """S13: aiokafka raises for its batch for ever; what is before it is handled, and the other partition goes on."""

    def spoil(batch: bytes, base: int) -> bytes:
        return a_batch_with_header(base, b"\xff") if base == 20 else batch

    async with FakeBroker() as broker:
        broker.answers[FETCH] = with_batches(broker, 0, spoil)
        async with running(Run(broker)) as run:
            await run.until(lambda: run.halted)
            await run.consumes(1)
            assert run.halted == {0: HaltReason.NO_DEAD_LETTER}  # there is no topic for them here
            assert run.next[0] == 20
            assert run.rebuilds == {}
            await run.end()
            run.lost_nothing()


def with_batches(broker: FakeBroker, partition: int, change: Callable[[bytes, int], bytes]) -> Answer:
    """Answer fetches as usual, with the batch of one partition changed; it is told where the batch begins."""

    async def answer(version: int, response: Any, request: Any) -> Any:
        await asyncio.sleep(broker.fetch_seconds)
        usual = broker.usual(FETCH, version, response, request)
        topics = [
            (
                topic,
                [
                    (*row[:-1], change(row[-1], int.from_bytes(row[-1][:8], "big")))
                    if row[0] == partition and row[-1]
                    else row
                    for row in rows
                ],
            )
            for topic, rows in usual.topics
        ]
        return response(0, 0, 0, topics) if version >= 7 else response(0, topics)

    return answer


def a_batch_with_header(base: int, key: bytes) -> bytes:
    """Build a batch of one record whose header has this key of one byte."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    builder.append(0, 1, None, b'{"timestamp":"2024-10-21T14:05:00Z","session_id":"x"}', [("%", b"value")])
    raw = bytearray(builder.build())
    raw[raw.rindex(b"%")] = key[0]
    struct.pack_into(">q", raw, 0, base)
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return bytes(raw)


async def test_a_member_without_partitions_goes_on_polling() -> None:
    """S14: a member that was given nothing would be thrown out for not polling, and could never come back."""
    async with FakeBroker(partitions=0) as broker, running(Run(broker)) as run:
        await run.until(lambda: run.source.joined)
        await asyncio.sleep(0.5)
        assert run.client._subscription.fetcher_idle_time < 0.4
        assert [(await run.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]
        broker.partitions = 2
        await run.consumes()
        assert run.rebuilds == {}
        await run.end()


async def test_one_assignor_is_one_join() -> None:
    """S15: aiokafka joins once for each assignor."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        assert (broker.requests[JOIN], broker.requests[SYNC]) == (1, 1)
        broker.rebalance()
        await run.until(lambda: run.daemon.counters.rebalances["assigned"] == 2)
        await run.consumes()
        assert (broker.requests[JOIN], broker.requests[SYNC]) == (2, 2)
        assert run.rebuilds == {}


async def test_what_the_client_is_never_left_to_decide() -> None:
    """L2, L3, L6, L7, S4, S9, S15, S16, F5: pinned, whatever its defaults are."""
    kafka = Kafka()
    client = make_consumer(kafka)
    try:
        assert client._enable_auto_commit is False
        assert client._auto_offset_reset == "none"
        assert (client._key_deserializer, client._value_deserializer) == (None, None)
        assert client._client_rack is None
        assert client._group_instance_id is None
        assert client._partition_assignment_strategy == (RangePartitionAssignor,)
        assert client._client._metadata_max_age_ms == 30_000
        assert client._request_timeout_ms >= client._rebalance_timeout_ms + 5000
        assert client._fetch_max_wait_ms == 100
        assert client._check_crcs is True
        assert client._isolation_level == "read_committed"
    finally:
        await client.stop()


def test_what_is_never_called() -> None:
    """L4: seek_to_committed() leaves a position where the committed offset is 0; nothing here calls it."""
    sources = Path(consumer.kafka.source.__file__).parent.parent.rglob("*.py")
    assert [path.name for path in sources if re.search(r"seek_to_committed|wait_for\(", path.read_text())] == []


# -- records that would be lost ----------------------------------------------------------------------------------


def wrong_checksum(batch: bytes, base: int) -> bytes:
    return batch[:-1] + bytes([batch[-1] ^ 1]) if base >= 20 else batch


async def test_a_corrupt_batch_costs_no_other_partition_its_records() -> None:
    """L1: getmany() would drop what it had of the other partitions; here the one halts where it is."""
    async with FakeBroker() as broker:
        broker.answers[FETCH] = with_batches(broker, 1, wrong_checksum)
        async with running(Run(broker)) as run:
            await run.until(lambda: run.halted)
            await run.consumes(0)
            assert run.halted == {1: HaltReason.CORRUPT_BATCH}
            assert run.next[1] == 20
            assert run.rebuilds == {}
            assert (await run.get("/healthz"))[0] == 200
            assert await run.get("/readyz") == (503, "halted: t-1\n")
            await run.end()
            run.lost_nothing()


async def test_what_getmany_drops_is_read_again() -> None:
    """L1: on the plain path its client is not gone on with, and the next one begins at what was committed."""
    async with FakeBroker() as broker:
        change = with_batches(broker, 1, wrong_checksum)

        def once(version: int, response: Any, request: Any) -> Any:
            return change(version, response, request) if not sum(run.rebuilds.values()) else None

        broker.answers[FETCH] = once
        async with running(Run(broker, path="plain")) as run:
            await run.rebuilt()
            await run.consumes()
            assert run.rebuilds == {"error": 1}
            await run.end()
            run.lost_nothing()


async def test_a_batch_cut_short_is_not_stepped_over() -> None:
    """L5: aiokafka skips an offset and raises; here the partition halts before it."""

    def cut(batch: bytes, base: int) -> bytes:
        return batch[: len(batch) // 2] if base >= 20 else batch

    async with FakeBroker() as broker:
        broker.answers[FETCH] = with_batches(broker, 1, cut)
        async with running(Run(broker)) as run:
            await run.until(lambda: run.halted)
            await run.consumes(0)
            assert run.halted == {1: HaltReason.CORRUPT_BATCH}
            assert run.rebuilds == {}
            await run.end()
            run.lost_nothing()
            assert broker.committed[1] == 20


async def test_a_topic_that_became_shorter_halts() -> None:
    """L3, L8: a truncated or recreated topic is known only by its offsets; none is skipped, and none is read twice."""
    async with FakeBroker() as broker, running(Run(broker)) as run:
        await run.consumes()
        broker.records = 3
        await run.until(lambda: len(run.halted) == 2)
        assert set(run.halted.values()) == {HaltReason.OUT_OF_RANGE}
        assert run.rebuilds == {}
        assert (await run.get("/healthz"))[0] == 200
        assert (await run.get("/readyz"))[0] == 503
        await run.end()
        run.lost_nothing()


async def test_a_group_that_lost_its_offsets_begins_at_the_first() -> None:
    """L3: never at the end, unless that was asked for."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        first = [each for each in broker.commits if each.offset == 0]
        assert sorted(first) == [Commit(1, "m1", 0, 0), Commit(1, "m1", 1, 0)]
        assert run.rebuilds == {}


# -- fencing -----------------------------------------------------------------------------------------------------


async def test_a_commit_is_never_sent_again_under_a_later_generation() -> None:
    """F1: aiokafka would send it again as the new member; it is given up before the group's next generation."""
    async with FakeBroker() as broker, a_run_on(broker, watchdog={"stalled_seconds": 60.0}) as run:
        broker.errors[OFFSET_COMMIT] = 14  # retriable
        requests = broker.requests[OFFSET_COMMIT]
        await run.until(lambda: broker.requests[OFFSET_COMMIT] > requests + 2)
        before = max(run.next.values())
        broker.rebalance()
        await run.until(lambda: broker.generation == 2)
        broker.errors.clear()
        await run.consumes()
        # What was done in the first generation and not committed was handled again before it was committed.
        later = [each for each in broker.commits if each.generation == 2]
        assert later
        assert run.daemon.counters.commits["failed"] == 1
        assert min(each.offset for each in later) < before
        assert run.rebuilds == {}


async def test_a_lost_generation_is_not_committed() -> None:
    """F2: aiokafka would send it as nobody's, and a group that is empty takes it."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.errors[OFFSET_COMMIT] = 14
        requests = broker.requests[OFFSET_COMMIT]
        await run.until(lambda: broker.requests[OFFSET_COMMIT] > requests)
        broker.expel()
        await run.until(lambda: run.daemon.counters.rebalances["lost"])
        broker.errors.clear()
        await run.consumes()
        assert all(each.generation > 0 and each.member for each in broker.commits)
        assert run.daemon.counters.rebalances["revoked"] == 0
        assert run.rebuilds == {}
        broker.refused.clear()  # the one that was under way when the group had decided


async def test_a_fenced_commit_is_not_repeated() -> None:
    """F2: a commit that comes too late is counted, and what it held is handled again by whoever owns it."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.expel()
        await run.until(lambda: run.daemon.counters.commits["fenced"] or run.daemon.counters.rebalances["lost"])
        await run.consumes()
        assert len({(each.partition, each.offset) for each in broker.refused}) == len(broker.refused)
        assert run.rebuilds == {}
        broker.refused.clear()


async def test_a_member_that_is_cut_off_from_its_group_starts_nothing() -> None:
    """F4: after a session without a heartbeat its partitions may be another's; it waits, and then joins anew."""
    async with FakeBroker() as broker, a_run_on(broker, watchdog={"stalled_seconds": 4.0}) as run:
        broker.errors |= {HEARTBEAT: 15, OFFSET_COMMIT: 15}  # the coordinator is not available, says the broker
        await asyncio.sleep(2.0)
        handled = run.handled
        assert await run.stays(lambda: run.handled, 0.5)
        broker.errors.clear()
        await run.until(lambda: run.handled > handled)
        await run.consumes()
        assert run.rebuilds == {}


async def test_a_member_that_stays_cut_off_from_its_group_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """F4: brokers answer and the group does not, for longer than a rebalance may take: replaced."""
    monkeypatch.setattr(daemon_module, "REQUEST_MARGIN_SECONDS", 60.0)  # or the commits are found first
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.errors |= {HEARTBEAT: 15, OFFSET_COMMIT: 15}
        await run.rebuilt()
        broker.errors.clear()
        await run.consumes()
        assert run.rebuilds == {"rebalance": 1}


# -- brokers that go away, and brokers that talk nonsense --------------------------------------------------------


async def test_an_outage_within_the_session_changes_nothing() -> None:
    """Neither a new client nor a rebalance: consuming goes on where it was."""
    async with FakeBroker() as broker, a_run_on(broker, kafka={"session_timeout_seconds": 20.0}) as run:
        handled = run.handled
        await broker.away(1.2)
        assert (await run.get("/healthz"))[0] == 200
        assert (await run.get("/readyz"))[0] == 200
        await run.consumes()
        assert run.rebuilds == {}
        assert run.daemon.counters.rebalances == {"assigned": 1, "revoked": 0, "lost": 0}
        assert run.handled > handled


async def test_an_outage_beyond_the_session_is_a_rebalance() -> None:
    """The group has thrown the member out meanwhile: it joins again, with the same client."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.expel()
        await broker.away(2.0)
        await run.consumes()
        assert run.rebuilds == {}
        assert run.daemon.counters.rebalances["assigned"] == 2
        broker.refused.clear()


async def test_an_outage_while_the_client_is_replaced_is_waited_for() -> None:
    """One that began is counted once, however long the brokers are away."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        await kill_fetcher(run)
        await broker.away(1.5)
        await run.consumes()
        assert sum(run.rebuilds.values()) == 1


@pytest.mark.parametrize("moment", ["while brokers are away", "while joining"])
async def test_a_stop_while_the_client_is_replaced(moment: str) -> None:
    """A client in the making goes with the daemon."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        if moment == "while joining":
            broker.silent.add(JOIN)
        await kill_fetcher(run)
        if moment == "while joining":
            await run.until(lambda: broker.requests[JOIN] == 2)
        else:
            await broker.__aexit__(None, None, None)
            await run.until(lambda: run.daemon.state == "rebuilding")
            await asyncio.sleep(0.3)


async def test_a_client_that_cannot_start_is_one_rebuild_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The brokers answered a moment before: the next attempt is counted, and comes later."""
    start, failures = aiokafka.AIOKafkaConsumer.start, iter([True])

    async def failing_once(client: Any) -> None:
        if next(failures, False):
            raise KafkaConnectionError("gone again")
        await start(client)

    async with FakeBroker() as broker, a_run_on(broker) as run:
        monkeypatch.setattr(aiokafka.AIOKafkaConsumer, "start", failing_once)
        await kill_fetcher(run)
        await run.rebuilt(2)
        await run.consumes()
        assert run.rebuilds == {"task_ended": 1, "error": 1}


async def test_a_join_that_does_not_end_at_the_start_is_found() -> None:
    """aiokafka's start waits for an assignment without end; ours joins anew."""
    async with FakeBroker() as broker, running(Run(broker)) as run:
        broker.answers[JOIN] = a_few(1, SILENCE)
        await run.consumes()
        assert run.rebuilds == {"rebalance": 1}
        await run.end()
        run.lost_nothing()


@pytest.mark.parametrize("fault", ["a dead fetcher", "fetches without records"])
async def test_too_many_new_clients_end_the_daemon(fault: str) -> None:
    """What another client does not cure, and another: it drains, leaves its group, and ends with 70."""
    async with FakeBroker() as broker, running(Run(broker, watchdog={"rebuilds": 1})) as run:
        await run.consumes()
        if fault == "fetches without records":
            broker.answers[FETCH] = empty
        else:
            broker.answers[HEARTBEAT] = lambda version, response, _: response(0, 82) if version else response(82)
        assert run.task is not None
        with pytest.raises(StalledError, match="1 new Kafka clients within 600 s") as raised:
            async with asyncio.timeout(10):
                await run.task
        assert raised.value.exit_code == 70
        assert sum(run.rebuilds.values()) == 1
        assert broker.requests[LEAVE] >= 1
        await run.leaves_nothing()
        run.lost_nothing()


def test_a_stall_that_outlives_its_client_is_found_again() -> None:
    """A new client may be there before anybody looked: it gets its own time, and is found stalled for itself."""
    now, client = 100.0, 0
    still = Vital(TopicPartition("t", 0), position=5, done=5, committed=5, end_offset=9, idle=True, excused=False)
    limits = Limits(stalled=1.0, commit=1.0, rebalance=1.0)
    dog = Watchdog(limits, lambda: Vitals(now, now, False, False, [still], client), lambda: now)
    found = []
    for _ in range(12):
        now += 0.25
        stall = dog.look()
        found.append(stall is not None)
        client += stall is not None  # replaced at once
    assert found == [*[False] * 5, True] * 2


APIS = [FETCH, HEARTBEAT, OFFSET_COMMIT, METADATA, LIST_OFFSETS, FIND_COORDINATOR, JOIN, SYNC, OFFSET_FETCH]
FRAMES = {
    "another correlation id": struct.pack(">ii", 8, 12345) + b"\0\0\0\0",
    "an empty frame": struct.pack(">i", 0),
    "a negative length": struct.pack(">i", -5),
}


async def meet(run: Run, api: int, frame: bytes) -> None:
    """Have a daemon meet this answer, once; consuming resumes by itself, and so do heartbeats."""
    broker = run.broker
    broker.answers[api] = a_few(1, frame)
    asked = broker.requests[api]
    if api == METADATA:
        run.client._client.force_metadata_update()
    elif api == FIND_COORDINATOR:
        run.client._coordinator.coordinator_dead()
    elif api in (JOIN, SYNC, OFFSET_FETCH):
        broker.rebalance()
    await run.until(lambda: broker.requests[api] > asked)
    await run.consumes()
    heartbeats = broker.requests[HEARTBEAT]
    await run.until(lambda: broker.requests[HEARTBEAT] > heartbeats)
    await run.until(lambda: run.daemon._supervisor.unhealthy is None)
    broker.answers.clear()


@pytest.mark.parametrize("frame", FRAMES)
async def test_a_wrong_frame_ends_in_recovery(frame: str) -> None:
    """Whatever it answers: the connection is given up, or the client."""
    async with FakeBroker() as broker, a_run_on(broker, watchdog={"rebuilds": len(APIS)}) as run:
        for api in APIS:
            await meet(run, api, FRAMES[frame])


async def test_a_frame_that_never_ends_is_found(deaf_soon: None) -> None:
    """A huge length, or a frame that stops in its middle, is waited for by aiokafka as long as a request may last."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        await meet(run, FETCH, struct.pack(">ii", 2**31 - 1, 1) + b"x" * 100)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(api=st.sampled_from(APIS), body=st.binary(max_size=60), fits=st.booleans())
async def test_random_bytes_end_in_recovery(api: int, body: bytes, fits: bool, deaf_soon: None) -> None:
    """Frames of noise, some of them under the right correlation id."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.correlated = fits
        await meet(run, api, body if fits else struct.pack(">i", len(body)) + body)


# -- the supervisor ----------------------------------------------------------------------------------------------


async def test_a_blocked_loop_is_said_while_it_lasts() -> None:
    """/healthz answers 503 from its own thread, /metrics goes on answering, and all is well afterwards."""
    seen: list[tuple[int, str]] = []
    metrics: list[int] = []
    release, blocked = threading.Event(), threading.Event()

    def block() -> None:
        if blocked.is_set() and not release.is_set():
            release.wait(10)

    async with FakeBroker() as broker, a_run_on(broker, handler=block) as run:
        left: list[int] = []
        run.daemon._supervisor._leave = left.append
        port = run.daemon.http.port
        assert get(port, "/healthz") == (200, "ok\n")

        def look() -> None:
            deadline = time.monotonic() + 8
            while not seen and time.monotonic() < deadline:
                metrics.append(get(port, "/metrics")[0])
                answer = get(port, "/healthz")
                if answer[0] == 503:
                    seen.append(answer)
                time.sleep(0.05)
            release.set()

        looking = threading.Thread(target=look)
        looking.start()
        blocked.set()
        await asyncio.to_thread(looking.join)
        assert seen
        assert seen[0][1].startswith("stalled: the event loop is blocked")
        assert set(metrics) == {200}
        await run.until(lambda: run.daemon._supervisor.unhealthy is None)
        assert [(await run.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]
        await run.consumes()
        assert set(run.rebuilds) == set()
        assert left == []


async def test_a_stall_that_lasts_ends_the_process() -> None:
    """What no new client can cure is given up after the window, with 70, from the thread: the loop cannot."""
    left: list[int] = []
    release = threading.Event()

    def leave(code: int) -> None:
        left.append(code)
        release.set()

    async with FakeBroker() as broker, running(Run(broker, watchdog={"window_seconds": 1.5})) as run:
        run.daemon._supervisor._leave = leave
        await run.consumes()
        begun = time.monotonic()
        release.wait(10)  # in the event loop
        assert 1.0 < time.monotonic() - begun < 4.0
        assert left[0] == 70
        await run.consumes()
        await run.end()


async def test_a_coordinator_that_is_away_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody can talk to the group, new clients do not count: an outage never ends the daemon."""
    monkeypatch.setattr(consumer.kafka.source, "ANSWER_SECONDS", 0.3)

    def no_coordinator(version: int, response: Any, _request: Any) -> Any:
        return response(0, 15, None, -1, "", -1) if version else response(15, -1, "", -1)

    async with FakeBroker() as broker, a_run_on(broker, watchdog={"rebuilds": 1}) as run:
        broker.answers[FIND_COORDINATOR] = no_coordinator
        broker.errors[HEARTBEAT] = 15
        broker.errors[OFFSET_COMMIT] = 15
        await run.until(lambda: sum(run.rebuilds.values()) >= 2)
        assert run.task is not None
        assert not run.task.done()
        del broker.answers[FIND_COORDINATOR]
        broker.errors.clear()
        await run.consumes()
