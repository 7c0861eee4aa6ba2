"""A Kafka client that stalls is found and replaced; a stall that no client cures ends the process.

The ids (S1, S3 …) number the known ways in which aiokafka 0.14 stalls. A fault that the daemon has to cure is also
shown without the cure, so that the test can fail.
"""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import time

import pytest

from consumer.errors import StalledError
from consumer.logs import configure_logging
from consumer.settings.sections import Log
from tests.fakes.broker import FETCH, HEARTBEAT, JOIN, LEAVE, OFFSET_COMMIT, SILENCE, FakeBroker
from tests.fakes.daemon import PATHS, Run, a_few, a_run_on, empty, get, kill_fetcher, running

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_fetch_task_that_died_is_found() -> None:
    """S1: a client whose fetch task ended is replaced, even though its heartbeats go on."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        await kill_fetcher(run)
        await run.rebuilt()
        await run.consumes()
        assert run.rebuilds == {"task_ended": 1}
        assert 'client_rebuilds_total{reason="task_ended"} 1.0' in (await run.get("/metrics"))[1]
        assert [(await run.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.usefixtures("uncured")
async def test_a_fetch_task_that_died_is_not_found_by_aiokafka() -> None:
    """S1, uncured: nothing is raised and nothing arrives, while heartbeats go on."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        await kill_fetcher(run)
        heartbeats = broker.requests[HEARTBEAT]
        assert await run.stays(lambda: run.handled)
        assert broker.requests[HEARTBEAT] > heartbeats
        assert (await run.get("/healthz"))[0] == 503


@PATHS
async def test_fetches_that_bring_nothing_are_found(path: str) -> None:
    """S1: a client whose fetches stay empty while end offsets grow is stalled and replaced."""
    async with FakeBroker() as broker, a_run_on(broker, path=path) as run:
        broker.answers[FETCH] = empty
        await run.rebuilt()
        broker.answers.clear()
        await run.consumes()
        assert run.rebuilds == {"data": 1}
        await run.until(lambda: run.daemon._parts.vitals.unhealthy is None)
        assert [(await run.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.usefixtures("uncured")
async def test_fetches_that_bring_nothing_are_not_found_by_aiokafka() -> None:
    """S1, uncured: aiokafka fetches again and again; /healthz and /readyz name the stall."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.answers[FETCH] = empty
        await asyncio.sleep(0.1)
        assert await run.stays(lambda: run.handled)
        for page in "/healthz", "/readyz":
            status, why = await run.get(page)
            assert status == 503
            assert "records wait at the brokers and none arrives (t-0, t-1)" in why


@pytest.mark.parametrize("code", [82, 30])
async def test_a_heartbeat_that_failed_for_good_is_found(code: int) -> None:
    """S3: a client that stopped its heartbeats after an unknown error or a refusal is replaced."""
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
    """S3, uncured: no heartbeat is sent after the fault is over."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.errors[HEARTBEAT] = 82
        await run.until(run.client._coordinator._heartbeat_task.done)
        broker.errors.clear()
        assert await run.stays(lambda: broker.requests[HEARTBEAT], 1.0)


async def test_a_join_that_is_never_answered_is_found() -> None:
    """S5: getmany() waits without end while the group decides; the watchdog does not."""
    async with FakeBroker() as broker, a_run_on(broker, path="plain") as run:
        broker.answers[JOIN] = a_few(1, SILENCE)
        broker.rebalance()
        await run.rebuilt()
        await run.consumes()
        assert run.rebuilds == {"group": 1}


async def test_a_commit_that_is_never_answered_is_found() -> None:
    """S6: a client whose commit is never answered is replaced, and the new one commits."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.answers[OFFSET_COMMIT] = a_few(1, SILENCE)
        await run.rebuilt()
        await run.consumes()
        assert run.rebuilds == {"commit": 1}
        assert run.daemon.counters.commits["failed"] == 1


@pytest.mark.usefixtures("uncured")
async def test_a_commit_that_is_never_answered_is_not_found_by_aiokafka() -> None:
    """S6, uncured: records are handled and nothing is committed while the request lasts."""
    async with FakeBroker() as broker, a_run_on(broker, kafka={"session_timeout_seconds": 20.0}) as run:
        broker.answers[OFFSET_COMMIT] = a_few(1, SILENCE)
        requests = broker.requests[OFFSET_COMMIT]
        await run.until(lambda: broker.requests[OFFSET_COMMIT] > requests)
        handled = run.handled
        assert await run.stays(broker.committed.copy)
        assert run.handled > handled
        assert "finished records are not committed" in (await run.get("/healthz"))[1]


async def test_a_commit_refused_for_ever_is_found() -> None:
    """S6: aiokafka retries a retriable error for ever; the watchdog ends it."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.errors[OFFSET_COMMIT] = 14
        await run.rebuilt()
        broker.errors.clear()
        await run.consumes()
        assert run.rebuilds == {"commit": 1}


async def test_a_fetch_error_that_passes_needs_nothing() -> None:
    """S12: a temporary partition error is retried by aiokafka; nothing else is needed."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        for code in 3, 6, 9, 56, 74, 75, 78, 100:
            broker.errors[FETCH] = code
            await asyncio.sleep(0.05)
            broker.errors.clear()
            await run.consumes()
        assert run.rebuilds == {}


async def test_a_fetch_error_that_stays_is_found_and_floods_no_log() -> None:
    """S12: aiokafka logs hundreds of retries a second; one line is passed on, and the client is replaced."""
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
            assert run.rebuilds == {"data": 1}
    finally:
        root.handlers = handlers
        root.setLevel(level)
    assert asked > 100
    assert sum("aiokafka" in line for line in lines.getvalue().splitlines()) < 10


async def test_a_join_that_does_not_end_at_the_start_is_found() -> None:
    """aiokafka's start waits for an assignment without end; the daemon replaces the client."""
    async with FakeBroker() as broker, running(Run(broker)) as run:
        broker.answers[JOIN] = a_few(1, SILENCE)
        await run.consumes()
        assert run.rebuilds == {"group": 1}
        await run.end()
        run.lost_nothing()


@pytest.mark.parametrize("fault", ["a dead fetcher", "fetches without records"])
async def test_too_many_new_clients_end_the_daemon(fault: str) -> None:
    """One replacement too many within the window drains, leaves the group and ends the daemon with 70."""
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


async def test_a_blocked_loop_shows_while_it_lasts() -> None:
    """While the loop is blocked /healthz answers 503 and /metrics answers; afterwards all is healthy."""
    seen: list[tuple[int, str]] = []
    metrics: list[int] = []
    release, blocked = threading.Event(), threading.Event()

    def block() -> None:
        if blocked.is_set() and not release.is_set():
            release.wait(10)

    async with FakeBroker() as broker, a_run_on(broker, handler=block) as run:
        left: list[int] = []
        run.daemon._parts.supervisor._leave = left.append
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
        await run.until(lambda: run.daemon._parts.vitals.unhealthy is None)
        assert [(await run.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]
        await run.consumes()
        assert set(run.rebuilds) == set()
        assert left == []


async def test_a_page_that_cannot_be_drawn_restarts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service manager hears of the daemon while what the status page shows cannot be collected."""
    reports: list[str] = []

    def fail() -> None:
        raise RuntimeError

    async with FakeBroker() as broker, a_run_on(broker) as run:
        monkeypatch.setattr(run.daemon._parts.supervisor._status, "sample", fail)
        monkeypatch.setattr(run.daemon._parts.notify, "alive", reports.append)
        await run.until(lambda: len(reports) > 2)


async def test_a_stall_that_lasts_ends_the_process() -> None:
    """A stall that no new client can cure ends the process with 70 after the window, from the watchdog's thread."""
    left: list[int] = []
    release = threading.Event()

    def leave(code: int) -> None:
        left.append(code)
        release.set()

    async with FakeBroker() as broker, running(Run(broker, watchdog={"window_seconds": 1.5})) as run:
        run.daemon._parts.supervisor._leave = leave
        await run.consumes()
        begun = time.monotonic()
        release.wait(10)  # in the event loop
        assert 1.0 < time.monotonic() - begun < 4.0
        assert left[0] == 70
        await run.consumes()
        await run.end()
