"""Stopping an aiokafka client takes a bounded time and leaves no task and no socket.

The ids (S5, S7 …) number the known ways in which aiokafka 0.14 stalls.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka
import pytest
from aiokafka.errors import KafkaConnectionError

from tests.fakes.broker import FETCH, FIND_COORDINATOR, JOIN, LEAVE, METADATA, OFFSET_COMMIT, FakeBroker
from tests.fakes.daemon import Run, a_run_on, kill_fetcher, running

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_stop_while_the_group_does_not_decide_is_bounded() -> None:
    """S5: a stop does not wait for the poll of an undecided group."""
    async with FakeBroker() as broker, a_run_on(broker, path="plain") as run:
        broker.silent.add(JOIN)
        broker.rebalance()
        await run.until(lambda: run.source.rebalancing)
        await run.until(lambda: broker.requests[JOIN] == 2)


async def test_a_stop_without_brokers_is_bounded() -> None:
    """S7, S8: without autocommit aiokafka retries nothing at a stop; what it leaves open is closed."""
    async with FakeBroker() as broker, running(Run(broker)) as run:
        await run.consumes()
        await broker.__aexit__(None, None, None)
        await asyncio.sleep(0.3)
        await run.end()
        assert run.rebuilds == {}


@pytest.mark.parametrize("silent", [{FIND_COORDINATOR}, {FETCH, LEAVE, OFFSET_COMMIT, METADATA}])
async def test_a_stop_with_silent_brokers_is_bounded(silent: set[int]) -> None:
    """S7: a stop gives up pending requests and ends the tasks that wait for them."""
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
    """S7, S8: sockets and tasks end even when aiokafka's stop fails or hangs."""

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
    """S8: a CancelledError for the daemon is told apart from one inside aiokafka."""
    async with FakeBroker() as broker, running(Run(broker)) as run:
        await run.consumes()
        assert run.task is not None
        run.task.cancel()
        await asyncio.wait([run.task], timeout=5)
        assert run.task.cancelled()
        await run.source.stop()
        await run.leaves_nothing()
