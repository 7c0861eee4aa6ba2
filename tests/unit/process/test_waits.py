"""What a partition waits for, since when and until when, and which setting makes it late."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from consumer.dead_letters.cause import Cause
from consumer.delivery import committer, engine
from consumer.instructions import Pause, Reject, Retry
from consumer.observe.waiting import Kind, Waiting
from consumer.outcome import HaltReason
from consumer.process.parts import wait_limits
from consumer.process.waits import Waits
from consumer.record import TopicPartition
from consumer.routes.calling import InThread
from consumer.routes.route import Route
from consumer.settings.checks import AFTER_DRAIN_SECONDS
from consumer.settings.sections import Delivery, Kafka, RetrySettings, Settings, WatchdogSettings
from tests.unit.delivery.engines import Bench, a_route, an_engine_on, outlive
from tests.unit.delivery.source import KEY, MemorySource, RawRecord, a_chunk
from tests.unit.delivery.waiting import rounds, until

STALLED, DRAIN, REQUEST, INTERVAL = 60.0, 20.0, 70.0, 3600.0


class Scene(msgspec.Struct):
    """An engine and the waits of its partition."""

    bench: Bench
    waits: Waits

    def all(self) -> list[Waiting]:
        (vital,) = self.waits.read(time.monotonic(), time.time())
        return list(vital.waits)

    def of(self, kind: Kind) -> Waiting | None:
        return next((each for each in self.all() if each.kind == kind), None)

    async def found(self, kind: Kind) -> Waiting:
        """Wait until the partition waits for this."""
        await until(lambda: self.of(kind))
        found = self.of(kind)
        assert found is not None
        return found

    def progress(self) -> tuple[int, int] | None:
        (vital,) = self.waits.read(time.monotonic(), time.time())
        return vital.progress


@asynccontextmanager
async def a_scene(*routes: Route, letters: Any = None, records: int = 3, **delivery: Any) -> AsyncIterator[Scene]:
    source = MemorySource()
    if records:
        source.give(a_chunk(0, records))
    values = {"drain_seconds": DRAIN, "commit_interval_seconds": INTERVAL} | delivery
    settings = Settings(
        kafka=Kafka(request_timeout_seconds=REQUEST),
        delivery=Delivery(**values),
        watchdog=WatchdogSettings(stalled_seconds=STALLED),
    )
    retry = RetrySettings(attempts=2, initial_seconds=500.0, maximum_seconds=500.0, jitter=0.0)
    async with an_engine_on(source, *routes, letters=letters, retry=retry, **values) as bench:
        bench.engine.assign([KEY])
        yield Scene(bench, Waits(bench.engine, routes, wait_limits(settings)))


def with_handler(route: Route, **values: Any) -> Route:
    return msgspec.structs.replace(route, handler=msgspec.structs.replace(route.handler, **values))


def waiting_route(go: asyncio.Event, **values: Any) -> Route:
    async def handle(_event: bytes) -> None:
        await go.wait()

    return with_handler(a_route(handle), **values)


@pytest.mark.parametrize(("timeout_seconds", "ends"), [(None, STALLED), (500.0, 500.0 + STALLED)])
async def test_each_wait_has_the_limit_of_its_setting(timeout_seconds: float | None, ends: float) -> None:
    """A call is late ``stalled_seconds`` after its ``timeout_seconds``, or after its begin without one."""
    go = asyncio.Event()
    async with a_scene(waiting_route(go, timeout_seconds=timeout_seconds)) as scene:
        found = await scene.found("call")
        assert found.until == (None if timeout_seconds is None else found.since + timeout_seconds)
        assert found.late_at == pytest.approx(found.since + ends)
        go.set()
        await until(lambda: scene.of("call") is None)


async def test_a_batch_waits_for_its_own_time() -> None:
    """A batch that is collected is late only after its ``max_seconds``; a call of a batch is a call."""
    go, begun = asyncio.Event(), asyncio.Event()

    async def handle(_events: list[bytes]) -> None:
        begun.set()
        await go.wait()

    async with a_scene(with_handler(a_route(handle), max_seconds=900.0, max_records=5)) as scene:
        found = await scene.found("batch")
        assert found.until == found.since + 900.0
        assert found.late_at == found.since + 900.0 + STALLED
        scene.bench.source.give(a_chunk(3, 4))
        await begun.wait()
        assert (await scene.found("call")).late_at < found.late_at
        assert scene.of("batch") is None
        go.set()


async def test_a_position_is_waited_for_from_the_assignment() -> None:
    """A partition whose position is not known is late once its leader answers, and only then."""
    async with a_scene(a_route(lambda _event: None), records=0) as scene:
        found = await scene.found("position")
        assert found.late_at == math.inf
        now = time.monotonic()
        scene.bench.engine.partitions[KEY].lag.ends_at(5, None, now, time.time())
        assert (await scene.found("position")).late_at == found.since + STALLED
        assert now - found.since < 10


async def test_what_was_given_and_does_not_begin_is_late() -> None:
    """A partition of which the group has not given the offset is not in the engine, and stands still all the same."""
    async with a_scene(a_route(lambda _event: None)) as scene:
        ((found, (wait,), progress),) = scene.waits.unbegun({KEY: 100.0})
        assert (found, wait.kind, wait.since, wait.late_at, progress) == (
            KEY,
            "position",
            100.0,
            100.0 + DRAIN + STALLED,
            None,
        )


async def test_data_is_late_only_when_there_is_some() -> None:
    """An idle partition is late when records lie above its position since a time, and does not move."""
    async with a_scene(a_route(lambda _event: None)) as scene:
        await until(lambda: (each := scene.of("data")) and each.late_at == math.inf)
        lag, now = scene.bench.engine.partitions[KEY].lag, time.monotonic()
        lag.ends_at(9, 0, now, time.time(), 3)
        assert (await scene.found("data")).late_at >= now + STALLED
        scene.bench.source.give(a_chunk(3, 6))
        await until(lambda: (each := scene.of("data")) and each.late_at == math.inf)


@pytest.mark.parametrize(
    ("error", "kind"), [(Retry(after=500.0), "retry"), (ValueError(), "retry"), (Pause(after=500.0), "pause")]
)
async def test_what_a_handler_asks_for_has_no_limit(error: Exception, kind: Kind) -> None:
    """Retries and pauses are waited for until they are due, and are never late."""

    def handle(_event: bytes) -> None:
        raise error

    async with a_scene(a_route(handle)) as scene:
        found = await scene.found(kind)
        assert found.late_at == math.inf
        if kind == "retry":
            assert found.until == pytest.approx(found.since + 500.0, abs=5.0)
        assert scene.progress() is None


async def test_a_letter_that_kafka_does_not_take_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that waits for a dead letter says so."""
    monkeypatch.setattr("consumer.delivery.failure.SLOW_LETTER_SECONDS", 0.01)
    go = asyncio.Event()

    class Slow:
        async def write(self, _key: TopicPartition, _raw: RawRecord, _cause: Cause) -> None:
            await go.wait()

    def handle(_event: bytes) -> None:
        raise Reject("no")

    async with a_scene(a_route(handle), letters=Slow()) as scene:
        assert (await scene.found("letter")).late_at == math.inf
        go.set()
        await until(lambda: scene.of("letter") is None)


async def test_doubt_waits_for_the_group() -> None:
    """While heartbeats are not answered a partition waits for its group."""
    async with a_scene(a_route(lambda _event: None), records=0) as scene:
        scene.bench.engine.doubt(doubtful=True)
        assert (await scene.found("group")).late_at == math.inf


async def test_a_flush_that_hangs_is_late() -> None:
    """A flush is late after the longest of ``stalled_seconds`` and ``drain_seconds``; one that failed holds."""
    go, failing = asyncio.Event(), [True]

    class Sink:
        def __call__(self, _event: bytes) -> None: ...

        async def flush(self) -> None:
            if failing and failing.pop():
                raise OSError
            await go.wait()

    async with a_scene(a_route(Sink()), commit_interval_seconds=0.01) as scene:
        await until(lambda: (each := scene.of("flush")) and each.late_at < math.inf)
        found = await scene.found("flush")
        assert found.late_at == found.since + STALLED
        assert scene.of("commit") is None
        go.set()
        await until(lambda: scene.of("flush") is None and scene.of("commit") is None)


async def test_a_flush_that_failed_holds() -> None:
    """A sink that cannot store is waited for without a limit."""

    class Full:
        def __call__(self, _event: bytes) -> None: ...

        async def flush(self) -> None:
            raise OSError

    async with a_scene(a_route(Full()), commit_interval_seconds=0.01) as scene:
        await until(lambda: (each := scene.of("flush")) and each.late_at == math.inf)


async def test_a_commit_is_late_after_its_interval() -> None:
    """A commit is due after the interval and late when a request would have timed out; a long interval is no stall."""
    async with a_scene(a_route(lambda _event: None)) as scene:
        found = await scene.found("commit")
        assert found.until == found.since + INTERVAL
        assert found.late_at == found.until + REQUEST + 10.0
        await scene.bench.engine.committer.commit(scene.bench.engine.partitions.values(), math.inf, 5.0)
        assert scene.of("commit") is None


async def test_flush_seconds_make_a_commit_due_later() -> None:
    """``flush_seconds`` longer than the commit interval sets when a commit is due."""

    class Sink:
        def __call__(self, _event: bytes) -> None: ...
        async def flush(self) -> None: ...

    route = with_handler(a_route(Sink()), flush_seconds=2 * INTERVAL)
    async with a_scene(route) as scene:
        found = await scene.found("commit")
        assert found.until == found.since + 2 * INTERVAL


async def test_commits_that_fail_do_not_reset_the_clock() -> None:
    """The clock of commits counts from the last one that Kafka took, however often they are tried."""
    async with a_scene(a_route(lambda _event: None), commit_interval_seconds=0.005) as scene:
        scene.bench.source.answers = ["failed"] * 1000
        found = await scene.found("commit")
        await until(lambda: len(scene.bench.source.commits) > 5)
        assert (await scene.found("commit")).since == found.since
        scene.bench.source.answers.clear()
        await until(lambda: scene.of("commit") is None)


async def test_a_revoke_does_not_reset_the_clock_of_others() -> None:
    """Partitions that are revoked with nothing to commit do not make the commits of others look fresh."""
    other = TopicPartition("t", 1)
    async with a_scene(a_route(lambda _event: None), commit_interval_seconds=0.005) as scene:
        scene.bench.source.answers = ["failed"] * 1000
        found = await scene.found("commit")
        for _ in range(5):
            scene.bench.engine.assign([other])
            await rounds()
            await scene.bench.engine.revoke([other], lost=False)
        assert (await scene.found("commit")).since == found.since
        scene.bench.source.answers.clear()


async def test_an_earlier_epochs_call_is_late() -> None:
    """A partition that waits for a call of its earlier epoch says so, and is late after the routes' longest timeout."""
    release = asyncio.Event()

    async def handle(_event: bytes) -> None:
        await outlive(release)

    route = with_handler(a_route(handle), timeout_seconds=5.0)
    async with a_scene(route, drain_seconds=0.01, commit_interval_seconds=0.01) as scene:
        await scene.found("call")
        await scene.bench.engine.revoke([KEY], lost=False)
        scene.bench.engine.assign([KEY])
        found = await scene.found("earlier_epoch")
        assert found.late_at == found.since + 5.0 + STALLED
        release.set()
        await scene.found("position")


async def test_a_threaded_call_has_not_begun_before_its_thread() -> None:
    """A call that waits for a free thread is not late while the threads end other calls."""
    go = threading.Semaphore(0)
    blocking = InThread(lambda _event: go.acquire(timeout=20), 1)
    route = with_handler(a_route(blocking), is_async=True, running_since=blocking.running_since)
    async with a_scene(route, ordering="unordered", concurrency=3) as scene:
        await until(lambda: len(blocking.running) == 1 and scene.bench.counters.routes["r0"].waiting == 3)
        first = await scene.found("call")
        began = blocking.running_since()
        go.release()
        await until(lambda: blocking.running and blocking.running_since() != began)
        second = await scene.found("call")
        assert second.late_at == pytest.approx((blocking.running_since() or 0.0) + STALLED)
        assert second.late_at > first.late_at
        for _ in range(3):
            go.release()
        await until(lambda: scene.of("call") is None)
        assert blocking.running_since() is not None  # between two calls the last that began counts


async def test_a_drain_says_so() -> None:
    """A partition that drains is bounded by ``drain_seconds``."""
    go = asyncio.Event()
    async with a_scene(waiting_route(go)) as scene:
        await scene.found("call")
        revoking = asyncio.create_task(scene.bench.engine.revoke([KEY], lost=False))
        await rounds()
        (drain,) = scene.all()
        assert (drain.kind, drain.until, drain.late_at) == ("drain", drain.since + DRAIN, math.inf)
        go.set()
        await revoking


async def test_a_halt_says_so() -> None:
    """A halted partition waits for a person; a call that is still under way keeps its limit."""
    go = asyncio.Event()
    async with a_scene(waiting_route(go)) as scene:
        await scene.found("call")
        scene.bench.engine.halt(KEY, HaltReason.CORRUPT_BATCH, 1, "broken")
        assert {each.kind for each in scene.all()} == {"halt", "call"}
        assert (await scene.found("halt")).late_at == math.inf
        go.set()
        await until(lambda: [each.kind for each in scene.all()] == ["halt", "commit"])


async def test_room_is_waited_for() -> None:
    """A partition whose room is used up says so beside the calls that use it."""
    go = asyncio.Event()
    async with a_scene(waiting_route(go), ordering="unordered", max_in_flight_records=2) as scene:
        await scene.found("room")
        assert scene.of("call") is not None
        assert scene.progress() is None
        go.set()
        await until(lambda: scene.of("room") is None)


async def test_work_that_nothing_explains_is_told_by_its_progress() -> None:
    """A record in flight that no call, retry, batch or hold accounts for shows as progress that must move."""
    async with a_scene(a_route(lambda _event: None)) as scene:
        partition = scene.bench.engine.partitions[KEY]
        await until(lambda: partition.done == 3)
        assert scene.progress() is None
        partition.watermark.hold(3)
        partition.watermark.advance(5)
        assert scene.progress() == (5, 3)
        partition.watermark.release(3)


def test_the_time_after_a_drain_is_what_the_settings_check_leaves() -> None:
    """The last flush, commit and cancellations fit into the time that is checked against the rebalance timeout."""
    least = engine.CANCEL_GRACE_SECONDS + engine.COMMIT_BUDGET_SECONDS
    assert least + committer.ANSWER_SECONDS + committer.CANCEL_SECONDS <= AFTER_DRAIN_SECONDS
