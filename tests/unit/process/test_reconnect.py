"""Outages, brokers that moved, and stops while the Kafka client is replaced.

The ids (S1, S4 …) number the known ways in which aiokafka 0.14 stalls.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import aiokafka
import pytest
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

import consumer.kafka.client_source
from consumer.delivery.committer import Committer
from consumer.delivery.engine import Engine
from consumer.errors import ConsumerError
from consumer.kafka.source import KafkaSource
from consumer.process import measuring, vitals
from tests.fakes.broker import FETCH, FIND_COORDINATOR, HEARTBEAT, JOIN, OFFSET_COMMIT, SILENCE, FakeBroker
from tests.fakes.daemon import Run, a_few, a_run_on, get, kill_fetcher, running

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_connection_that_fell_silent_is_found(deaf_soon: None) -> None:
    """S1: an unanswered fetch blocks its connection; a new client that gets answers replaces this one."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.answers[FETCH] = a_few(1, SILENCE)
        await run.rebuilt()
        await run.consumes()
        assert run.rebuilds == {"deaf": 1}
        assert [(await run.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]


async def test_a_blocked_loop_blames_no_broker(deaf_soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a handler keeps the event loop nobody reads the brokers' answers, and /readyz says so."""
    monkeypatch.setattr(vitals, "BLOCKED_SECONDS", 0.3)
    seen: list[str] = []
    block = False

    def ask() -> None:
        while not seen:
            code, text = get(run.daemon.http.port, "/readyz")
            seen.extend([text] if code == 503 else [])

    def handle() -> None:
        if block and not seen:
            asking = threading.Thread(target=ask)
            asking.start()
            asking.join(10)

    async with FakeBroker() as broker, a_run_on(broker, handler=handle) as run:
        block = True
        await run.until(lambda: seen)
        await run.consumes()
    assert seen[0].startswith("the event loop has not run for ")


@pytest.mark.parametrize("raised", [asyncio.CancelledError, RuntimeError])
async def test_a_look_that_fails_is_repeated(
    deaf_soon: None, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]
) -> None:
    """Whatever asking a new client raises, a CancelledError of a library too, it is logged once and asked again."""
    deaf, failures = KafkaSource.deaf, iter(range(3))

    async def failing_at_first(source: KafkaSource, keys: Any) -> bool:
        if next(failures, None) is not None:
            raise raised
        return await deaf(source, keys)

    monkeypatch.setattr(KafkaSource, "deaf", failing_at_first)
    with capture_logs() as logs:
        async with FakeBroker() as broker, a_run_on(broker) as run:
            broker.answers[FETCH] = a_few(1, SILENCE)
            await run.rebuilt()
            await run.consumes()
            assert run.rebuilds == {"deaf": 1}
    (logged,) = [each["error"] for each in logs if each["event"] == "listen_failed"]
    assert logged.startswith(raised.__name__)


async def test_a_poll_that_a_library_cancels_is_a_lost_client() -> None:
    """A CancelledError that escapes from a fetch replaces the client; the daemon does not end."""
    async with FakeBroker() as broker, a_run_on(broker) as run:

        async def cancelled(*_: Any) -> None:
            raise asyncio.CancelledError

        fetch: Any = run.source._fetch
        fetch.wait = cancelled
        await run.rebuilt()
        await run.consumes()
        assert run.rebuilds == {"error": 1}


@pytest.mark.parametrize(
    ("owner", "method", "loop"),
    [
        (KafkaSource, "fetched_ends", "Measuring.note_forever"),
        (KafkaSource, "end_offsets", "Measuring.ask_forever"),
        (Engine, "doubt", "DaemonVitals.beat_forever"),
        (Committer, "commit", "Engine.commit_forever"),
    ],
)
async def test_a_loop_that_a_library_cancels_ends_the_daemon(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, loop: str
) -> None:
    """A loop that ends by a CancelledError of a library is a failure, and the message names the loop."""
    monkeypatch.setattr(measuring, "MEASURE_SECONDS", -1.0)  # brokers are asked although fetches are answered
    failures = iter([True])
    called = getattr(owner, method)

    def cancelled_once(*given: Any, **named: Any) -> Any:
        if next(failures, False):
            raise asyncio.CancelledError
        return called(*given, **named)

    async with FakeBroker() as broker, running(Run(broker)) as run:
        await run.consumes()
        monkeypatch.setattr(owner, method, cancelled_once)
        assert run.task is not None
        with pytest.raises(ConsumerError, match=f"{loop}, which must run until the stop, has ended: a library"):
            async with asyncio.timeout(5):
                await run.task
        await run.leaves_nothing()
    run.lost_nothing()


@pytest.mark.usefixtures("uncured")
async def test_a_connection_that_fell_silent_is_not_found_by_aiokafka(
    deaf_soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1, uncured: nothing arrives while the request lasts; the daemon is not ready, and not to be restarted."""

    async def never(*_: Any) -> bool:
        return False

    monkeypatch.setattr(KafkaSource, "deaf", never)
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.answers[FETCH] = a_few(1, SILENCE)
        await asyncio.sleep(0.3)
        assert await run.stays(lambda: run.handled)
        assert (await run.get("/healthz"))[0] == 200
        assert (await run.get("/readyz"))[1] == "no broker answered for 0.5 s\n"


async def test_a_topic_missing_while_the_client_is_replaced_ends_nothing() -> None:
    """S4: a missing topic ends the daemon at its first start only."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.topic_error = 5
        await kill_fetcher(run)
        await run.rebuilt()
        await asyncio.sleep(0.5)
        broker.topic_error = 0
        await run.consumes()
        assert run.rebuilds == {"task_ended": 1}


async def test_brokers_that_all_moved_are_found_again(deaf_soon: None) -> None:
    """S10: aiokafka never asks its bootstrap servers again; a new client does, gets answers, and takes over."""
    async with FakeBroker() as broker, FakeBroker() as other:
        servers = [broker.bootstrap_servers, other.bootstrap_servers]
        port = other.port
        await other.__aexit__(None, None, None)
        async with running(Run(broker, kafka={"bootstrap_servers": servers})) as run:
            await run.consumes()
            await broker.__aexit__(None, None, None)
            broker.port = port
            await asyncio.sleep(1.0)
            assert (await run.get("/readyz"))[0] == 503
            assert (await run.get("/healthz"))[0] == 200
            await broker.__aenter__()
            await run.consumes()
            assert run.rebuilds == {"deaf": 1}
            assert (await run.get("/readyz"))[0] == 200
            await run.end()
            run.lost_nothing()


async def test_an_outage_within_the_session_changes_nothing() -> None:
    """An outage shorter than the session causes no new client and no rebalance."""
    async with FakeBroker() as broker, a_run_on(broker, kafka={"session_timeout_seconds": 20.0}) as run:
        handled = run.handled
        await broker.away(1.2)
        assert (await run.get("/healthz"))[0] == 200
        assert (await run.get("/readyz"))[0] == 200
        await run.consumes()
        assert run.rebuilds == {}
        assert run.daemon.counters.rebalances == {"assigned": 1, "revoked": 0, "lost": 0, "slow": 0}
        assert run.handled > handled


async def test_an_outage_beyond_the_session_is_a_rebalance() -> None:
    """After an outage longer than the session the same client joins again."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.expel()
        await broker.away(2.0)
        await run.consumes()
        assert run.rebuilds == {}
        assert run.daemon.counters.rebalances["assigned"] == 2
        broker.refused.clear()


async def test_an_outage_while_the_client_is_replaced_is_waited_for() -> None:
    """A replacement during an outage is counted once, however long the brokers are away."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        await kill_fetcher(run)
        await broker.away(1.5)
        await run.consumes()
        assert sum(run.rebuilds.values()) == 1


@pytest.mark.parametrize("moment", ["while brokers are away", "while joining"])
async def test_a_stop_while_the_client_is_replaced(moment: str) -> None:
    """A stop also ends a client that is not ready yet."""
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
    """A new client that fails to start is counted, and the next attempt comes later."""
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


async def test_replacements_without_a_coordinator_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody can reach the group's coordinator, new clients do not count towards the limit."""
    monkeypatch.setattr(consumer.kafka.client_source, "ANSWER_SECONDS", 0.3)

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
