"""What dead letters cost: all records rejected, and one in twenty, beside none; Kafka acknowledges each letter."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.contestants import INLINE, Contestant
from bench.data import DataSet
from bench.driver import alternate, open_driver
from bench.report import over

EVENTS = 400_000
PARTITIONS = 4
SOME = Contestant("reject5", "this project: one record in twenty is rejected", "ours", "reject5")
ALL = Contestant("reject_all", "this project: every record is rejected", "ours", "reject_all", share=0.25)


async def letters(rounds: int) -> dict[str, Any]:
    """Return letters a second with all rejected, and the ratio of events a second with one rejected in twenty."""
    async with open_driver() as driver:
        data = DataSet(EVENTS)
        for share in (SOME.share, ALL.share):
            topic = data._replace(events=int(EVENTS * share)).topic
            await driver.topics.empty(f"{topic}.dlq", PARTITIONS)
        lines = await alternate(driver, [INLINE, SOME, ALL], data, rounds)
    return {
        "letters_per_second": round(median(line["per_second"] for line in lines[ALL.name])),
        "one_in_twenty_events_ratio": round(median(over(lines[SOME.name], lines[INLINE.name])), 3),
    }
