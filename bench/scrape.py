"""CPU milliseconds of one scrape by number of partitions, for making the text and compressing it."""

from __future__ import annotations

import gzip
import time
from statistics import median

from consumer.metrics.collector import DaemonCollector
from consumer.observe.counters import Counters
from consumer.partition.state import Partition
from consumer.record import TopicPartition
from tests.fakes.observed import FakeObserved

ACCEPT = "application/openmetrics-text;version=1.0.0"
STATES = dict.fromkeys(("poll", "work", "backpressure", "commit", "drain"), 1.0)


def scrape_cost(partitions: int, rounds: int = 30) -> dict[str, float]:
    """Return the median CPU and the size of a scrape with ``partitions`` owned partitions."""
    owned = [Partition(TopicPartition("session-events", number), 1) for number in range(partitions)]
    for each in owned:
        each.start(1000)
        each.lag.ends_at(5000, 1000, time.monotonic(), time.time())
        for number in range(20):
            each.lag.ages.note(1000 + number * 10, 1_700_000_000_000 + number, 0.0)
    counters = Counters(["session-events"], ["voice", "chat", "all"])
    collector = DaemonCollector(counters, FakeObserved(partitions=owned, seconds=STATES), 2000)
    spent, body = [], b""
    for _ in range(rounds):
        began = time.process_time()
        body, _ = collector.scrape(ACCEPT)
        gzip.compress(body, 6)
        spent.append(time.process_time() - began)
    return {"partitions": partitions, "cpu_ms": round(median(spent) * 1e3, 2), "bytes": len(body)}


if __name__ == "__main__":
    for count in (1, 16, 256):
        print(scrape_cost(count))
