"""CPU of a daemon that has nothing to do, and of what looks at it, by number of partitions.

``python -m bench.watched`` prints a JSON object for each number of partitions: CPU of an idle daemon in percent of one
core, and CPU milliseconds of a scrape, of a status page and of a ``status.json``, each over what the idle daemon costs.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import aiohttp

from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.producer import create_topic
from consumer.settings.sections import Kafka
from tests.process import RunningConsumer

IDLE_SECONDS = 20.0
ROUNDS = 3
REQUESTS = 40
TICKS = os.sysconf("SC_CLK_TCK")
PATHS = {"scrape": "/metrics", "page": "/", "status_json": "/status.json"}


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def measure(servers: str, partitions: int) -> dict[str, float]:
    """Return the figures of one daemon that owns ``partitions`` partitions of an empty topic."""
    kafka = Kafka(bootstrap_servers=servers.split(","), topics=[f"idle-{partitions}"], group_id=f"idle-{partitions}")
    await create_topic(kafka, kafka.topics[0], partitions)
    await create_topic(kafka, f"{kafka.topics[0]}.dlq", 1)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.toml"
        settings.write_text("")
        sets = [
            f"kafka.bootstrap_servers={servers}",
            f"kafka.topics={kafka.topics[0]}",
            f"kafka.group_id={kafka.group_id}",
        ]
        async with RunningConsumer(settings, [*sets, "http.port=0", "log.format=json"]) as daemon:
            await daemon.said("partitions_assigned")
            await asyncio.sleep(10)
            idle = median([await _cpu_over(daemon.pid, IDLE_SECONDS) for _ in range(ROUNDS)])
            found = {"partitions": partitions, "idle_percent": round(idle / IDLE_SECONDS * 100, 2)}
            for name, path in PATHS.items():
                found[f"{name}_cpu_ms"] = round(median([await _request(daemon, path, idle) for _ in range(ROUNDS)]), 2)
            assert await daemon.stop() == 0
    return found


async def _cpu_over(pid: int, seconds: float) -> float:
    before = cpu_of(pid)
    await asyncio.sleep(seconds)
    return cpu_of(pid) - before


async def _request(daemon: RunningConsumer, path: str, idle: float) -> float:
    """Return the CPU milliseconds of one request, without what the idle daemon takes in that time."""
    url, before, began = await daemon.url(), cpu_of(daemon.pid), time.monotonic()
    async with aiohttp.ClientSession() as client:
        for _ in range(REQUESTS):
            async with client.get(url + path, headers={"Accept-Encoding": "gzip"}) as answer:
                await answer.read()
    spent = cpu_of(daemon.pid) - before - idle / IDLE_SECONDS * (time.monotonic() - began)
    return spent / REQUESTS * 1000


async def main() -> None:
    async with LocalKafka(report=lambda text: print(text, file=sys.stderr)) as kafka:
        for partitions in map(int, sys.argv[1:] or ("4", "64", "256")):
            print(json.dumps(await measure(kafka.bootstrap_servers, partitions)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
