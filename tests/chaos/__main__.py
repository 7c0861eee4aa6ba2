"""``make chaos``: disturbed runs at full size on a local Kafka; the checker judges each run.

``make chaos MINUTES=10`` draws faults of brokers, network and workers by the seed, in turn over the three orderings.
``MINUTES=60`` runs every fault once in every ordering. Without MINUTES, ``test_delivery.py`` runs at full size: workers
join, leave and are killed. ``SEED=7`` repeats the order of disturbances; the seed is printed.
``ARGS="--protocol consumer"`` runs the same with the consumer group protocol.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, product
from pathlib import Path
from random import Random

from consumer.kafka.local.cluster import LocalKafka
from tests.chaos.harness import SHORT_SESSIONS, Plan, Run, describe, folder_for
from tests.chaos.recoveries import keep
from tests.chaos.storm import FAULTS, OVERRIDES, Fault, Recovery, Storm
from tests.chaos.three import Three
from tests.cluster import Cluster

ORDERINGS = ["key", "partition", "unordered"]
DRAWN_AT_ONCE = 6
SINGLY_FROM_MINUTES = 60
STORM_RATE = 300.0


async def deliveries(seed: int, events: int, rate: float, protocol: str) -> int:
    """Run every plan of ``test_delivery.py``; return how many invariants were broken."""
    broken = 0
    with tempfile.TemporaryDirectory() as parent:
        async with LocalKafka(properties=SHORT_SESSIONS) as kafka:
            for kills, ordering in product((False, True), ORDERINGS):
                plan = Plan(seed=seed, ordering=ordering, events=events, rate=rate, kills=kills, protocol=protocol)
                cluster = Cluster(kafka.bootstrap_servers, f"chaos-{ordering}", folder_for(Path(parent), plan))
                report = await Run(cluster, plan).go()
                print(describe(plan, report), flush=True)
                broken += len(report.broken)
    return broken


async def storms(seed: int, minutes: float, protocol: str) -> int:
    """Run storms for some minutes; return how many invariants and time limits were broken."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the harness's own clients meet the faults too
    broken, number, recoveries = 0, 0, list[Recovery]()
    deadline = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory() as parent:
        async with Three(Path(parent) / "kafka", seed) as three:
            for ordering, faults in _draws(seed, singly=minutes >= SINGLY_FROM_MINUTES):
                if time.monotonic() > deadline:
                    break
                number += 1
                plan = Plan(
                    seed=seed + number,
                    ordering=ordering,
                    partitions=6,
                    workers=2,
                    rate=STORM_RATE,
                    kills=True,
                    protocol=protocol,
                    overrides=(f"kafka.bootstrap_servers={three.through_proxies}", *OVERRIDES),
                )
                cluster = Cluster(three.bootstrap_servers, f"storm-{ordering}", folder_for(Path(parent), plan))
                run = Storm(cluster, plan, three, faults, _tell)
                report = await run.judged()
                recoveries += run.recoveries
                print(describe(plan, report), flush=True)
                broken += len(report.broken)
    if protocol == "classic":  # the table of recoveries is of this one
        keep(recoveries)
    return broken


def _draws(seed: int, *, singly: bool) -> Iterator[tuple[str, list[Fault]]]:
    """Yield orderings in turn, each with some faults; with ``singly`` each with all faults in order."""
    random = Random(seed)
    for ordering in cycle(ORDERINGS) if not singly else ORDERINGS:
        yield ordering, list(FAULTS) if singly else random.sample(FAULTS, DRAWN_AT_ONCE)


def _tell(recovery: Recovery) -> None:
    print(f"  {recovery.fault}: {recovery.seconds} s (bound {recovery.bound:g})", flush=True)


def main() -> None:
    """Parse the command line, run, and exit 1 when anything was broken."""
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--minutes", type=float, default=0.0, help="of faults; 0: deliveries in full size instead")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=2_500.0)
    parser.add_argument("--protocol", choices=["classic", "consumer"], default="classic", help="of the group")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    if options.minutes:
        broken = asyncio.run(storms(options.seed, options.minutes, options.protocol))
    else:
        broken = asyncio.run(deliveries(options.seed, options.events, options.rate, options.protocol))
    sys.exit(min(1, broken))


if __name__ == "__main__":
    main()
