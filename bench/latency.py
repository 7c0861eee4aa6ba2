"""End-to-end latency: from before a record is passed to the producer until the handler has its event."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.contestants import GETONE, INLINE, Contestant
from bench.driver import Driver, VoidRunError, progress

RATES = (1_000, 10_000)
SECONDS = 5
WARM_SECONDS = 1
PARTITIONS = 4
PRODUCER = Contestant("latency_producer", "", "latency_producer", peer="confluent")


async def latency(driver: Driver, rounds: int) -> dict[str, Any]:
    """Return p50 and p99 in milliseconds by rate and contestant: medians over the rounds, and each round's."""
    contestants = [INLINE._replace(mode="latency"), GETONE._replace(mode="latency")]
    found: dict[str, Any] = {}
    for rate in RATES:
        runs: dict[str, list[dict[str, float]]] = {each.name: [] for each in contestants}
        for number in range(rounds):
            for each in contestants if number % 2 == 0 else reversed(contestants):
                runs[each.name].append(await _one(driver, each, rate))
        found[str(rate)] = {
            name: {
                "p50_ms": median(r["p50_ms"] for r in lines),
                "p99_ms": median(r["p99_ms"] for r in lines),
                "rounds": lines,
            }
            for name, lines in runs.items()
        }
    return found


async def _one(driver: Driver, contestant: Contestant, rate: int) -> dict[str, float]:
    """Measure one contestant at one rate on a new topic; the first second does not count."""
    events = rate * SECONDS
    topic = await driver.topics.empty(driver.fresh("latency"), PARTITIONS)
    async with driver.started(contestant, topic, events, warm=rate * WARM_SECONDS) as process:
        await process.said("ready")
        async with driver.started(PRODUCER, topic, events, rate=rate) as producer:
            took = sorted((await process.said("latencies_ns"))["latencies_ns"])
            handled = (await process.said("handled"))["handled"]
            await producer.said("handled")
    committed = await driver.committed(topic, process.group)
    if not handled == committed == events:
        raise VoidRunError(f"{contestant.name}: {events} produced, {handled} handled, {committed} committed")
    line = {"p50_ms": round(_at(took, 0.5), 3), "p99_ms": round(_at(took, 0.99), 3), "max_ms": round(took[-1] / 1e6, 3)}
    progress(f"latency at {rate}/s, {contestant.name}: {line}")
    return line


def _at(took: list[int], share: float) -> float:
    return took[min(len(took) - 1, int(len(took) * share))] / 1e6
