"""The long comparison in parts; the raw lines of each are merged into ``results.json``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from bench.contestants import BARE, INLINE, OURS, PEERS, SUSPENDING, TUNED
from bench.data import DataSet
from bench.driver import Driver, alternate, open_driver
from bench.environment import HERE
from bench.in_use import in_use
from bench.latency import latency
from bench.machine import commit, machine
from bench.quick import metrics_pairs
from bench.report import write_report
from bench.scaling import scaling
from bench.scrape import scrape_cost

RESULTS = HERE / "results.json"
CODECS = ("none", "lz4", "zstd")
SIZES = (150, 325, 2000)
PARTITIONS = (1, 4, 64, 256)
PAIRS = 10
TRIO = [BARE, INLINE, TUNED]


async def table(driver: Driver, events: int, rounds: int) -> Any:
    """All contestants on the same records."""
    return await alternate(driver, [BARE, *OURS, *SUSPENDING, *PEERS], DataSet(events), rounds)


async def uses(driver: Driver, events: int, rounds: int) -> Any:
    """Works of users beside loops written by hand, with the peers of handlers that wait."""
    return await in_use(driver, events, rounds, [], peers=True)


async def codecs(driver: Driver, events: int, rounds: int) -> Any:
    """The bare loop, this project and the tuned loop on each codec."""
    return {codec: await alternate(driver, TRIO, DataSet(events, codec=codec), rounds) for codec in CODECS}


async def sizes(driver: Driver, events: int, rounds: int) -> Any:
    """The same contestants on each size of event."""
    return {str(size): await alternate(driver, TRIO, DataSet(events, size=size), rounds) for size in SIZES}


async def partitions(driver: Driver, events: int, rounds: int) -> Any:
    """The same contestants on each number of partitions, alternating within a round so that they can be compared."""
    found: dict[str, Any] = {str(count): {each.name: [] for each in TRIO} for count in PARTITIONS}
    for number in range(rounds):
        for count in PARTITIONS if number % 2 == 0 else reversed(PARTITIONS):
            for name, lines in (await alternate(driver, TRIO, DataSet(events, partitions=count), 1)).items():
                found[str(count)][name] += lines
    return found


async def metrics(driver: Driver, events: int, rounds: int) -> Any:
    """Runs with one scrape a second and without, in at least ``PAIRS`` pairs."""
    pairs = await metrics_pairs(driver, DataSet(events), max(PAIRS, rounds))
    low, high = median_interval(pairs)
    return {
        "overhead": round(median(pairs), 4),
        "interval_95": [low, high],
        "pairs": [round(each, 4) for each in pairs],
        "scrapes": [scrape_cost(count) for count in (4, 256)],
    }


async def delays(driver: Driver, _events: int, rounds: int) -> Any:
    """End-to-end latency beside ``getone``."""
    return await latency(driver, rounds)


async def processes(_driver: Driver, events: int, rounds: int) -> Any:
    """Two processes compared with one."""
    return await scaling(events, rounds)


PARTS: dict[str, Callable[[Driver, int, int], Awaitable[Any]]] = {
    "table": table,
    "in_use": uses,
    "codecs": codecs,
    "sizes": sizes,
    "partitions": partitions,
    "metrics": metrics,
    "latency": delays,
    "processes": processes,
}


async def full(only: list[str], events: int, rounds: int, date: str) -> None:
    """Run the parts named in ``only``, or all; each is merged into the results as soon as it is done."""
    async with open_driver() as driver:
        for name in only or PARTS:
            result = await PARTS[name](driver, events, rounds)
            _merge(name, {"date": date, "commit": commit(), "events": events, "rounds": rounds, "result": result})
    report()


def report() -> None:
    """Write the report from the existing results."""
    write_report(json.loads(RESULTS.read_text(encoding="utf-8")), HERE)


def _merge(name: str, part: dict[str, Any]) -> None:
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"parts": {}}
    kept["machine"] = machine()
    kept["parts"][name] = part
    RESULTS.write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")


def median_interval(numbers: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of a median by order statistics: no distribution is assumed.

    The k-th smallest and largest of n hold the median between them but for 2 · P(binomial(n, 1/2) < k).
    """
    ordered, count = sorted(numbers), len(numbers)
    below = list(itertools.accumulate(_binomial(count, k) / 2**count for k in range(count + 1)))
    rank = max([k for k in range(1, count // 2 + 1) if 2 * below[k - 1] <= 0.05], default=1)
    return round(ordered[rank - 1], 4), round(ordered[count - rank], 4)


def _binomial(n: int, k: int) -> int:
    result = 1
    for each in range(k):
        result = result * (n - each) // (each + 1)
    return result
