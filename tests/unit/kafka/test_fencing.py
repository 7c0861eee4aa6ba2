"""A member that its group no longer counts starts no call and commits nothing.

The ids (F1, F2, F4) number the known ways in which aiokafka 0.14 lets a stale member commit.
"""

from __future__ import annotations

import asyncio

import pytest

from consumer.process import parts as parts_module
from tests.fakes.broker import HEARTBEAT, OFFSET_COMMIT, FakeBroker
from tests.fakes.daemon import a_run_on

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_commit_is_never_sent_again_under_a_later_generation() -> None:
    """F1: aiokafka would retry a commit as the new member; the daemon gives it up before the next generation."""
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
    """F2: aiokafka would commit without a generation, which an empty group accepts; the daemon does not."""
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
    """F2: a fenced commit is counted and not repeated; the next owner handles its records again."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.expel()
        await run.until(lambda: run.daemon.counters.commits["fenced"] or run.daemon.counters.rebalances["lost"])
        await run.consumes()
        assert len({(each.partition, each.offset) for each in broker.refused}) == len(broker.refused)
        assert run.rebuilds == {}
        broker.refused.clear()


async def test_a_member_that_is_cut_off_from_its_group_starts_nothing() -> None:
    """F4: after a session without a heartbeat a member starts nothing, then joins again."""
    slow_watchdog = {"watchdog": {"stalled_seconds": 4.0}, "kafka": {"session_timeout_seconds": 0.8}}
    async with FakeBroker() as broker, a_run_on(broker, **slow_watchdog) as run:
        broker.errors |= {HEARTBEAT: 15, OFFSET_COMMIT: 15}  # the coordinator is not available, says the broker
        await asyncio.sleep(1.2)
        handled = run.handled
        assert await run.stays(lambda: run.handled, 0.5)
        broker.errors.clear()
        await run.until(lambda: run.handled > handled)
        await run.consumes()
        assert run.rebuilds == {}


async def test_a_member_that_stays_cut_off_from_its_group_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """F4: brokers answer and the group does not, for longer than a rebalance may take: replaced."""
    monkeypatch.setattr(parts_module, "REQUEST_MARGIN_SECONDS", 60.0)  # or the commits are found first
    async with FakeBroker() as broker, a_run_on(broker, kafka={"session_timeout_seconds": 0.6}) as run:
        broker.errors |= {HEARTBEAT: 15, OFFSET_COMMIT: 15}
        await run.rebuilt()
        broker.errors.clear()
        await run.consumes()
        assert run.rebuilds == {"group": 1}
