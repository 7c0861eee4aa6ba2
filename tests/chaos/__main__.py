"""``make chaos``: the disturbed runs of ``test_delivery.py`` in full size, on a Kafka of this machine.

``python -m tests.chaos --seed 7``: every ordering, with graceful stops and with kills, 100,000 events each. The seed is
printed; the same one disturbs in the same order.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from consumer.kafka.local import LocalKafka
from tests.chaos.harness import Plan, Run, describe, folder_for
from tests.cluster import Cluster

ORDERINGS = ["key", "partition", "unordered"]


async def chaos(seed: int, events: int, rate: float, minutes: float) -> int:
    """Run every plan once, or as many as fit the time; return how many invariants were broken."""
    broken = 0
    deadline = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory() as parent:
        async with LocalKafka() as kafka:
            for kills, ordering in product((False, True), ORDERINGS):
                if time.monotonic() > deadline:
                    print("the time is up: what follows was not run", flush=True)
                    break
                plan = Plan(seed=seed, ordering=ordering, events=events, rate=rate, kills=kills)
                cluster = Cluster(kafka.bootstrap_servers, f"chaos-{ordering}", folder_for(Path(parent), plan))
                report = await Run(cluster, plan).go()
                print(describe(plan, report), *report.broken[:20], sep="\n  ", flush=True)
                broken += len(report.broken)
    return broken


def main() -> None:
    """Read the command line, run, and exit 1 when anything was broken."""
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=2_500.0)
    parser.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    sys.exit(min(1, asyncio.run(chaos(options.seed, options.events, options.rate, options.minutes))))


if __name__ == "__main__":
    main()
