"""A static member whose id another one takes ends, whatever it hears of first; one whose session has expired joins."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from consumer.errors import KafkaError
from tests.fakes.broker import HEARTBEAT, JOIN, OFFSET_COMMIT, FakeBroker
from tests.fakes.daemon import Run, running

pytestmark = pytest.mark.usefixtures("quick")
FENCED_INSTANCE, UNKNOWN_MEMBER = 82, 25


def static(**kafka: Any) -> dict[str, Any]:
    return {"group_instance_id": "one", "heartbeat_interval_seconds": 0.1, **kafka}


async def ended(run: Run) -> None:
    """Wait until the daemon has ended because of a member with the same id."""
    assert run.task is not None
    with pytest.raises(KafkaError, match="another member with the id 'one' has joined group"):
        async with asyncio.timeout(8):
            await run.task


@pytest.mark.parametrize("code", [UNKNOWN_MEMBER, FENCED_INSTANCE])
async def test_heartbeats_of_a_member_that_is_replaced(code: int) -> None:
    """A heartbeat that is not known ends the daemon, which does not join again."""
    async with FakeBroker() as broker, running(Run(broker, kafka=static())) as run:
        await run.consumes()
        joins = broker.requests[JOIN]
        broker.answers[HEARTBEAT] = lambda version, response, _: response(0, code) if version else response(code)
        await ended(run)
        assert broker.requests[JOIN] == joins
        broker.refused.clear()


async def test_commits_of_a_member_that_is_replaced() -> None:
    """A commit often hears of it before a heartbeat does: it fails, and takes the id back no more than one does."""
    async with FakeBroker() as broker, running(Run(broker, kafka=static(heartbeat_interval_seconds=0.5))) as run:
        await run.consumes()
        joins = broker.requests[JOIN]
        broker.errors[OFFSET_COMMIT] = UNKNOWN_MEMBER
        await ended(run)
        assert broker.requests[JOIN] == joins
        assert run.daemon.counters.commits["fenced"] >= 1
        broker.refused.clear()


async def test_a_late_answer_is_no_replacement() -> None:
    """A session that has expired while an answer was under way is joined again, as nobody has taken the id."""
    async with FakeBroker() as broker:
        heard: list[float] = []
        late = asyncio.Event()

        async def beat(version: int, response: Any, request: Any) -> Any:
            now = time.monotonic()
            if heard and now - heard[-1] > 1.5:
                broker.expel()
            heard.append(now)
            answer = broker.usual(HEARTBEAT, version, response, request)
            if not late.is_set():
                late.set()
                await asyncio.sleep(1.7)
            return answer

        async with running(Run(broker, kafka=static(), watchdog={"stalled_seconds": 30.0})) as run:
            await run.consumes()
            broker.answers[HEARTBEAT] = beat
            await late.wait()
            await run.until(lambda: broker.requests[JOIN] > 1)
            await run.consumes()
            await run.end()
            broker.refused.clear()
