"""The short comparison, in less than 90 seconds: one JSON object with the ratios that must not fall."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.contestants import BARE, INLINE, OURS, TUNED
from bench.data import DataSet
from bench.driver import Driver, alternate, open_driver, progress

EVENTS = 400_000
ROUNDS = 5
PAIRS = 4

Lines = dict[str, list[dict[str, Any]]]


async def quick() -> dict[str, Any]:
    """Run the short comparison. Raises VoidRunError when a run lost or repeated a record."""
    async with open_driver() as driver:
        lines = await alternate(driver, [BARE, *OURS, TUNED], DataSet(EVENTS), ROUNDS)
        pairs = await metrics_pairs(driver, DataSet(EVENTS), PAIRS)
    ratio = {each.name: round(median(ratios(lines, each.name, "bare", "per_second")), 3) for each in OURS}
    if any("failed" in line for line in lines[TUNED.name]):
        raise SystemExit(f"bench: {TUNED.name}: {lines[TUNED.name][0]['failed']}")
    ratio["confluent_tuned_cpu"] = round(median(ratios(lines, TUNED.name, "inline", "cpu_us")), 3)
    return {
        "ratio": ratio,
        "metrics_overhead": round(median(pairs), 4),
        "rss_mb": max(line["rss_mb"] for each in OURS for line in lines[each.name]),
    }


def ratios(lines: Lines, name: str, other: str, field: str) -> list[float]:
    """Return one contestant's number over another's, round by round."""
    return [a[field] / b[field] for a, b in zip(lines[name], lines[other], strict=True)]


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
