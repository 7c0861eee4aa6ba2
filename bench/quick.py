"""The short comparison, in less than four minutes: one JSON object with the ratios that must not fall."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.contestants import BARE, INLINE, OURS, TUNED
from bench.data import DataSet
from bench.driver import Driver, alternate, open_driver, progress
from bench.in_use import in_use, verdicts
from bench.report import over

EVENTS = 400_000
ROUNDS = 5
PAIRS = 4
IN_USE_ROUNDS = 3


async def quick(only: list[str]) -> dict[str, Any]:
    """Run the short comparison, or of it only some works of "In use".

    Raises VoidRunError when a run lost or repeated a record.
    """
    async with open_driver() as driver:
        found = {} if only else await _one_route(driver)
        found["in_use"] = verdicts(await in_use(driver, EVENTS, IN_USE_ROUNDS, only, peers=False), only)
    return found


async def _one_route(driver: Driver) -> dict[str, Any]:
    """One route, snake_case records and handlers that do not wait, beside the bare loop; and what metrics cost."""
    lines = await alternate(driver, [BARE, *OURS, TUNED], DataSet(EVENTS), ROUNDS)
    pairs = await metrics_pairs(driver, DataSet(EVENTS), PAIRS)
    ratio = {each.name: round(median(over(lines[each.name], lines["bare"])), 3) for each in OURS}
    if any("failed" in line for line in lines[TUNED.name]):
        raise SystemExit(f"bench: {TUNED.name}: {lines[TUNED.name][0]['failed']}")
    ratio["confluent_tuned_cpu"] = round(median(over(lines[TUNED.name], lines["inline"], "cpu_us")), 3)
    return {
        "ratio": ratio,
        "metrics_overhead": round(median(pairs), 4),
        "rss_mb": max(line["rss_mb"] for each in OURS for line in lines[each.name]),
    }


async def metrics_pairs(driver: Driver, data: DataSet, pairs: int) -> list[float]:
    """Return the relative CPU cost per event of a scrape a second, by pair; the order alternates."""
    found = []
    for number in range(pairs):
        progress(f"metrics: pair {number + 1} of {pairs}")
        cpu = {}
        for scrape in (True, False) if number % 2 == 0 else (False, True):
            cpu[scrape] = (await driver.run(INLINE, data, scrape=scrape))["cpu_us"]
        found.append(cpu[True] / cpu[False] - 1)
    return found
