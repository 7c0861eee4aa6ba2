"""Calls that overlap have their own tasks, time limits and task groups."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer import Record
from consumer.delivery.dispatch import Plans
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.handlers import Gate
from tests.unit.delivery.log_source import LogSource, keyed
from tests.unit.delivery.source import KEY
from tests.unit.delivery.waiting import until


async def test_overlapping_calls_have_their_own_tasks() -> None:
    """Two running calls never share a current task, so that timeouts and task groups cancel only their own call."""
    tasks: dict[int, asyncio.Task[Any] | None] = {}
    gate = Gate()

    async def handle(event: bytes, record: Record) -> None:
        tasks[record.offset] = asyncio.current_task()
        await gate(event, record)
        assert tasks[record.offset] is asyncio.current_task()

    source = LogSource(keyed(b"%d" % number for number in range(6)), gate=gate)
    async with an_engine_on(source, a_route(handle), ordering="key", concurrency=6) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(gate.running) == 6)
        assert len(set(tasks.values())) == 6
        gate.open()
        await until(lambda: source.committed == source.end)


@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
async def test_timeouts_and_task_groups_work_inside_handlers(ordering: str) -> None:
    """asyncio.timeout and TaskGroup cancel what is inside them, and neither the call nor other calls."""
    never = asyncio.Event()
    timed_out, grouped = [], []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def handle(_event: bytes, record: Record) -> None:
        if record.offset % 3 == 0:
            try:
                async with asyncio.timeout(0):
                    await never.wait()
            except TimeoutError:
                timed_out.append(record.offset)
        elif record.offset % 3 == 1:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(fails())
                    group.create_task(never.wait())
            except* ValueError:
                grouped.append(record.offset)
        else:
            await asyncio.sleep(0)

    source = LogSource(keyed(b"%d" % (number % 5) for number in range(60)))
    async with an_engine_on(source, a_route(handle), ordering=ordering, concurrency=4) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert bench.engine.partitions[KEY].halt is None
    assert sorted(timed_out) == list(range(0, 60, 3))
    assert sorted(grouped) == list(range(1, 60, 3))


def test_plans_are_made_once_and_bounded() -> None:
    """The steps of a combination of matches are listed once; their number stays bounded."""
    plans = Plans([])
    assert plans[()] is plans[()]
    plans.update({(bool(number % 2),) * number: ([], []) for number in range(1, Plans.LIMIT)})
    plans._steps = [None] * 2000  # type: ignore[list-item]
    assert plans[(True,) * 2000] == ([], [])
    assert len(plans) == 1
