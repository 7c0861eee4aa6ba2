"""``make soak MINUTES=30``: records and faults for a long time; nothing may grow in the worker that lives through it.

The first worker is never ended; its memory, descriptors, threads, tasks and loop delay are noted each second. The first
tenth of the time is a warm-up and is left out; then the last third is compared with the first.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import msgspec

from tests.chaos.harness import Plan, describe, folder_for
from tests.chaos.storm import FAULTS, OVERRIDES, Recovery, Storm
from tests.chaos.three import Three
from tests.chaos.watched import FILE, Sample
from tests.cluster import Cluster
from tests.process import RunningConsumer

RATE = 2_000.0
FAULT_SECONDS = 60.0
GROWTH_MB = 5.0
MORE = 5
"""Descriptors, threads or tasks: they come and go with connections."""


class Soak(Storm):
    """A storm with one fault a minute, whose first worker is sampled and never ended."""

    def _prepared(self, worker: RunningConsumer) -> RunningConsumer:
        self.spared = 1
        if not self._workers:
            worker.module = "tests.chaos.watched"
        return worker


def judge(samples: list[Sample]) -> list[str]:
    """Return what grew from the first third to the last, after a warm-up."""
    samples = samples[len(samples) // 10 :]
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    broken = []
    for name, allowed in (("rss_mb", GROWTH_MB), ("descriptors", MORE), ("threads", MORE), ("tasks", MORE)):
        before, after = (max(getattr(each, name) for each in part) for part in (first, last))
        print(f"  {name}: peak {before:.1f} in the first third, {after:.1f} in the last", flush=True)
        if after > before + allowed:
            broken.append(f"{name} grew from {before:.1f} to {after:.1f}")
    for name in ("rss_mb", "blocks", "native_mb"):
        before, after = (statistics.median(getattr(each, name) for each in part) for part in (first, last))
        print(f"  {name}: median {before:.1f} in the first third, {after:.1f} in the last", flush=True)
    delays = sorted(each.loop_delay for each in samples)
    print(
        f"  loop delay: median {statistics.median(delays) * 1e3:.1f} ms,"
        f" p99 {delays[int(len(delays) * 0.99)] * 1e3:.1f} ms, longest {delays[-1] * 1e3:.1f} ms",
        flush=True,
    )
    return broken


async def soak(seed: int, minutes: float, keep: Path | None) -> int:
    """Run, check the history and the samples, pass them to ``keep``, and return the number of violations."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    random = Random(seed)
    faults = [random.choice(FAULTS) for _ in range(max(1, int(minutes * 60 / (FAULT_SECONDS + 5))))]
    with tempfile.TemporaryDirectory() as parent:
        os.environ[FILE] = str(Path(parent) / "samples")
        os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)  # the worker is a module of these tests
        plan = Plan(
            seed=seed,
            ordering="key",
            partitions=6,
            workers=2,
            rate=RATE,
            kills=True,
            pause=(FAULT_SECONDS - 5, FAULT_SECONDS),
        )
        async with Three(Path(parent) / "kafka", seed) as three:
            plan = plan._replace(overrides=(f"kafka.bootstrap_servers={three.through_proxies}", *OVERRIDES))
            cluster = Cluster(three.bootstrap_servers, "soak", folder_for(Path(parent), plan))
            run = Soak(cluster, plan, three, faults, _tell)
            report = await run.judged()
        print(describe(plan, report), flush=True)
        lines = Path(os.environ[FILE]).read_bytes().splitlines()
        if keep is not None:
            keep.write_bytes(b"\n".join(lines))
        return len(report.broken) + len(judge([msgspec.json.decode(line, type=Sample) for line in lines]))


def _tell(recovery: Recovery) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {recovery.fault}: {recovery.seconds} s", flush=True)


def main() -> None:
    """Parse the command line, run, and exit 1 when anything was broken or grew."""
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--samples", type=Path, help="where to keep the samples, JSON Lines")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    sys.exit(min(1, asyncio.run(soak(options.seed, options.minutes, options.samples))))


if __name__ == "__main__":
    main()
