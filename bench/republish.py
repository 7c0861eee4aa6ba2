"""Events written to another topic by the republish handler, beside a loop written by hand over aiokafka.

``python -m bench.republish`` prints one JSON object: events a second and CPU microseconds an event of both, from four
partitions into four; and the ratio of both in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from statistics import median

from bench.contestants import Contestant
from bench.data import DataSet
from bench.driver import VoidRunError, alternate, open_driver
from bench.machine import machine
from bench.report import over
from consumer.kafka.probe import group_offsets


async def measure(events: int, rounds: int) -> dict[str, object]:
    async with open_driver() as driver:
        target = await driver.topics.empty("bench-target", 4)
        mode = f"republish:{target}"
        hand = Contestant("republish_hand", "by hand: futures awaited before each commit", "hand_loops", mode)
        ours = Contestant("republish", "this project: the republish handler", "ours", mode)
        lines = await alternate(driver, [hand, ours], DataSet(events), rounds)
        ends = await group_offsets(driver.topics.kafka(target, "bench-nobody"))
    if (written := sum(end for _, end in ends.values())) != 2 * events * rounds:
        raise VoidRunError(f"{2 * events * rounds} events expected in {target}, {written} written")
    found: dict[str, object] = {"machine": machine(), "events": events, "rounds": rounds}
    for name in (hand.name, ours.name):
        found[f"{name}_per_second"] = [line["per_second"] for line in lines[name]]
        found[f"{name}_cpu_us"] = [line["cpu_us"] for line in lines[name]]
    found["events_ratio"] = round(median(over(lines[ours.name], lines[hand.name])), 3)
    found["cpu_ratio"] = round(median(over(lines[ours.name], lines[hand.name], "cpu_us")), 3)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.republish", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="number of events per run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (%(default)s)")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.events, options.rounds))))
