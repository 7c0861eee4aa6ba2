"""CPU cost of two processes of one group compared with one."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from bench.contestants import INLINE
from bench.data import DataSet
from bench.driver import Driver, VoidRunError, open_driver, progress

JOIN_MS = "1500"
"""Time for which the broker waits for members, so that both are in the first generation."""


async def scaling(events: int, rounds: int) -> dict[str, Any]:
    """Return CPU an event of one and two processes, by round, and the median of their ratio.

    Its own Kafka. A process here ends when nothing came for a second, and that second's CPU is counted for each.
    """
    data = DataSet(events)
    runs = []
    async with open_driver(group_initial_rebalance_delay_ms=JOIN_MS) as driver:
        topic = await driver.topics.filled(data)
        for number in range(rounds):
            cpu = {}
            for processes in (1, 2) if number % 2 == 0 else (2, 1):
                cpu[processes] = await _together(driver, topic, data, processes)
            runs.append({"one_cpu_us": cpu[1], "two_cpu_us": cpu[2], "ratio": round(cpu[2] / cpu[1], 3)})
            progress(f"scaling: {runs[-1]}")
    return {"ratio": median(run["ratio"] for run in runs), "rounds": runs}


async def _together(driver: Driver, topic: str, data: DataSet, processes: int) -> float:
    group = driver.fresh("together")
    async with AsyncExitStack() as opened:
        started = [
            await opened.enter_async_context(driver.started(INLINE, topic, data.events, shared=True, group=group))
            for _ in range(processes)
        ]
        results = [await process.said("handled") for process in started]
    committed = await driver.committed(topic, group)
    handled = sum(result["handled"] for result in results)
    if not handled == committed == data.events or min(result["handled"] for result in results) == 0:
        raise VoidRunError(f"{processes} processes: {data.events} produced, {handled} handled, {committed} committed")
    return round(sum(result["cpu"] for result in results) / data.events * 1e6, 4)
